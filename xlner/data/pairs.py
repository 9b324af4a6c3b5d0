"""Which sentences meet as pairs, and which words of theirs are compared.

Everything is drawn from a generator that is handed in, or from (seed, epoch, ...), so that any batch of any epoch
can be made again by itself: resuming needs no saved sampler state.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Windows sorted by length together, in batches: enough to pad little, few enough that neighbours change.
BATCHES_PER_BUCKET = 32


class PairPlan(NamedTuple):
    """One micro-batch: the windows of the first and of the second tower, and the seed of its word pairs."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    seed: tuple[int, ...]


def plan_epoch(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[PairPlan]:
    """Every window once, in micro-batches of like length and random order; each is cut into two towers at random.

    The i-th window of the first tower and the i-th of the second are a sentence pair, a new one each epoch. With an
    odd number of windows the first tower has one more.

    Args:
        lengths: Pieces of each window.
        batch_size: Windows per micro-batch, both towers together.
        seed: Of the run.
        epoch: Counted from 0.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    bucket = batch_size * BATCHES_PER_BUCKET
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), bucket):
        alike = order[start : start + bucket]
        alike = alike[np.argsort(lengths[alike], kind="stable")]
        batches += [alike[first : first + batch_size] for first in range(0, len(alike), batch_size)]
    plans = []
    for number in rng.permutation(len(batches)):
        members = rng.permutation(batches[number])
        half = (len(members) + 1) // 2
        plans.append(PairPlan(members[:half], members[half:], (seed, epoch, int(number))))
    return plans


def parts_within(plan: PairPlan, lengths: NDArray[np.int64], batch_pieces: int) -> list[PairPlan]:
    """The same windows in smaller micro-batches: halved, by length, until each part fits.

    Word pairs never leave a part, so each part draws its own, from a seed of its own; as many of them in all as the
    whole would. Parts of halved size have few shapes, of each of which oneDNN keeps something.

    Args:
        plan: A micro-batch.
        lengths: Pieces of each window.
        batch_pieces: Pieces that a part may have, padding included; a single sentence pair is a part in any case.

    Returns:
        The plan itself where it fits, else its parts, the shortest windows first.
    """
    parts = _halved(plan, lengths, batch_pieces)
    return [plan] if len(parts) == 1 else [part._replace(seed=(*plan.seed, i)) for i, part in enumerate(parts, 1)]


def _halved(plan: PairPlan, lengths: NDArray[np.int64], batch_pieces: int) -> list[PairPlan]:
    longest = max(lengths[tower].max(initial=0) for tower in (plan.first, plan.second))
    if len(plan.first) < 2 or longest * (len(plan.first) + len(plan.second)) <= batch_pieces:
        return [plan]
    first, second = (tower[np.argsort(lengths[tower], kind="stable")] for tower in (plan.first, plan.second))
    half = (len(first) + 1) // 2
    return [
        *_halved(PairPlan(first[:half], second[:half], plan.seed), lengths, batch_pieces),
        *_halved(PairPlan(first[half:], second[half:], plan.seed), lengths, batch_pieces),
    ]


def sample_word_pairs(
    first_tags: Sequence[NDArray[np.int64]],
    second_tags: Sequence[NDArray[np.int64]],
    per_sentence: int,
    balance: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw word pairs, half of equal and half of different tag, without drowning entity words in `O`.

    A sentence of the first tower meets every sentence of the second tower of its micro-batch: they are encoded
    anyway, and most single sentences hold too few tags to show each against each. A tag that makes up the share f
    of the words is drawn in proportion to f to the power of `balance`.

    Args:
        first_tags: Tag ids of the words of each sentence of the first tower.
        second_tags: The same for the second tower.
        per_sentence: Word pairs per sentence of the first tower.
        balance: 0 draws every tag that occurs equally often, 1 as often as it occurs.
        rng: Source of all draws.

    Returns:
        Places of the first and of the second words, counted through the words of each tower. Empty where no
        balanced pairs exist: no words, or but one tag.
    """
    first = np.concatenate(first_tags) if len(first_tags) else np.zeros(0, dtype=np.int64)
    second = np.concatenate(second_tags) if len(second_tags) else np.zeros(0, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.int64)
    if not len(first) or not len(second):
        return nothing, nothing
    n_tags = int(max(first.max(), second.max())) + 1
    first_counts, second_counts = np.bincount(first, minlength=n_tags), np.bincount(second, minlength=n_tags)
    # Mass of each combination of tags (a, b): the product of what either tag is drawn with in its tower.
    mass = _tempered(first_counts, balance)[:, None] * _tempered(second_counts, balance)[None, :]
    equal = np.sqrt(np.diag(mass))  # the square root, or O would win twice over
    different = mass - np.diag(np.diag(mass))
    if not equal.sum() or not different.sum():
        return nothing, nothing
    n_half = max(1, per_sentence * len(first_tags) // 2)
    same_tag = rng.choice(n_tags, size=n_half, p=equal / equal.sum())
    other = rng.choice(n_tags * n_tags, size=n_half, p=(different / different.sum()).ravel())
    wanted_first = np.concatenate([same_tag, other // n_tags])
    wanted_second = np.concatenate([same_tag, other % n_tags])
    return _draw(first, first_counts, wanted_first, rng), _draw(second, second_counts, wanted_second, rng)


def _tempered(counts: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    return np.where(counts > 0, np.maximum(counts / counts.sum(), 1e-12) ** balance, 0.0)


def _draw(
    tags: NDArray[np.int64], counts: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """A random word of each wanted tag."""
    by_tag = np.argsort(tags, kind="stable")
    starts = np.cumsum(counts) - counts
    drawn: NDArray[np.int64] = by_tag[starts[wanted] + (rng.random(len(wanted)) * counts[wanted]).astype(np.int64)]
    return drawn
