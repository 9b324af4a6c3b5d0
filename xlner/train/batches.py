"""Which windows make a micro-batch: every window once an epoch, in batches of like length and random order.

Everything is drawn from (seed, epoch, ...), so that any batch of any epoch can be made again by itself: resuming needs
no saved sampler state.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Windows sorted by length together, in batches: enough to pad little, few enough that neighbours change.
BATCHES_PER_BUCKET = 32


class Plan(NamedTuple):
    """One micro-batch: the numbers of its windows, and the seed of what else is drawn for it.

    Its two halves may be taken for the first and the second sentences of pairs; of an odd number of windows the first
    half has one more.
    """

    windows: NDArray[np.int64]
    seed: tuple[int, ...]

    @property
    def half(self) -> int:
        """How many windows the first half has."""
        return (len(self.windows) + 1) // 2


def plan_epoch(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[Plan]:
    """Every window once, in micro-batches of like length, at a random place in each.

    Args:
        lengths: Pieces of each window.
        batch_size: Windows per micro-batch.
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
    return [
        Plan(rng.permutation(batches[number]), (seed, epoch, int(number))) for number in rng.permutation(len(batches))
    ]


def parts_within(plan: Plan, lengths: NDArray[np.int64], batch_pieces: int) -> list[Plan]:
    """The same windows in smaller micro-batches: halved, by length, until each part fits.

    Both halves of a plan are cut alike, so that each part has pairs of its own, and a seed of its own. Parts of halved
    size have few shapes, of each of which oneDNN keeps something.

    Args:
        plan: A micro-batch.
        lengths: Pieces of each window.
        batch_pieces: Pieces that a part may have, padding included; a pair of windows is a part in any case.

    Returns:
        The plan itself where it fits, else its parts, the shortest windows first.
    """
    parts = _cut(plan, lengths, batch_pieces)
    return [plan] if len(parts) == 1 else [part._replace(seed=(*plan.seed, i)) for i, part in enumerate(parts, 1)]


def _cut(plan: Plan, lengths: NDArray[np.int64], batch_pieces: int) -> list[Plan]:
    windows = plan.windows
    if plan.half < 2 or lengths[windows].max() * len(windows) <= batch_pieces:
        return [plan]
    first, second = (
        half[np.argsort(lengths[half], kind="stable")] for half in (windows[: plan.half], windows[plan.half :])
    )
    middle = (len(first) + 1) // 2
    shorter = np.concatenate([first[:middle], second[:middle]])
    longer = np.concatenate([first[middle:], second[middle:]])
    return [
        *_cut(Plan(shorter, plan.seed), lengths, batch_pieces),
        *_cut(Plan(longer, plan.seed), lengths, batch_pieces),
    ]
