"""What a corpus is made of: sentences, words, entities by type, lengths, scripts."""

from collections import Counter
from itertools import accumulate, pairwise
from typing import NamedTuple

from xlner.data.check_overlap import hash_of
from xlner.data.check_words import script
from xlner.labels import OUTSIDE, spans_of
from xlner.text import Sentence


class Lengths(NamedTuple):
    """How long sentences are."""

    mean: float
    median: int
    p95: int
    longest: int


class CorpusProfile:
    """Grows with each sentence; keeps counts and hashes, no text but the characters that there are."""

    def __init__(self) -> None:
        self.n_unlabelled = 0
        self.entities = Counter[str]()
        self.n_broken_starts = 0  # entities that begin with an I-
        self.n_free_starts = 0  # entities that begin with a B- although no entity of their type ends before them
        self.n_numbers = 0  # words of digits alone
        self._forms: dict[str, set[int]] = {}
        self._lengths = Counter[int]()
        self._chars = Counter[str]()

    def add(self, sentence: Sentence, n_broken_starts: int) -> list[int]:
        """Count a sentence, in which so many entities began with an `I-`.

        Returns:
            Where entities begin although none of their type ends before them, with an `I-` or a `B-`.
        """
        words, tags = sentence
        self._lengths[len(words)] += 1
        for word in words:
            self._chars.update(word)
        self.n_numbers += sum(map(str.isdigit, words))
        if tags is None:
            self.n_unlabelled += 1
            return []
        if tags.count(OUTSIDE) == len(tags):
            return []
        for span in spans_of(tags):
            self.entities[span.label] += 1
            self._forms.setdefault(span.label, set()).add(hash_of(words[span.start : span.end]))
        pairs = enumerate(pairwise((OUTSIDE, *tags)))
        starts = [place for place, (before, tag) in pairs if tag[0] == "B" and before[1:] != tag[1:]]
        self.n_broken_starts += n_broken_starts
        self.n_free_starts += len(starts) - n_broken_starts
        return starts

    @property
    def n_sentences(self) -> int:
        """All sentences that could be read."""
        return self._lengths.total()

    @property
    def n_words(self) -> int:
        """All words of them."""
        return sum(length * number for length, number in self._lengths.items())

    @property
    def n_forms(self) -> dict[str, int]:
        """How many different entities each type has."""
        return {name: len(forms) for name, forms in self._forms.items()}

    @property
    def is_iob1(self) -> bool:
        """Whether most entities begin with a B- only where one of the same type ends, as all should in IOB1."""
        return self.n_broken_starts > self.n_free_starts

    @property
    def lengths(self) -> Lengths:
        """In words."""
        return lengths_of(self._lengths)

    @property
    def scripts(self) -> dict[str, float]:
        """The share of each script in all letters, the largest first."""
        letters = Counter[str]()
        for char, number in self._chars.items():
            if name := script(char):
                letters[name] += number
        return {name: number / letters.total() for name, number in letters.most_common()}


def lengths_of(counts: Counter[int]) -> Lengths:
    """Mean, median, 95th percentile and maximum of lengths, given how often each comes."""
    if not counts:
        return Lengths(0.0, 0, 0, 0)
    total = counts.total()
    ordered = sorted(counts)
    up_to = list(accumulate(counts[length] for length in ordered))

    def percentile(share: float) -> int:
        return next(length for length, n_within in zip(ordered, up_to, strict=True) if n_within >= share * total)

    mean = sum(length * number for length, number in counts.items()) / total
    return Lengths(mean, percentile(0.5), percentile(0.95), ordered[-1])
