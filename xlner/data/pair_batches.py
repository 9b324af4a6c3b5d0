"""Batches of sentence pairs: labelled ones for the teacher, ones with soft labels for the student.

Both towers lie in one padded batch, the first tower's rows first, since the towers share their weights.
Shapes: B windows, P pieces, C tags, Q word pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlner.data.alignment import Window
from xlner.data.batches import TokenBatch, collate
from xlner.data.pairs import PairPlan, sample_word_pairs
from xlner.data.soft_labels import SoftLabels
from xlner.labels import split_tag


class PairDraw(NamedTuple):
    """How word pairs are drawn: how many per sentence of the first tower, and the balance of `sample_word_pairs`."""

    per_sentence: int
    balance: float


class LabelledBatch(NamedTuple):
    """Both towers of labelled sentences, the first tower's rows first.

    `tag_ids` (B, P), 0 where there is no word; `word_pairs` (2, Q), flat places in (B * P); `same_tag` (Q,) 0 or 1.
    """

    tokens: TokenBatch
    tag_ids: Tensor
    word_pairs: Tensor
    same_tag: Tensor


class SoftBatch(NamedTuple):
    """Both towers of unlabelled sentences with their soft labels, the first tower's rows first.

    `teacher_probs` (B, P, C), zeros where there is no word; `word_pairs` (2, Q), flat places in (B * P);
    `teacher_similarity` (Q,) in [0, 1]; `in_first_tower` (B,); `trust` (B, P) in [0, 1], how far the soft labels of a
    word are trusted, zeros where there is no word; `teacher_vectors` (N, D), a teacher's hidden states at the N words,
    in the order of the flattened mask, or (0, 0) where none are asked for.
    """

    tokens: TokenBatch
    teacher_probs: Tensor
    word_pairs: Tensor
    teacher_similarity: Tensor
    in_first_tower: Tensor
    trust: Tensor
    teacher_vectors: Tensor


class WordVectors(Protocol):
    """Vectors of the words of a text."""

    def of(self, sentence: int) -> NDArray[np.floating]:
        """Those of a sentence, (W, D)."""


class LabelledPairs:
    """Makes batches of labelled sentence pairs."""

    def __init__(
        self, windows: Sequence[Window], tag_ids: Sequence[NDArray[np.int64]], pad_id: int, pairs: PairDraw | None
    ) -> None:
        """Keep what batches are made of.

        Args:
            windows: Of all sentences.
            tag_ids: Of the words of each sentence.
            pad_id: Piece id of padding.
            pairs: How word pairs are drawn; None for no similarity task.
        """
        self._windows, self._tag_ids, self._pad_id, self._pairs = windows, tag_ids, pad_id, pairs

    def batch(self, plan: PairPlan) -> LabelledBatch:
        """The batch of a plan, always the same one."""
        windows = [self._windows[number] for number in (*plan.first, *plan.second)]
        tokens = collate(windows, self._pad_id)
        tags = [self._tag_ids[window.sentence][window.word_numbers] for window in windows]
        places = _word_places(windows, tokens)
        tag_ids = torch.zeros(tokens.input_ids.shape, dtype=torch.long)
        tag_ids.view(-1)[places] = torch.from_numpy(np.concatenate(tags))
        first, second = _pair_words(tags, len(plan.first), self._pairs, plan.seed)
        word_pairs = torch.stack([places[first], places[second]])
        same_tag = (tag_ids.view(-1)[word_pairs[0]] == tag_ids.view(-1)[word_pairs[1]]).float()
        return LabelledBatch(tokens, tag_ids, word_pairs, same_tag)


class SoftPairs:
    """Makes batches of unlabelled sentence pairs with the soft labels of their words."""

    def __init__(
        self,
        windows: Sequence[Window],
        soft_labels: SoftLabels,
        pad_id: int,
        pairs: PairDraw | None,
        vectors: WordVectors | None = None,
    ) -> None:
        """Keep what batches are made of; arguments as for `LabelledPairs`, and a teacher's vectors if asked for."""
        self._vectors = vectors
        self._windows, self._soft_labels, self._pad_id, self._pairs = windows, soft_labels, pad_id, pairs
        # Pairs are drawn by the names of tags, so that the order in which a teacher counts them changes nothing.
        tags = soft_labels.card.tags
        by_name = sorted(tags, key=lambda tag: split_tag(tag)[::-1])
        self._rank = np.asarray([by_name.index(tag) for tag in tags], dtype=np.int64)

    def batch(self, plan: PairPlan) -> SoftBatch:
        """The batch of a plan, always the same one."""
        windows = [self._labelled_part(self._windows[number]) for number in (*plan.first, *plan.second)]
        tokens = collate(windows, self._pad_id)
        by_window = [self._soft_labels.probs(window.sentence)[window.word_numbers] for window in windows]
        probs = np.concatenate(by_window).astype(np.float32)
        places = _word_places(windows, tokens)
        teacher_probs = torch.zeros((*tokens.input_ids.shape, probs.shape[1]))
        teacher_probs.view(-1, probs.shape[1])[places] = torch.from_numpy(probs)
        trusted = [self._soft_labels.weights(window.sentence)[window.word_numbers] for window in windows]
        trust = torch.zeros(tokens.input_ids.shape)
        trust.view(-1)[places] = torch.from_numpy(np.concatenate(trusted).astype(np.float32))
        tags = [self._rank[rows.argmax(axis=1)] for rows in by_window]
        first, second = _pair_words(tags, len(plan.first), self._pairs, plan.seed)
        similarity = np.zeros(0, dtype=np.float32)
        if len(first):
            projections = np.concatenate(
                [self._soft_labels.projections(window.sentence)[window.word_numbers] for window in windows]
            ).astype(np.float32)
            similarity = self._soft_labels.similarities(projections[first], projections[second])
        return SoftBatch(
            tokens,
            teacher_probs,
            torch.stack([places[first], places[second]]),
            torch.from_numpy(similarity),
            torch.arange(len(windows)) < len(plan.first),
            trust,
            self._teacher_vectors(windows),
        )

    def _teacher_vectors(self, windows: Sequence[Window]) -> Tensor:
        """(N, D), or (0, 0)."""
        if self._vectors is None:
            return torch.zeros(0, 0)
        rows = [self._vectors.of(window.sentence)[window.word_numbers] for window in windows]
        return torch.from_numpy(np.concatenate(rows))

    def _labelled_part(self, window: Window) -> Window:
        """The window without words that the teacher could not see: nothing can be learnt from those."""
        known = self._soft_labels.probs(window.sentence)[window.word_numbers].any(axis=1)
        if known.all():
            return window
        return window._replace(word_positions=window.word_positions[known], word_numbers=window.word_numbers[known])


def _word_places(windows: Sequence[Window], tokens: TokenBatch) -> Tensor:
    """Flat places in (B * P) of the words of all windows, in order."""
    width = tokens.input_ids.shape[1]
    return torch.from_numpy(
        np.concatenate([row * width + window.word_positions for row, window in enumerate(windows)]).astype(np.int64)
    )


def _pair_words(
    tags: Sequence[NDArray[np.int64]], n_first: int, pairs: PairDraw | None, seed: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the drawn first and second words among all words of a batch."""
    if pairs is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    rng = np.random.default_rng(seed)
    first, second = sample_word_pairs(tags[:n_first], tags[n_first:], pairs.per_sentence, pairs.balance, rng)
    return first, second + sum(len(words) for words in tags[:n_first])
