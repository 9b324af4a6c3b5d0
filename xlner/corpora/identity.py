"""Corpora told apart by their content: fingerprints, what a corpus holds, and published test sets recognised."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from xlner.tags import spans_of
from xlner.words import Sentence

# Corpora told apart by their content: the same words and tags have the same fingerprint in any file format.


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


# What a corpus holds, counted in one pass: sentences, words, entities by type, and its fingerprints.


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
    for sentence in sentences:
        tally.add(sentence)
    return tally.summary()


# Published corpora recognised by their content, so that nobody compares two different test sets unawares.
#
# `known_splits.tsv` beside this module holds fingerprints that were measured on the published files. A corpus that
# a script of `data_scripts` wrote has its names in `corpus.json`. Of CoNLL-2002 and CoNLL-2003, only the counts in
# the papers are known.


CARD_NAME = "corpus.json"


class KnownSplit(NamedTuple):
    """A split with its fingerprints, with and without tags."""

    name: str
    fingerprint: str
    words_fingerprint: str


def name_split(summary: CorpusSummary, path: str | Path | None = None) -> str:
    """The name of a known split, such as `WikiNEuRal de, test`; empty if nothing is known.

    Args:
        summary: What `summarize` found in the whole corpus.
        path: Where it was read; a `corpus.json` in the same folder is believed if the fingerprint there is
            that of the content.

    Returns:
        The name itself for the very words and tags; `the words of NAME, with other labels` (or `without
        labels`) if only the words are the same; `NAME, by its counts` if words and entities are as many as
        published.
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


CARD_FIELDS = ("name", "fingerprint", "words_fingerprint")

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
