"""What a corpus holds, counted in one pass: sentences, words, entities by type, and its fingerprints."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from xlner.data.fingerprints import CorpusFingerprint
from xlner.labels import spans_of
from xlner.text import Sentence


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
