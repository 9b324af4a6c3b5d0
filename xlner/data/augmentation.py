"""New sentences out of those of a text, for a teacher to label: words hidden or exchanged, parts of it, two in one.

No label is carried over, so that none can be wrong. Sentences come as a stream, and the same seed gives the same ones.

Source: Tang et al. 2019 (arXiv:1903.12136), section 3.3; classes of words in place of parts of speech.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from xlner.data.word_classes import WordClasses

HIDDEN_RATIO = 0.1  # of the words
EXCHANGED_RATIO = 0.15  # of the words
PART_RATIO = 0.25  # of the new sentences: an n-gram instead of the whole
LONGEST_PART = 5  # words
JOINED_RATIO = 0.1  # of the new sentences: with another sentence behind it
REMEMBERED = 64  # sentences before it, out of which the other one is drawn


def augmented(
    sentences: Iterable[Sequence[str]], n: int, classes: WordClasses, mask: str, seed: int
) -> Iterator[tuple[str, ...]]:
    """`n` new sentences for each one that has words, those of a sentence one after the other.

    Args:
        sentences: Of words.
        n: How many for each.
        classes: What words are exchanged with.
        mask: Stands for a hidden word.
        seed: Of every choice.
    """
    rng = np.random.default_rng(seed)
    before: list[Sequence[str]] = []
    for words in sentences:
        if not words:
            continue
        for _ in range(n):
            yield _new_sentence(words, before, classes, mask, rng)
        before = [*before[1 - REMEMBERED :], words]


def _new_sentence(
    words: Sequence[str],
    before: Sequence[Sequence[str]],
    classes: WordClasses,
    mask: str,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    draws = rng.random(len(words))
    changed = [
        mask if draw < HIDDEN_RATIO else classes.like(word, rng) if draw < HIDDEN_RATIO + EXCHANGED_RATIO else word
        for word, draw in zip(words, draws.tolist(), strict=True)
    ]
    form = rng.random()
    if form < PART_RATIO:
        length = int(rng.integers(1, LONGEST_PART + 1))
        start = int(rng.integers(0, max(1, len(changed) - length + 1)))
        return tuple(changed[start : start + length])
    if form < PART_RATIO + JOINED_RATIO and before:
        return (*changed, *before[int(rng.integers(len(before)))])
    return tuple(changed)
