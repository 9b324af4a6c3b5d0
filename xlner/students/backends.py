"""Compact students run without torch: the linear one by NumPy, the others by ONNX Runtime.

Shapes: B windows, W words, K numbers a row, P = W K, C tags.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xlner.backends.onnx_backend import Session
from xlner.students.hashed import feature_rows
from xlner.students.settings import StudentSettings
from xlner.students.steps import penalties

Batch = tuple[NDArray[np.int64], NDArray[np.bool_]]
Scores = NDArray[np.float32]


class Marginals:
    """What a CRF makes of the scores of tags: the log-probability of each tag of each word, by NumPy."""

    def __init__(self, pairs: NDArray[np.floating], first: NDArray[np.floating], last: NDArray[np.floating]) -> None:
        """Keep the scores of pairs (C, C), of first tags (C,) and of last ones (C,), penalties included."""
        self._pairs, self._first, self._last = (np.exp(part.astype(np.float64)) for part in (pairs, first, last))

    def __call__(self, emissions: Scores, mask: NDArray[np.bool_]) -> Scores:
        """Emissions (B, W, C) and a mask of words (B, W) to log marginals (B, W, C)."""
        # Every word's weights are divided by the highest, and every sum by its total: neither changes a marginal.
        weights = np.exp((emissions - emissions.max(axis=-1, keepdims=True)).astype(np.float64)).clip(1e-100)
        n_words = weights.shape[1]
        forward, backward = np.empty_like(weights), np.empty_like(weights)
        state = _normalised(self._first * weights[:, 0])
        forward[:, 0] = state
        for word in range(1, n_words):
            state = np.where(mask[:, word, None], _normalised(state @ self._pairs * weights[:, word]), state)
            forward[:, word] = state
        state = np.broadcast_to(self._last, state.shape)
        backward[:, -1] = state
        for word in range(n_words - 1, 0, -1):
            following = _normalised((weights[:, word] * state) @ self._pairs.T)
            state = np.where(mask[:, word, None], following, state)
            backward[:, word - 1] = state
        marginals = _normalised(forward * backward)
        found: Scores = np.log(np.maximum(marginals, 1e-30)).astype(np.float32)
        return found


class LinearBackend:
    """The table of a linear student; threads may share it."""

    def __init__(self, table: NDArray[np.float32], width: int, marginals: Marginals | None) -> None:
        """Keep the scores of features (buckets, C), K, and the CRF where there is one."""
        self._table, self._width, self._marginals = table, width, marginals

    def logits(self, batches: Iterable[Batch]) -> Iterator[Scores]:
        """As `Backend.logits`."""
        for input_ids, attention_mask in batches:
            rows = input_ids.reshape(len(input_ids), -1, self._width)
            places = feature_rows(rows, len(self._table))
            scores = self._table[places[:, :, 0]]
            for feature in range(1, places.shape[2]):
                scores += self._table[places[:, :, feature]]
            yield _at_rows(scores, attention_mask, self._width, self._marginals)


class CompactOnnxBackend:
    """A graph of `rows` (B, W, K) and `lengths` (B,) to `emissions` (B, W, C); threads may share it."""

    def __init__(self, path: Path, width: int, marginals: Marginals | None) -> None:
        """Load a graph.

        Raises:
            ModelError: If ONNX Runtime is not installed, or takes the file for no such graph.
        """
        self._session = Session(path)
        self._session.check(("rows", "lengths"), "emissions")
        self._width, self._marginals = width, marginals

    def logits(self, batches: Iterable[Batch]) -> Iterator[Scores]:
        """As `Backend.logits`."""
        for input_ids, attention_mask in batches:
            rows = input_ids.reshape(len(input_ids), -1, self._width).astype(np.int32)
            lengths = attention_mask[:, :: self._width].sum(axis=1).astype(np.int32)
            emissions = self._session.run(["emissions"], {"rows": rows, "lengths": lengths})[0]
            yield _at_rows(emissions, attention_mask, self._width, self._marginals)


def stored_marginals(weights: Mapping[str, NDArray[np.floating]], settings: StudentSettings) -> Marginals | None:
    """The CRF among stored weights, with what must not be added; None for a student without."""
    if settings.decoder != "crf":
        return None
    of_pairs, of_first = penalties(settings.tags)
    return Marginals(weights["crf.transitions"] + of_pairs, weights["crf.first"] + of_first, weights["crf.last"])


def _normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = values / values.sum(axis=-1, keepdims=True)
    return total


def _at_rows(scores: Scores, attention_mask: NDArray[np.bool_], width: int, marginals: Marginals | None) -> Scores:
    """(B, W, C) to (B, P, C): at the first number of each row."""
    if marginals is not None:
        scores = marginals(scores, attention_mask[:, ::width])
    spread = np.zeros((*scores.shape[:2], width, scores.shape[2]), dtype=np.float32)
    spread[:, :, 0] = scores
    return spread.reshape(len(scores), -1, scores.shape[2])
