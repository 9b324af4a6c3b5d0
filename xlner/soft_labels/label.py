"""Soft labels and hidden states made by running a teacher over a text, once; found again by what they are made of."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from xlner.arrow_files import RowWriter, in_blocks
from xlner.config.schema import CorpusRecipe, MixingRecipe, models_among
from xlner.corpora.splits import CorpusFingerprint, begins_with_labels, text_stream
from xlner.errors import ModelError, SoftLabelError
from xlner.hub import find_file, is_there
from xlner.models.folder import load_joint_model, read_settings
from xlner.models.inference import number_format, word_encoder, word_outputs
from xlner.models.settings import is_compact
from xlner.models.token_classifier import tags_of_model
from xlner.predict import go_on
from xlner.soft_labels.store import (
    BLOCK,
    COLUMNS,
    FORMULAS,
    SoftLabelCard,
    SoftLabels,
    SoftRow,
    keep_parts,
    locked,
    part_length,
    part_path,
    read_card,
    soft_row,
    whole_soft_labels,
    write_counted_card,
)
from xlner.tagger import load_tagger
from xlner.words import Sentence

LOG = logging.getLogger("xlner")

# The files of a model folder on which its outputs depend.
_TEACHER_FILES = (
    "config.json",
    "model.safetensors",
    "similarity.safetensors",
    "evaluator.safetensors",
    "tokenizer.json",
    "xlner.json",
    # Of compact students.
    "student.json",
    "vocabulary.json",
    "model.onnx",
    # Of models that xlner did not make.
    "model.safetensors.index.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spm.model",
)


def teacher_fingerprint(folder: str) -> str:
    """A short hash of everything that the outputs of a teacher, a folder or a model of the hub, depend on."""
    check_teacher(folder)
    digest = hashlib.sha256()
    parts = sorted(path.name for path in Path(folder).glob("model-*.safetensors"))
    for name in (*_TEACHER_FILES, *parts):
        path = find_file(folder, name)
        if path is not None:
            digest.update(name.encode())
            with path.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:12]


def begins_with_compact(models: Sequence[str]) -> bool:
    """Whether the first of the teachers that are models, if there is one, is a compact student."""
    return bool(models) and is_compact(Path(models[0]))


def check_teacher(folder: str) -> None:
    """Refuse a teacher that is not there.

    Raises:
        ModelError: With what would be one.
    """
    if not is_compact(Path(folder)) and not is_there(folder):
        raise ModelError(
            f"teacher={folder}: no such folder; train one with train_teacher.py, or give teacher=FOLDER, the name of a "
            "token classifier of the hub, or annotations as FILE.jsonl"
        )


class Former(NamedTuple):
    """What a tuned teacher was before: it goes on telling the types that the labels lack, which are forgotten by them.

    `tuned` and `before` are model folders or hub names; `types` bear the names of the tuned one.
    """

    tuned: str
    before: str
    types: tuple[str, ...]


@dataclass(frozen=True)
class Teachers:
    """Who teaches, and what is read for it.

    `names` are model folders, hub names, annotation files and `patterns`; `mixing` says how they become one, `corpus`
    how a text is read, `data` where text of their languages lies. `store` is the folder of a single teacher's soft
    labels, or that of the folders of several; None for one that is found by content. `former` is what one of them was
    before it learnt from target labels, if these lack types.
    """

    names: tuple[str, ...]
    mixing: MixingRecipe
    corpus: CorpusRecipe
    data: str
    store: Path | None
    patterns: tuple[str, ...] = ()
    former: Former | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Those that are models; the others are files of annotations or patterns."""
        return models_among(self.names, self.patterns)


class TextMark(NamedTuple):
    """What a target text is known by: the fingerprint of its words, whether it has labels, how long it is."""

    fingerprint: str
    labelled: bool
    n_sentences: int


def text_fingerprint(path: Path, recipe: CorpusRecipe) -> TextMark:
    """The fingerprint of a target text without its labels; reads the text once."""
    fingerprint, n_sentences = CorpusFingerprint(), 0
    for sentence in target_stream(path, recipe):
        n_sentences += 1
        fingerprint.add(sentence)
    return TextMark(fingerprint.hexdigest(), begins_with_labels(path, recipe), n_sentences)


def soft_labels_of(
    teacher: str,
    text: Path,
    *,
    corpus: CorpusRecipe,
    store: Path | None,
    root: Path,
    accelerator: Accelerator,
    autocast_dtype: torch.dtype | None,
) -> SoftLabels:
    """The stored soft labels of a teacher on a text, made now if there are none yet; every process calls it.

    Args:
        teacher: Model folder.
        text: Target corpus; labels in it are not looked at.
        corpus: How to read and cut it.
        store: A folder for these very soft labels; None for one under `root`, named after all that they depend on.
        root: Folder of folders.
        accelerator: Processes share the work, block by block in turn.
        autocast_dtype: Number format of the teacher's pass; None for float32.

    Raises:
        SoftLabelError: If `store` holds soft labels of another teacher, text or number format, or damaged ones; under
            `root` damaged ones are made again.
    """
    teacher_hash = teacher_fingerprint(teacher)
    mark = text_fingerprint(text, corpus)
    text_hash = mark.fingerprint
    if mark.labelled:
        LOG.info(f"{text}: has labels; they are not used, since the target language counts as unlabelled")
    name_of_format = number_format(autocast_dtype)
    folder = store or root / f"{teacher_hash}-{text_hash}-{name_of_format}-{FORMULAS['labelled']}"
    with locked(folder, accelerator):
        card = read_card(folder) if store else None
        if card and (difference := card.belongs_to(teacher_hash, text_hash, name_of_format)):
            raise SoftLabelError(
                f"{folder}: stale soft labels: {difference}; give another soft_labels= folder, or soft_labels=auto"
            )
        found = SoftLabels(folder) if card else whole_soft_labels(folder)
        accelerator.wait_for_everyone()  # nobody writes before all have looked
        if found is None:
            _make(folder, teacher, teacher_hash, text, mark, corpus, accelerator, autocast_dtype)
        else:
            LOG.info(
                f"soft labels: {folder} ({found.card.n_sentences:,} sentences, {found.card.n_words:,} words), as stored"
            )
        accelerator.wait_for_everyone()
    return found or SoftLabels(folder)


