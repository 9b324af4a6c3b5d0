"""Stored soft labels: what a teacher says of every word of a text, computed once, read back from disk.

A folder holds `soft_labels.json` (whose teacher, which text, how many parts) and Arrow files with a row a sentence:
the words, their tag probabilities (W, C) and their similarity projections (W, E), both flat and in fp16, and how far
each word's probabilities are trusted (W,). A word that the teacher could not see has a row of zeros. Files are
memory-mapped: a corpus larger than memory works.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from xlner.data.alignment import Window
from xlner.data.storage import RowWriter, StoredRows
from xlner.errors import SoftLabelError

SoftRow = dict[str, Sequence[str] | NDArray[np.generic]]

CARD_FILE = "soft_labels.json"
COLUMNS = {"words": "string", "probs": "float16", "projections": "float16", "weights": "float16"}
WINDOW_COLUMNS = {"sentence": "int64", "piece_ids": "int32", "word_positions": "int32", "word_numbers": "int32"}
# Sentences that a process labels in one go.
BLOCK = 1024
MOST_PARTS = 128  # of one folder: each of them is a file that stays open


@dataclass(frozen=True)
class SoftLabelCard:
    """What stored soft labels are of: two stores with one card are interchangeable.

    `scale` and `offset` turn the cosine of two projections into the teacher's similarity logit; without a
    similarity head `projection_size` is 0. A part has `part_sentences`, the last one fewer; the parts are read in turn.
    """

    teacher: str
    corpus: str
    tags: tuple[str, ...]
    projection_size: int
    scale: float
    offset: float
    n_sentences: int
    n_words: int
    n_parts: int
    part_sentences: int = BLOCK

    def belongs_to(self, teacher: str, corpus: str) -> str:
        """Empty if these are the soft labels of that teacher and text (fingerprints), else what differs."""
        differences = []
        if self.teacher != teacher:
            differences.append(f"they are of teacher {self.teacher}, this one is {teacher}")
        if self.corpus != corpus:
            differences.append(f"they are of text {self.corpus}, this one is {corpus}")
        return "; ".join(differences)


class SoftLabels:
    """Reads a folder of soft labels."""

    def __init__(self, folder: Path, card: SoftLabelCard | None = None) -> None:
        """Open a finished folder.

        Args:
            folder: Where it lies.
            card: Of one that is about to be declared finished; otherwise the one that lies there.

        Raises:
            SoftLabelError: If there is none, or it is damaged.
        """
        self.folder = folder
        found = card or read_card(folder)
        if found is None:
            raise SoftLabelError(f"{folder}: no finished soft labels here ({CARD_FILE} is missing)")
        self.card = found
        try:
            parts = [part_path(folder, part) for part in range(self.card.n_parts)]
            self._rows = StoredRows(parts, self.card.part_sentences)
        except (OSError, ValueError) as problem:
            raise SoftLabelError(f"{folder}: damaged soft labels: {problem}; remove the folder") from problem
        if len(self._rows) != self.card.n_sentences:
            raise SoftLabelError(
                f"{folder}: expected {self.card.n_sentences} sentences, found {len(self._rows)}; remove the folder"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def words(self, sentence: int) -> list[str]:
        """The words of a sentence."""
        return self._rows.words(sentence, "words")

    def probs(self, sentence: int) -> NDArray[np.float16]:
        """Tag probabilities (W, C) of a sentence."""
        return self._rows.row(sentence, "probs").reshape(-1, len(self.card.tags))  # type: ignore[return-value]

    def projections(self, sentence: int) -> NDArray[np.float16]:
        """Unit vectors (W, E) of a sentence."""
        flat, size = self._rows.row(sentence, "projections"), self.card.projection_size
        n_words = len(flat) // size if size else len(self.words(sentence))
        return flat.reshape(n_words, size)  # type: ignore[return-value]

    def weights(self, sentence: int) -> NDArray[np.float16]:
        """How far the probabilities of each word are trusted, (W,), in [0, 1]."""
        if not self._rows.has("weights"):  # stored by an earlier version
            return np.ones(len(self.words(sentence)), dtype=np.float16)
        return self._rows.row(sentence, "weights")  # type: ignore[return-value]

    def similarities(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
        """The teacher's similarity in [0, 1] of word pairs, (Q,), from their projections (Q, E)."""
        logits = self.card.scale * (first * second).sum(axis=-1) + self.card.offset
        return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)  # type: ignore[no-any-return]


