"""Which tag may follow which, as NumPy has it: shared by the CRF of training and that of run time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xlner.labels import split_tag

# Log weight of what must not be: far below any score, and yet a number.
IMPOSSIBLE = -1e4


def valid_steps(tags: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tag may follow which, (C, C) from row to column, and which may come first, (C,).

    `I-X` follows `B-X` or `I-X`; where there is no `B-X`, it may follow anything.
    """
    split = [split_tag(tag) for tag in tags]
    begun = {name for prefix, name in split if prefix == "B"}
    needs = [name if prefix == "I" and name in begun else "" for prefix, name in split]
    valid = np.asarray([[not need or name == need for need in needs] for _, name in split])
    return valid, np.asarray([not need for need in needs])


def penalties(tags: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """0 for what may be and `IMPOSSIBLE` for what may not: of pairs (C, C), and of first tags (C,)."""
    pairs, first = (np.where(allowed, 0.0, IMPOSSIBLE).astype(np.float32) for allowed in valid_steps(tags))
    return pairs, first
