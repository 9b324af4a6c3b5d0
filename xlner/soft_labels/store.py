"""Stored soft labels: what a teacher says of every word of a text, computed once, read back from disk and checked."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from xlner import files
from xlner.arrow_files import RowWriter, StoredRows, in_blocks, is_whole, rows_digest
from xlner.encode import Window
from xlner.errors import SoftLabelError, disk_errors
from xlner.files import json_digest, read_json, write_json, write_text

# A folder holds `soft_labels.json` (whose teacher, which text, how many parts) and Arrow files with a row a sentence:
# the words, the logarithms of their tag probabilities (W, C) and their similarity projections (W, E), both flat and in
# fp16, and how far each word's probabilities are trusted (W,). Files are memory-mapped: a corpus larger than memory
# works.
#
# As a logarithm every probability survives fp16, to 1 % down to 1e-14, and to 0.0002 where it is large; fp16 of the
# probability itself is 0 below 6e-8. A word that the teacher could not see has probabilities of 0, so -inf is stored.


LOG = logging.getLogger("xlner")

SoftRow = dict[str, Sequence[str] | NDArray[np.generic]]

CARD_FILE = "soft_labels.json"
COLUMNS = {"words": "string", "log_probs": "float16", "projections": "float16", "weights": "float16"}
WINDOW_COLUMNS = {"sentence": "int64", "piece_ids": "int32", "word_positions": "int32", "word_numbers": "int32"}
# Of the formulas that make soft labels, by step (others: 1). Whoever changes what a step gives for the same settings
# adds 1 here: what was stored by the other formula is then not used any more.
FORMULAS = {
    "labelled": 4,  # 2: stored as logarithms; 3, 4: pieces of scripts without spaces
    "mixed": 3,  # 3: strings and types of annotation files, normal forms of patterns
    "pooled": 4,  # 3: a strength by how sure the teacher is, the shift of O by doubt; 4: scripts without capitals
    "source": 2,
    "gold": 1,
    "former": 2,
    "augmented": 2,
}
WINDOWS_FORMULA = 1  # the same for `store_windows`
# Sentences that a process labels in one go.
BLOCK = 1024
MOST_PARTS = 128  # of one folder: each of them is a file that stays open


@dataclass(frozen=True)
class SoftLabelCard:
    """What stored soft labels are of: two stores with one card are interchangeable.

    `teacher` and `corpus` are fingerprints; `number_format` is what the teacher computed in, and `formula` the number
    of the step's formula in `FORMULAS`. `digests` are the SHA-256 of the parts; empty as long as not all of them stand.
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
    number_format: str = "fp32"
    formula: int = FORMULAS["labelled"]
    digests: tuple[str, ...] = ()

    def belongs_to(self, teacher: str, corpus: str, number_format: str) -> str:
        """Empty if these are what labelling would give now, for two fingerprints and a number format; else why not."""
        formula = FORMULAS["labelled"]
        differences = []
        if self.teacher != teacher:
            differences.append(f"they are of teacher {self.teacher}, this one is {teacher}")
        if self.corpus != corpus:
            differences.append(f"they are of text {self.corpus}, this one is {corpus}")
        if self.number_format != number_format:
            differences.append(f"they were computed in {self.number_format}, this run computes in {number_format}")
        if self.formula != formula:
            differences.append(f"they were made by formula {self.formula}, now it is {formula}")
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
        if card is None and self._rows.digests != self.card.digests:
            raise SoftLabelError(f"{folder}: damaged soft labels: a part is of other soft labels; remove the folder")
        self.card = replace(self.card, digests=self._rows.digests)
        if len(self._rows) != self.card.n_sentences:
            raise SoftLabelError(
                f"{folder}: expected {self.card.n_sentences} sentences, found {len(self._rows)}; remove the folder"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def words(self, sentence: int) -> list[str]:
        """The words of a sentence."""
        return self._rows.words(sentence, "words")

    @property
    def digest(self) -> str:
        """A short hash of all that is stored here, and of what it was made of."""
        return json_digest(asdict(self.card))[:12]

    def probs(self, sentence: int) -> NDArray[np.float32]:
        """Tag probabilities (W, C) of a sentence, each row summing to 1; zeros for a word that the teacher saw not."""
        logs = self._rows.row(sentence, "log_probs").reshape(-1, len(self.card.tags))
        probs: NDArray[np.float32] = np.exp(logs.astype(np.float32))
        sums = probs.sum(axis=1, keepdims=True)
        sums[sums == 0] = 1.0
        probs /= sums  # in fp16 they sum to 1 within 0.001 only
        return probs

    def projections(self, sentence: int) -> NDArray[np.float16]:
        """Unit vectors (W, E) of a sentence."""
        flat, size = self._rows.row(sentence, "projections"), self.card.projection_size
        n_words = len(flat) // size if size else len(self.words(sentence))
        return flat.reshape(n_words, size)  # type: ignore[return-value]

    def weights(self, sentence: int) -> NDArray[np.float16]:
        """How far the probabilities of each word are trusted, (W,), in [0, 1]."""
        return self._rows.row(sentence, "weights")  # type: ignore[return-value]

    def row(
        self,
        sentence: int,
        *,
        probs: NDArray[np.floating] | None = None,
        weights: NDArray[np.floating] | None = None,
    ) -> SoftRow:
        """The row of a sentence as it is stored, to be stored again; with other probabilities or weights if given."""
        stored = {name: self._rows.row(sentence, name) for name in ("log_probs", "projections", "weights")}
        if probs is not None:
            stored["log_probs"] = _logarithms(probs)
        if weights is not None:
            stored["weights"] = weights.astype(np.float16)
        return {"words": self.words(sentence), **stored}

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
        "log_probs": _logarithms(probs),
        "projections": projections.astype(np.float16).ravel(),
        "weights": trust.astype(np.float16),
    }


