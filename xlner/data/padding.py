"""Windows to padded arrays, without torch: a tagger needs no more to feed its backend.

Shapes: B windows, P pieces.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlner.data.alignment import Window


class PaddedWindows(NamedTuple):
    """`input_ids` (int64), `attention_mask` (False on padding), `word_mask` (first pieces of decided words): (B, P)."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    word_mask: NDArray[np.bool_]


def pad(windows: Sequence[Window], pad_id: int) -> PaddedWindows:
    """Pad windows to the longest of them."""
    lengths = np.asarray([len(window.piece_ids) for window in windows])
    width = int(lengths.max())
    attention = np.arange(width)[None, :] < lengths[:, None]
    input_ids = np.full((len(windows), width), pad_id, dtype=np.int64)
    input_ids[attention] = np.concatenate([window.piece_ids for window in windows])
    word_mask = np.zeros((len(windows), width), dtype=bool)
    for row, window in enumerate(windows):
        word_mask[row, window.word_positions] = True
    return PaddedWindows(input_ids, attention, word_mask)


def few_bits(n: int) -> int:
    """The highest number up to n with at most three significant bits, so that there are few shapes of batches.

    oneDNN, which multiplies matrices of bfloat16 on CPUs, keeps some hundred KiB for every shape that it ever saw.
    """
    shift = max(0, n.bit_length() - 3)
    return n >> shift << shift


def batches_within(batch_pieces: int, windows: Sequence[Window]) -> Iterator[list[int]]:
    """Places of windows of like length, longest first: memory that does not suffice is noticed at once.

    Args:
        batch_pieces: Pieces in a batch, padding included; a longer window is a batch of its own.
        windows: In any order.
    """
    lengths = [len(window.piece_ids) for window in windows]
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    start = 0
    while start < len(order):
        end = start + max(1, few_bits(batch_pieces // lengths[order[start]]))
        yield order[start:end]
        start = end