def _make(
    folder: Path,
    teacher: str,
    teacher_hash: str,
    text: Path,
    mark: TextMark,
    corpus: CorpusRecipe,
    accelerator: Accelerator,
    autocast_dtype: torch.dtype | None,
) -> None:
    """Label a text part by part; parts that stand already, of a run that was stopped, stay as they are."""
    labeller = (_CompactLabeller if is_compact(Path(teacher)) else _Labeller)(
        teacher, accelerator.device, autocast_dtype
    )
    length = part_length(mark.n_sentences)
    card = SoftLabelCard(
        teacher=teacher_hash,
        corpus=mark.fingerprint,
        tags=labeller.tags,
        projection_size=labeller.projection_size,
        scale=labeller.curve[0],
        offset=labeller.curve[1],
        n_sentences=mark.n_sentences,
        n_words=0,
        n_parts=-(-mark.n_sentences // length),
        part_sentences=length,
        number_format=number_format(autocast_dtype),
    )
    if accelerator.is_main_process and (n_kept := keep_parts(folder, card, LOG.warning)):
        LOG.info(f"soft labels: {folder}: going on after {n_kept:,} of {card.n_parts:,} parts")
    accelerator.wait_for_everyone()
    rank, n_processes = accelerator.process_index, accelerator.num_processes
    bar = tqdm(desc="soft labels", unit=" sentences", disable=rank > 0, total=mark.n_sentences, dynamic_ncols=True)
    with bar:
        for number, part in enumerate(in_blocks(target_stream(text, corpus), length)):
            if number % n_processes != rank or part_path(folder, number).is_file():
                bar.update(len(part))
                continue
            with RowWriter(part_path(folder, number), COLUMNS) as writer:
                for block in in_blocks(part, BLOCK):
                    writer.write(labeller.rows([sentence.words for sentence in block]))
                    bar.update(len(block))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        n_words, n_unseen = write_counted_card(folder, card)
        unseen = f"; {n_unseen:,} words are nothing to the teacher's tokenizer" if n_unseen else ""
        counts = f"{card.n_sentences:,} sentences, {n_words:,} words{unseen}"
        LOG.info(f"soft labels: {folder} ({counts}), made now")


class _Labeller:
    """A network of pieces, and what soft labels tell of it."""

    def __init__(self, teacher: str, device: torch.device, autocast_dtype: torch.dtype | None) -> None:
        self._model = load_joint_model(teacher).to(device).eval()
        settings = read_settings(teacher)
        self._encoder = word_encoder(teacher, self._model.recognizer, settings.max_length)
        self._spaced = settings.spaced
        self._device, self._autocast_dtype = device, autocast_dtype
        head = self._model.similarity
        self.tags = tags_of_model(self._model.recognizer.config)
        self.projection_size, self.curve = (0, (1.0, 0.0)) if head is None else (head.size, head.curve())

    def rows(self, sentences: Sequence[Sequence[str]]) -> list[SoftRow]:
        """A row per sentence; words that no window decides keep zeros."""
        size = self.projection_size
        probs = [np.zeros((len(words), len(self.tags)), dtype=np.float32) for words in sentences]
        projections = [np.zeros((len(words), size), dtype=np.float32) for words in sentences]
        windows = list(self._encoder.encode(sentences))
        for number, output in word_outputs(
            self._model,
            windows,
            self._encoder.pad_id,
            device=self._device,
            autocast_dtype=self._autocast_dtype,
            with_projections=size > 0,
        ):
            window = windows[number]
            probs[window.sentence][window.word_numbers] = output.probs
            if output.projections is not None:
                projections[window.sentence][window.word_numbers] = output.projections
        go_on(probs, sentences, self.tags, spaced=self._spaced)
        return [soft_row(*row) for row in zip(sentences, probs, projections, strict=True)]


class _CompactLabeller:
    """A compact student that teaches; it has a number format of its own."""

    def __init__(self, teacher: str, device: torch.device, _: torch.dtype | None) -> None:
        self._tagger = load_tagger(teacher, device=device.type)
        self.tags, self.projection_size, self.curve = self._tagger.labels.tags, 0, (1.0, 0.0)

    def rows(self, sentences: Sequence[Sequence[str]]) -> list[SoftRow]:
        """As `_Labeller.rows`."""
        probs = self._tagger.probs(sentences)
        return [soft_row(words, rows, np.zeros((len(words), 0))) for words, rows in zip(sentences, probs, strict=True)]


def target_stream(path: Path, recipe: CorpusRecipe) -> Iterator[Sentence]:
    """The sentences of a target text that a run looks at."""
    return islice(text_stream(path, recipe), recipe.max_sentences or None)


# What the steps of denoising may look at beside the soft labels.


class DenoisingContext(NamedTuple):
    """What a step may look at beside the soft labels.

    `outside_share` is the share of `O` among the words of the teachers' labelled text, 0 where it is not known.
    """

    accelerator: Accelerator
    outside_share: float
