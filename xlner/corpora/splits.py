"""Whole corpora for training and evaluation: read, counted, named, and told apart by their content.

The same words and tags have the same fingerprint in any file format. So published corpora are recognised, and nobody
compares two different test sets unawares: `known_splits.tsv` beside this module holds fingerprints that were measured
on the published files. A corpus that a script of `data_scripts` wrote has its names in `corpus.json`. Of CoNLL-2002 and
CoNLL-2003, only the counts in the papers are known.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from xlner.config.load import choose
from xlner.config.schema import CorpusRecipe
from xlner.corpora.columns import TEXT_NAMES, WORD_NAMES, find_name
from xlner.corpora.lines import CorpusProblem
from xlner.corpora.source import read_located
from xlner.corpora.spans import IGNORE, ReadingOptions
from xlner.encode import Window, WordEncoder
from xlner.errors import CorpusError, LabelError
from xlner.files import write_text
from xlner.predict import within_pieces
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

CARD_NAME = "corpus.json"
CARD_FIELDS = ("name", "fingerprint", "words_fingerprint")


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

    Raises:
        CorpusError: If there is no column of text or words, a sentence is neither, or another format is asked for.
    """
    if isinstance(text, str | os.PathLike):
        return os.fspath(text)
    if format not in ("auto", "jsonl"):
        raise CorpusError(f"text= is stored as JSON lines, and corpus.format is {format}; leave the format out")
    sentences: Any = text
    names = list(text) if isinstance(text, Mapping) else getattr(text, "column_names", getattr(text, "columns", None))
    if names is not None:  # of a `datasets.Dataset`, a table of pandas, or a dict of columns
        column = find_name(list(names), WORD_NAMES) or find_name(list(names), TEXT_NAMES)
        if column is None:
            raise CorpusError(f"text= has the columns {', '.join(map(str, names))}; expected one named text or words")
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

    The map may name `model_types` although no corpus has them.

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
    known, counts = set(train.words), Counter[Path]()
    for corpus in held_out:
        counts[corpus.path] += sum(words in known for words in corpus.words)
    return [f"{path}: {n:,} sentences also stand in {train.path}" for path, n in counts.items() if n]


def sentence_stream(path: Path, recipe: CorpusRecipe) -> Iterator[Sentence]:
    """The sentences of a corpus, read as the recipe says."""
    return _stream(path, recipe, scheme=recipe.scheme, labels=recipe.labels)


def text_stream(path: Path, recipe: CorpusRecipe) -> Iterator[Sentence]:
    """The sentences of a text whose labels, if it has some, are not looked at."""
    return _stream(path, recipe, scheme=IGNORE, labels="")


def _stream(path: Path, recipe: CorpusRecipe, *, scheme: str, labels: str) -> Iterator[Sentence]:
    split_text = choose(WORD_SPLITTERS, recipe.word_splitter, "corpus.word_splitter")
    options = ReadingOptions(recipe.columns, scheme, recipe.encoding, split_text, labels=labels)
    return (sentence for sentence, _ in read_located(path, recipe.format, options))


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
    if n_words > n_seen:
        seen = [np.zeros((len(words), 1)) for words in sentences]
        for window in windows:
            seen[window.sentence][window.word_numbers] = 1
        n_seen += sum(1 for rows, words in zip(seen, sentences, strict=True) for _ in within_pieces(rows, words))
    n_more = len(windows) - len({window.sentence for window in windows})
    parts = [f"{len(sentences):,} sentences, {n_words:,} words"]
    if n_words > n_seen:
        parts.append(f"{n_words - n_seen:,} words are nothing to the tokenizer and are left out")
    if n_more:
        parts.append(f"long sentences are seen in parts, {n_more:,} more windows than sentences")
    return "; ".join(parts)


# What a corpus holds, counted in one pass.


