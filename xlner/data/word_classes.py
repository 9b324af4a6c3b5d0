"""Classes of words that stand in like places, found by what stands beside them; no tagger, no labels.

A word is described by how often each of the most frequent words stands right before and right behind it; k-means puts
like descriptions together. Words of one class also agree in whether they begin with a capital, are numbers, or have
no letter, so that a name is replaced by a name. Source: distributional classes as in Schütze 1995 (E95-1020).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

N_NEIGHBOURS = 300  # most frequent words that describe others
N_DIRECTIONS = 50  # of the descriptions, after reducing them
ROUNDS = 15


@dataclass(frozen=True)
class WordClasses:
    """Words by class; the words of a class are drawn as often as they occur."""

    class_of: dict[str, int]
    members: tuple[tuple[str, ...], ...]
    shares: tuple[NDArray[np.float64], ...]

    def like(self, word: str, rng: np.random.Generator) -> str:
        """A word of the same class, at times the same one; the word itself where it has no class."""
        number = self.class_of.get(word)
        return word if number is None else str(rng.choice(self.members[number], p=self.shares[number]))


def find_classes(
    sentences: Iterable[Sequence[str]], *, n_classes: int, min_frequency: int, rng: np.random.Generator
) -> WordClasses:
    """Find the classes of a text, which is gone through once; rarer words have none.

    Args:
        sentences: Of words.
        n_classes: By description; the outline of the words divides them further.
        min_frequency: A word with a class occurs at least so often.
        rng: Of the first centres.
    """
    counts: Counter[str] = Counter()
    beside: Counter[tuple[str, str]] = Counter()
    for words in sentences:
        counts.update(words)
        padded = ["", *words, ""]
        beside.update(pairwise(padded))
    described = sorted(
        (word for word, count in counts.items() if count >= min_frequency), key=lambda w: (-counts[w], w)
    )
    if not described:
        return WordClasses({}, (), ())
    rows = {word: number for number, word in enumerate(described)}
    columns = {word: number for number, word in enumerate(["", *described[:N_NEIGHBOURS]])}
    table = np.zeros((len(rows), 2 * len(columns)), dtype=np.float64)
    for (first, second), count in beside.items():
        if second in rows and first in columns:
            table[rows[second], columns[first]] += count
        if first in rows and second in columns:
            table[rows[first], len(columns) + columns[second]] += count
    found = _k_means(_directions(np.log1p(table)), n_classes, rng)
    by_class: dict[tuple[int, str], list[str]] = {}
    for word, number in zip(described, found.tolist(), strict=True):
        by_class.setdefault((number, _outline(word)), []).append(word)
    groups = list(by_class.values())
    shares = [np.asarray([counts[word] for word in group], dtype=np.float64) for group in groups]
    return WordClasses(
        {word: number for number, group in enumerate(groups) for word in group},
        tuple(map(tuple, groups)),
        tuple([share / share.sum() for share in shares]),
    )


def _directions(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors along the directions in which the rows differ most."""
    centred = table - table.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    reduced = centred @ directions[:, ::-1][:, :N_DIRECTIONS]
    lengths = np.linalg.norm(reduced, axis=1, keepdims=True)
    return np.asarray(reduced / np.maximum(lengths, 1e-12))


def _k_means(points: NDArray[np.float64], n_classes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    centres = points[rng.choice(len(points), min(n_classes, len(points)), replace=False)]
    nearest = np.zeros(len(points), dtype=np.int64)
    for _ in range(ROUNDS):
        nearest = (points @ centres.T).argmax(axis=1)
        for number in range(len(centres)):
            if (members := points[nearest == number]).size:
                mean = members.mean(axis=0)
                centres[number] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return nearest


def _outline(word: str) -> str:
    return "0" if any(map(str.isdigit, word)) else "X" if word[:1].isupper() else "x" if word[:1].isalpha() else word
