"""The features of the linear student: what a word and its neighbours look like, hashed into rows of one table.

A word's own features depend on it alone and make its row, K numbers of 31 bits; 0 stands for a feature that it does not
have, and for what lies beyond the sentence. Features of neighbours, and of several words at once, are hashed from
these rows, by the same code in training and at run time. Shapes: B windows, W words, K numbers a row, F features.

Source: Weinberger et al. 2009 (arXiv:0902.2206), feature hashing; the features are those customary for linear taggers
(Ratinov and Roth 2009, W09-1119).
"""

import re
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from xlner.students.rows import RowEncoder

# Places in a row.
WORD, SHAPE, LOWER, PREFIX_3, SUFFIX_3 = range(5)
N_FEATURES = 12
# Each template: (offset from the word, place in the row) of the parts that it joins.
_OWN = [((0, place),) for place in range(N_FEATURES)]
_NEAR = [((offset, place),) for offset in (-1, 1) for place in (WORD, SHAPE, LOWER, PREFIX_3, SUFFIX_3)]
_FAR = [((offset, place),) for offset in (-2, 2) for place in (WORD, SHAPE)]
_JOINED = [
    ((-1, LOWER), (0, LOWER)),
    ((0, LOWER), (1, LOWER)),
    ((-1, SHAPE), (0, SHAPE)),
    ((0, SHAPE), (1, SHAPE)),
    ((-1, SHAPE), (0, SHAPE), (1, SHAPE)),
    ((-1, LOWER), (0, SHAPE)),
    ((0, SHAPE), (1, LOWER)),
    ((-2, LOWER), (-1, LOWER), (0, SHAPE)),
    ((0, SHAPE), (1, LOWER), (2, LOWER)),
    ((-1, LOWER), (0, SHAPE), (1, LOWER)),
    ((-1, SUFFIX_3), (0, SUFFIX_3)),
    ((0, PREFIX_3), (1, SHAPE)),
    ((-1, SHAPE), (0, SUFFIX_3)),
    ((-2, SHAPE), (-1, SHAPE), (0, SHAPE), (1, SHAPE), (2, SHAPE)),
]
TEMPLATES: list[tuple[tuple[int, int], ...]] = [*_OWN, *_NEAR, *_FAR, *_JOINED]
REACH = 2  # words to each side
# Odd numbers without a pattern, one for each template and one for each further part: multiplying by them mixes bits.
_GOLDEN = 0x9E3779B97F4A7C15
_MIXERS = np.asarray([(2 * n + 1) * _GOLDEN % 2**64 | 1 for n in range(1, len(TEMPLATES) + 1)], dtype=np.uint64)
_JOINER = np.uint64(0xC2B2AE3D27D4EB4F)


def hashed_encoder(max_words: int) -> RowEncoder:
    """Words to rows of their features."""
    return RowEncoder(word_features, N_FEATURES, max_words, f"hashed-1-{max_words}")


def word_features(word: str) -> list[int]:
    """The features of a word, each a number of 31 bits, 0 for what a short word does not have."""
    lower = word.lower()
    shape = _shape(word)
    texts = [
        word,
        re.sub(r"(.)\1+", r"\1", shape),
        re.sub(r"\d", "0", lower),
        lower[:3] if len(word) > 3 else "",
        lower[-3:] if len(word) > 3 else "",
        shape[:8],
        lower[:1],
        lower[:2] if len(word) > 2 else "",
        lower[:4] if len(word) > 4 else "",
        lower[-1:],
        lower[-2:] if len(word) > 2 else "",
        lower[-4:] if len(word) > 4 else "",
    ]
    return [
        (crc32(f"{place}={text}".encode("utf-8", "surrogatepass")) & 0x7FFFFFFF) or 1 if text else 0
        for place, text in enumerate(texts)
    ]


def feature_rows(rows: NDArray[np.integer], buckets: int) -> NDArray[np.int64]:
    """Which rows of the table each word adds up, (B, W, F) within [0, buckets).

    Args:
        rows: Of words, (B, W, K), zeros on padding.
        buckets: Rows of the table.
    """
    n_windows, n_words, _ = rows.shape
    around = np.zeros((n_windows, n_words + 2 * REACH, N_FEATURES), dtype=np.uint64)
    around[:, REACH : REACH + n_words] = rows
    found = np.empty((n_windows, n_words, len(TEMPLATES)), dtype=np.uint64)
    for number, template in enumerate(TEMPLATES):
        (offset, place), *others = template
        value = around[:, REACH + offset : REACH + offset + n_words, place]
        for offset, place in others:
            part = around[:, REACH + offset : REACH + offset + n_words, place]
            value = (value ^ (value >> np.uint64(29))) * _JOINER + part
        found[:, :, number] = value
    mixed = (found + np.uint64(1)) * _MIXERS
    mixed = (mixed ^ (mixed >> np.uint64(31))) * _JOINER
    # The upper half of the bits, taken as a share of all rows.
    return (((mixed >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)).astype(np.int64)


def _shape(word: str) -> str:
    return "".join(
        "X" if char.isupper() else "0" if char.isdigit() else "x" if char.isalpha() else char for char in word
    )