class CorpusFingerprint:
    """Grows with each sentence: hashes of words and tags, the same for any file format and white space."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._words_hash = hashlib.sha256()

    def add(self, sentence: Sentence) -> None:
        """Take in the next sentence; without tags, only its words count."""
        # Control characters of ASCII that exist to separate: neither words nor tags hold them.
        words = "\x1f".join(sentence.words)
        tags = "" if sentence.tags is None else "\x1e" + "\x1f".join(sentence.tags)
        self._hash.update(f"{words}{tags}\x1d".encode("utf-8", "surrogatepass"))
        self._words_hash.update(f"{words}\x1d".encode("utf-8", "surrogatepass"))

    def hexdigest(self) -> str:
        """12 hexadecimal digits for what was added so far."""
        return self._hash.hexdigest()[:12]

    def words_hexdigest(self) -> str:
        """The same for the words alone: what `hexdigest` would be if no sentence had tags."""
        return self._words_hash.hexdigest()[:12]


def fingerprint(sentences: Iterable[Sentence]) -> str:
    """The `CorpusFingerprint` of all sentences."""
    result = CorpusFingerprint()
    for sentence in sentences:
        result.add(sentence)
    return result.hexdigest()


class CorpusSummary(NamedTuple):
    """Counts and fingerprints of a corpus; `words_fingerprint` is what the fingerprint would be without tags."""

    sentences: int
    words: int
    entities: Mapping[str, int]  # by type, in alphabetical order; empty without labels
    fingerprint: str
    words_fingerprint: str


class CorpusTally:
    """Counts the sentences that pass by, so that a stream needs to be read only once."""

    def __init__(self) -> None:
        self._fingerprint = CorpusFingerprint()
        self._entities: Counter[str] = Counter()
        self._n_sentences = self._n_words = 0

    def add(self, sentence: Sentence) -> None:
        """Count one more sentence."""
        self._fingerprint.add(sentence)
        self._n_sentences += 1
        self._n_words += len(sentence.words)
        self._entities.update(span.label for span in spans_of(sentence.tags or ()))

    def over(self, sentences: Iterable[Sentence]) -> Iterator[Sentence]:
        """The same sentences, each counted as it is taken."""
        for sentence in sentences:
            self.add(sentence)
            yield sentence

    def summary(self) -> CorpusSummary:
        """What was counted so far."""
        return CorpusSummary(
            self._n_sentences,
            self._n_words,
            dict(sorted(self._entities.items())),
            self._fingerprint.hexdigest(),
            self._fingerprint.words_hexdigest(),
        )


def summarize(sentences: Iterable[Sentence]) -> CorpusSummary:
    """The summary of a whole corpus; reads it once and holds none of it."""
    tally = CorpusTally()
    for _ in tally.over(sentences):
        pass
    return tally.summary()


class KnownSplit(NamedTuple):
    """A split with its fingerprints, with and without tags."""

    name: str
    fingerprint: str
    words_fingerprint: str


def name_split(summary: CorpusSummary, path: str | Path | None = None) -> str:
    """The name of a known split, such as `WikiNEuRal de, test`; empty if nothing is known.

    It is `the words of NAME, with other labels` (or `without labels`) if only the words are the same, and `NAME, by its
    counts` if words and entities are as many as published. A `corpus.json` beside `path` is believed if the fingerprint
    there is that of the content.
    """
    splits = list(known_splits())
    if path is not None:
        splits += card_splits(Path(path).parent)
    for split in splits:
        if split.fingerprint == summary.fingerprint:
            return split.name
    for split in splits:
        if split.words_fingerprint == summary.words_fingerprint:
            bare = summary.fingerprint == summary.words_fingerprint
            return f"the words of {split.name}, {'without' if bare else 'with other'} labels"
    counts = (summary.words, *(summary.entities.get(label, 0) for label in CONLL_TYPES))
    if set(summary.entities) == set(CONLL_TYPES) and counts in PUBLISHED_COUNTS:
        return f"{PUBLISHED_COUNTS[counts]}, by its counts"
    return ""


def name_text(words_fingerprint: str, path: str | Path) -> str:
    """As `name_split`, of a corpus whose tags were not looked at."""
    return name_split(CorpusSummary(0, 0, {}, words_fingerprint, words_fingerprint), path)


@cache
def known_splits() -> tuple[KnownSplit, ...]:
    """The splits that come with xlner."""
    lines = files("xlner.corpora").joinpath("known_splits.tsv").read_text(encoding="utf-8").split("\n")
    return tuple(KnownSplit(*line.split("\t")) for line in lines if line and not line.startswith("#"))


def card_splits(folder: Path) -> list[KnownSplit]:
    """The splits that a `corpus.json` in a folder names; none if there is no such card, or it is no card of ours."""
    try:
        card: Any = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    splits = card.get("splits") if isinstance(card, Mapping) else None
    found: Any = splits.values() if isinstance(splits, Mapping) else ()
    return [
        KnownSplit(*(str(split[field]) for field in CARD_FIELDS))
        for split in found
        if isinstance(split, Mapping) and split.keys() >= set(CARD_FIELDS)
    ]


# Words, then entities by type. The sentences are left out: papers count marks of documents among them.
# Source: Tjong Kim Sang 2002, section 2; Tjong Kim Sang and De Meulder 2003, tables 1 and 2 (words without
# -DOCSTART-). The counts are those of conlleval on the files in circulation.
CONLL_TYPES = ("LOC", "MISC", "ORG", "PER")
PUBLISHED_COUNTS: dict[tuple[int, ...], str] = {
    (264715, 4913, 2173, 7390, 4321): "CoNLL-2002 es, train",
    (52923, 984, 445, 1700, 1222): "CoNLL-2002 es, testa",
    (51533, 1084, 339, 1400, 735): "CoNLL-2002 es, testb",
    (202644, 3208, 3338, 2082, 4716): "CoNLL-2002 nl, train",
    (37687, 479, 748, 686, 703): "CoNLL-2002 nl, testa",
    (68875, 774, 1187, 882, 1098): "CoNLL-2002 nl, testb",
    (203621, 7140, 3438, 6321, 6600): "CoNLL-2003 en, train",
    (51362, 1837, 922, 1341, 1842): "CoNLL-2003 en, testa",
    (46435, 1668, 702, 1661, 1617): "CoNLL-2003 en, testb",
    (206931, 4363, 2288, 2427, 2773): "CoNLL-2003 de, original labels, train",
    (51444, 1181, 1010, 1241, 1401): "CoNLL-2003 de, original labels, testa",
    (51943, 1035, 670, 773, 1195): "CoNLL-2003 de, original labels, testb",
}