def soft_row(
    words: Sequence[str],
    probs: NDArray[np.floating],
    projections: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
) -> SoftRow:
    """A row to be stored: words (W,), probabilities (W, C), unit vectors (W, E), weights (W,); None: all are 1."""
    trust = np.ones(len(words)) if weights is None else weights
    return {
        "words": words,
        "probs": probs.astype(np.float16).ravel(),
        "projections": projections.astype(np.float16).ravel(),
        "weights": trust.astype(np.float16),
    }


def read_card(folder: Path) -> SoftLabelCard | None:
    """The card of a finished folder; None where nothing finished lies."""
    path = folder / CARD_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return SoftLabelCard(**{**content, "tags": tuple(content["tags"])})
    except (ValueError, TypeError, KeyError) as problem:
        raise SoftLabelError(f"{path}: no card of soft labels: {problem}; remove the folder") from problem


def write_card(folder: Path, card: SoftLabelCard) -> None:
    """Declare a folder finished; called once all its parts stand."""
    unfinished = folder / f".{CARD_FILE}.{uuid4().hex[:8]}.unfinished"
    unfinished.write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / CARD_FILE)


def part_length(n_sentences: int) -> int:
    """How many sentences the parts of a text shall have: whole blocks, and not too many files."""
    return BLOCK * max(1, -(-n_sentences // (BLOCK * MOST_PARTS)))


def part_path(folder: Path, part: int) -> Path:
    """Where a part lies."""
    return folder / f"part-{part:04d}.arrow"


class StoredWindows(Sequence[Window]):
    """Windows of a text, for one tokenizer and length limit, in a memory-mapped file."""

    def __init__(self, path: Path) -> None:
        self._rows = StoredRows([path])
        self.lengths = self._rows.lengths("piece_ids")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Window:  # type: ignore[override]  # slices are not needed
        return Window(
            int(self._rows.row(number, "sentence")[0]),
            self._rows.row(number, "piece_ids"),  # type: ignore[arg-type]
            self._rows.row(number, "word_positions"),  # type: ignore[arg-type]
            self._rows.row(number, "word_numbers"),  # type: ignore[arg-type]
        )


class StudentEncoder(Protocol):
    """What cuts sentences for a student: by pieces of a tokenizer, or by words."""

    @property
    def fingerprint(self) -> str:
        """Tells encoders apart that give different windows."""

    def encode(self, sentences: Sequence[Sequence[str]], first_sentence: int = 0) -> Iterator[Window]:
        """The windows of some sentences, in order; their `sentence` counts from `first_sentence`."""


def store_windows(path: Path, soft_labels: SoftLabels, encoder: StudentEncoder) -> None:
    """Encode the words of soft labels as a student reads them and store the windows."""
    with RowWriter(path, WINDOW_COLUMNS) as writer:
        for start in range(0, len(soft_labels), BLOCK):
            numbers = range(start, min(start + BLOCK, len(soft_labels)))
            windows = encoder.encode([soft_labels.words(number) for number in numbers], start)
            writer.write(list(_window_rows(windows)))


def _window_rows(windows: Iterator[Window]) -> Iterator[dict[str, NDArray[np.generic]]]:
    for window in windows:
        yield {
            "sentence": np.asarray([window.sentence]),
            "piece_ids": window.piece_ids,
            "word_positions": window.word_positions,
            "word_numbers": window.word_numbers,
        }