def _logarithms(probs: NDArray[np.floating]) -> NDArray[np.float16]:
    """Of probabilities (W, C), flat; -inf for 0."""
    with np.errstate(divide="ignore"):
        logs: NDArray[np.float16] = np.log(probs, dtype=np.float64).astype(np.float16)
    return logs.ravel()


def read_card(folder: Path) -> SoftLabelCard | None:
    """The card of a finished folder; None where nothing finished lies.

    Raises:
        SoftLabelError: If it is damaged, or an earlier version of xlner wrote it.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        tuples = {name: tuple(content[name]) for name in ("tags", "digests")}
        return SoftLabelCard(**{**content, **tuples})
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise SoftLabelError(f"{path}: no card of soft labels: {problem}; remove the folder") from problem


def write_card(folder: Path, card: SoftLabelCard) -> None:
    """Declare a folder finished; called once all its parts stand, of which it notes the digests."""
    digests = tuple(rows_digest(part_path(folder, part)) for part in range(card.n_parts))
    write_json(folder / CARD_FILE, asdict(replace(card, digests=digests)))


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


def windows_path(soft_labels: SoftLabels, encoder: StudentEncoder) -> Path:
    """Where the windows of a text for a student lie."""
    return soft_labels.folder / f"windows-{WINDOWS_FORMULA}-{encoder.fingerprint}.arrow"


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


# Soft labels in the making: parts that a stopped run has finished, and the card that declares them whole.


_BEGUN_FILE = ".begun.json"


def keep_parts(folder: Path, card: SoftLabelCard, tell: Callable[[str], None]) -> int:
    """Keep the finished parts of the same soft labels, and remove those of any others; how many are kept.

    Args:
        folder: Where they lie; nobody else writes there.
        card: Of the soft labels that are wanted, without the number of words.
        tell: Takes a line on each part that is damaged, which is removed, too.
    """
    (folder / CARD_FILE).unlink(missing_ok=True)
    for left in folder.glob(".part-*.unfinished"):
        left.unlink()  # of a process that was killed
    path, wanted = folder / _BEGUN_FILE, json.dumps(asdict(card), indent=2) + "\n"
    is_same = path.is_file() and path.read_text(encoding="utf-8", errors="replace") == wanted
    n_kept = 0
    for part in sorted(folder.glob("part-*.arrow")):
        if is_same and is_whole(part):
            n_kept += 1
            continue
        if is_same:
            tell(f"{part}: damaged; made again")
        part.unlink()
    write_text(path, wanted)
    return n_kept


def write_counted_card(folder: Path, card: SoftLabelCard) -> tuple[int, int]:
    """Declare a folder finished, all of whose parts stand; its words, and those that the teacher could not see."""
    soft_labels = SoftLabels(folder, card)
    n_words = n_unseen = 0
    for sentence in range(len(soft_labels)):
        probs = soft_labels.probs(sentence)
        n_words, n_unseen = n_words + len(probs), n_unseen + int(np.sum(~probs.any(axis=1)))
    write_card(folder, replace(card, n_words=n_words))
    (folder / _BEGUN_FILE).unlink(missing_ok=True)
    return n_words, n_unseen


# Soft labels that are made once, whichever run wants them first, and found again.


def whole_soft_labels(folder: Path) -> SoftLabels | None:
    """Those that a cache holds; None if they are not there, or damaged, so that they are made again."""
    try:
        return SoftLabels(folder) if read_card(folder) else None
    except SoftLabelError as problem:
        reason = str(problem).removesuffix("; remove the folder")
        LOG.warning(f"{reason}; made again")
        return None


def derived_soft_labels(
    soft_labels: SoftLabels,
    name: str,
    settings: Any,
    rows: Callable[[], Iterable[SoftRow]],
    accelerator: Accelerator,
) -> SoftLabels:
    """Soft labels made of others, in a folder inside theirs; made once, by the main process; every process calls it.

    Args:
        soft_labels: What they are made of; the new ones have the same card but for the counts.
        name: Of the step, as it stands in `FORMULAS`, and shall stand in the folder's name.
        settings: All else that they depend on, as JSON.
        rows: Makes the rows, one a sentence. Every process calls it, so that they may share the work; the main process
            alone goes through what it gives.
        accelerator: The other processes wait.
    """
    formula = FORMULAS.get(name, 1)
    key = json_digest([soft_labels.digest, formula, settings])[:12]
    folder = soft_labels.folder / f"{name}-{key}"
    with locked(folder, accelerator):
        stored = whole_soft_labels(folder)
        accelerator.wait_for_everyone()  # nobody writes before all have looked
        made = () if stored else rows()
        if accelerator.is_main_process and not stored:
            n_sentences = n_words = 0
            with RowWriter(part_path(folder, 0), COLUMNS) as writer:
                for block in in_blocks(made, BLOCK):
                    writer.write(block)
                    n_sentences, n_words = n_sentences + len(block), n_words + sum(len(row["words"]) for row in block)
            card = replace(soft_labels.card, formula=formula, n_parts=1, part_sentences=BLOCK)
            write_card(folder, replace(card, n_sentences=n_sentences, n_words=n_words))
        accelerator.wait_for_everyone()
    return stored or SoftLabels(folder)


@contextmanager
def locked(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Hold a folder against other runs, which may want to make the same soft labels; they wait their turn."""
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        yield
        return
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def wait() -> None:
        LOG.info(f"{folder}: another run is making these soft labels; waiting for it")

    with files.locked(folder / ".lock", wait):
        accelerator.wait_for_everyone()
        yield
