"""Whole corpora for training and evaluation, with their names and fingerprints, and what became of their words."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xlner.config.load import choose
from xlner.config.schema import CorpusRecipe
from xlner.corpora.columns import TEXT_NAMES, WORD_NAMES, find_name
from xlner.corpora.identity import CorpusTally, name_split, summarize
from xlner.corpora.problems import CorpusProblem
from xlner.corpora.schemes import IGNORE
from xlner.corpora.source import ReadingOptions, read_corpus, read_located
from xlner.encode import Window, WordEncoder
from xlner.errors import CorpusError, LabelError
from xlner.files import write_text
from xlner.tags import LabelMap, LabelSet, spans_of
from xlner.words import WORD_SPLITTERS, Sentence


class TextTable(Protocol):
    """A `datasets.Dataset`, or what else has columns."""

    @property
    def column_names(self) -> list[str]: ...  # noqa: D102
    def __getitem__(self, name: str, /) -> Any: ...


# An unlabelled text as Python has it: a file, sentences, sentences of words, or a table with a column of either.
Text = str | os.PathLike[str] | Iterable[str | Sequence[str]] | TextTable
N_PEEKED = 1000  # sentences of a target text that are looked at for labels, to say that these are not used


@dataclass(frozen=True)
class Corpus:
    """A labelled corpus in memory; `name` is its split, `fingerprint` a hash of its content.

    `known_as` says which published split has this content, such as `WikiNEuRal de, test`; empty if none is known.
    """

    name: str
    path: Path
    words: list[tuple[str, ...]]
    tags: list[tuple[str, ...]]
    fingerprint: str
    known_as: str = ""

    @property
    def types(self) -> tuple[str, ...]:
        """The entity types that occur, in alphabetical order."""
        return tuple(sorted({span.label for tags in self.tags for span in spans_of(tags)}))


def text_file(text: Text, folder: Path, format: str) -> str:
    """The file of a text, for the recipe key `text`; empty for an empty text.

    What is no file yet is written to one that is named after its content: a run that is taken up with another text has
    another recipe.

    Args:
        text: What a training function was given.
        folder: Where the file goes.
        format: As which the recipe reads it (`corpus.format`).

    Raises:
        CorpusError: If there is no column of text or words, a sentence is neither, or another format is asked for.
    """
    if isinstance(text, str | os.PathLike):
        return os.fspath(text)
    if format not in ("auto", "jsonl"):
        raise CorpusError(f"text= is stored as JSON lines, and corpus.format is {format}; leave the format out")
    sentences: Any = text
    if names := getattr(text, "column_names", None):
        column = find_name(names, WORD_NAMES) or find_name(names, TEXT_NAMES)
        if column is None:
            raise CorpusError(f"text= has the columns {', '.join(names)}; expected one named text or words")
        sentences = sentences[column]
    lines = [_text_record(number, sentence) for number, sentence in enumerate(sentences)]
    if not lines:
        raise CorpusError("text= holds no sentence")
    content = "".join(lines)
    path = folder / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.jsonl"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, content)
    return str(path)


def _text_record(number: int, sentence: Any) -> str:
    if isinstance(sentence, str):
        return json.dumps({"text": sentence}) + "\n"
    if isinstance(sentence, Sequence) and all(isinstance(word, str) for word in sentence):
        return json.dumps({"words": list(sentence)}) + "\n"
    raise CorpusError(f"text=[{number}] is {sentence!r:.80}; expected a sentence, or a list of its words")


def read_labelled(path: Path, recipe: CorpusRecipe, *, limit: int = 0) -> Corpus:
    """Read a labelled corpus; only the first `limit` sentences, if above 0.

    Raises:
        CorpusError: If it cannot be read, or has sentences without labels.
    """
    tally = CorpusTally()
    words, tags = [], []
    for number, sentence in enumerate(sentence_stream(path, recipe), 1):
        if sentence.tags is None:
            raise CorpusError(
                f"{path}: expected a tag for each word, but sentence {number} has none "
                f"({' '.join(sentence.words[:6])!r}); give labelled text, or name its columns with corpus.columns"
            )
        if odd := next((word for word in sentence.words if not {"\t", "\n", "\r"}.isdisjoint(word)), ""):
            raise CorpusError(
                f"{path}: sentence {number}: the word {odd!r} holds a TAB or a line end, so that no prediction of it "
                "could be written down; split or drop it"
            )
        tally.add(sentence)
        words.append(sentence.words)
        tags.append(sentence.tags)
        if number == limit:
            break
    summary = tally.summary()
    corpus = Corpus(path.stem, path, words, tags, summary.fingerprint, name_split(summary, path))
    if not corpus.types:
        raise CorpusError(
            f"{path}: found no entity in {len(words):,} sentences; are the columns right (corpus.columns)?"
        )
    return corpus


def check_types(labels: LabelSet, corpora: Iterable[Corpus]) -> None:
    """Refuse corpora on which a model of these labels could only score 0, before hours are spent on training it.

    Raises:
        LabelError: If a corpus has no entity type in common with the labels.
    """
    for corpus in corpora:
        if not set(corpus.types) & set(labels.types):
            raise LabelError(
                f"{corpus.path}: has entities of {', '.join(corpus.types)}, the model knows "
                f"{', '.join(labels.types) or 'none'}: no type in common; rename types, as in labels.map=PERSON=PER"
            )


def rename_types(corpora: Sequence[Corpus], label_map: LabelMap, model_types: Sequence[str] = ()) -> list[Corpus]:
    """The corpora with the types that a label map gives them; fingerprints are of what it left.

    Args:
        corpora: All that one recipe reads.
        label_map: Of the recipe.
        model_types: Types that the map may name although no corpus has them.

    Raises:
        LabelError: If the map names a type that occurs nowhere.
        CorpusError: If a corpus is left without any entity.
    """
    if not label_map:
        return list(corpora)
    places = " or ".join([*(str(corpus.path) for corpus in corpora), *(["the model"] if model_types else [])])
    label_map.check([*model_types, *(name for corpus in corpora for name in corpus.types)], places)
    renamed = []
    for corpus in corpora:
        tags = [label_map.apply(row) for row in corpus.tags]
        summary = summarize(map(Sentence, corpus.words, tags))
        known_as = name_split(summary, corpus.path)
        renamed.append(replace(corpus, tags=tags, fingerprint=summary.fingerprint, known_as=known_as))
        if not renamed[-1].types:
            raise CorpusError(f"{corpus.path}: has entities of {', '.join(corpus.types)}; the label map drops them all")
    return renamed


def repeated_sentences(train: Corpus, held_out: Iterable[Corpus]) -> list[str]:
    """A warning for each corpus with sentences that the training text has too, which make its scores too good."""
    known = set(train.words)
    counts = {corpus.path: sum(words in known for words in corpus.words) for corpus in held_out}
    return [f"{path}: {n:,} sentences also stand in {train.path}" for path, n in counts.items() if n]


def sentence_stream(path: Path, recipe: CorpusRecipe) -> Iterator[Sentence]:
    """The sentences of a corpus, read as the recipe says."""
    return read_corpus(
        path,
        format=recipe.format,
        columns=recipe.columns,
        scheme=recipe.scheme,
        encoding=recipe.encoding,
        split_text=choose(WORD_SPLITTERS, recipe.word_splitter, "corpus.word_splitter"),
        labels=recipe.labels,
    )


def text_stream(path: Path, recipe: CorpusRecipe) -> Iterator[Sentence]:
    """The sentences of a text whose labels, if it has some, are not looked at."""
    return read_corpus(
        path,
        format=recipe.format,
        columns=recipe.columns,
        scheme=IGNORE,
        encoding=recipe.encoding,
        split_text=choose(WORD_SPLITTERS, recipe.word_splitter, "corpus.word_splitter"),
    )


def begins_with_labels(path: Path, recipe: CorpusRecipe) -> bool:
    """Whether some of the first sentences of a text have labels, sound ones or not."""
    problems = list[CorpusProblem]()
    options = ReadingOptions(recipe.columns, recipe.scheme, recipe.encoding, report=problems.append)
    try:
        first = list(islice(read_located(path, recipe.format, options), N_PEEKED))
    except CorpusError:
        return False
    has_odd_tags = any(problem.code in ("XL012", "XL014") for problem in problems)
    return has_odd_tags or any(located.sentence.tags is not None for located in first)


def encode_all(encoder: WordEncoder, corpus: Corpus, say: Callable[[str], None]) -> list[Window]:
    """All windows of a corpus; tells how many words and sentences did not come through whole."""
    windows = list(encoder.encode(corpus.words))
    known_as = f" ({corpus.known_as})" if corpus.known_as else ""
    say(f"{corpus.path}: {describe(corpus.words, windows)}; fingerprint {corpus.fingerprint}{known_as}")
    return windows


def describe(sentences: Sequence[Sequence[str]], windows: Sequence[Window]) -> str:
    """Counts of sentences and words, and of what was lost or split, for a person."""
    n_words = sum(map(len, sentences))
    n_seen = sum(len(window.word_numbers) for window in windows)
    n_more = len(windows) - len({window.sentence for window in windows})
    parts = [f"{len(sentences):,} sentences, {n_words:,} words"]
    if n_words > n_seen:
        parts.append(f"{n_words - n_seen:,} words are nothing to the tokenizer and are left out")
    if n_more:
        parts.append(f"long sentences are seen in parts, {n_more:,} more windows than sentences")
    return "; ".join(parts)


def window_lengths(windows: Sequence[Window]) -> NDArray[np.int64]:
    """Pieces of each window."""
    return np.asarray([len(window.piece_ids) for window in windows], dtype=np.int64)
