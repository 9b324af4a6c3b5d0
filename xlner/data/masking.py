"""Masked pieces: which pieces of a batch are hidden, and what the model sees instead.

All draws come from a generator that is handed in, so that any batch can be made again. Special pieces and those that
the tokenizer does not know are never hidden: there is nothing to be told of them. Shapes: B windows, P pieces,
M hidden pieces.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from xlner.data.alignment import Window
from xlner.data.batches import TokenBatch, collate
from xlner.data.masked_text import TextRows
from xlner.data.pairs import PairPlan
from xlner.errors import ModelError
from xlner.sections import MaskingRecipe


class MaskedBatch(NamedTuple):
    """Windows as the model sees them, and what was there.

    `masked_places` are the hidden pieces' places in the flattened (B * P) pieces, (M,), rising; `masked_ids` the
    pieces themselves, (M,).
    """

    tokens: TokenBatch
    masked_places: Tensor
    masked_ids: Tensor


class Masker:
    """Hides pieces of windows as a recipe says."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, recipe: MaskingRecipe) -> None:
        """Learn the tokenizer's ordinary pieces.

        Raises:
            ModelError: If the tokenizer has no mask.
        """
        if tokenizer.mask_token_id is None:
            raise ModelError(
                f"{tokenizer.name_or_path or type(tokenizer).__name__}: its tokenizer has no mask piece; expected an "
                "encoder that was trained on masked pieces, such as BERT, RoBERTa or XLM-R"
            )
        self._recipe = recipe
        self._mask_id = int(tokenizer.mask_token_id)
        self._unknown_id = -1 if tokenizer.unk_token_id is None else int(tokenizer.unk_token_id)
        self._is_ordinary = np.ones(len(tokenizer), dtype=bool)
        self._is_ordinary[tokenizer.all_special_ids] = False
        self._ordinary = np.flatnonzero(self._is_ordinary)

    def mask(self, windows: Sequence[Window], rng: np.random.Generator) -> tuple[list[Window], NDArray[np.int64]]:
        """Hide pieces of some windows, `ratio` of them together as nearly as words allow, and at least one.

        Args:
            windows: Pieces before the first word that a window decides are never hidden, those after its last one
                count with that one.
            rng: Source of all draws.

        Returns:
            The windows as the model shall see them, and the hidden pieces' places in the pieces of all windows one
            after the other, rising.
        """
        lengths = [len(window.piece_ids) for window in windows]
        offsets = np.cumsum([0, *lengths])
        ids = np.concatenate([window.piece_ids for window in windows])
        units, n_units = self._units(windows, offsets, ids)
        sizes = np.bincount(units[units >= 0], minlength=n_units)
        order = rng.permutation(np.flatnonzero(sizes))
        wanted = self._recipe.ratio * sizes.sum()
        n_chosen = int(np.abs(np.cumsum(sizes[order]) - wanted).argmin()) + 1 if len(order) else 0
        is_chosen = np.zeros(n_units + 1, dtype=bool)  # the last one stands for pieces of no unit, numbered -1
        is_chosen[order[:n_chosen]] = True
        places = np.flatnonzero(is_chosen[units])
        draws = rng.random(len(places))
        seen = ids.copy()
        seen[places[draws < self._recipe.as_mask]] = self._mask_id
        swapped = places[(draws >= self._recipe.as_mask) & (draws < self._recipe.as_mask + self._recipe.as_random)]
        seen[swapped] = rng.choice(self._ordinary, size=len(swapped))
        shown = [
            window._replace(piece_ids=seen[start:end])
            for window, start, end in zip(windows, offsets, offsets[1:], strict=False)
        ]
        return shown, places

    def batch(self, windows: Sequence[Window], pad_id: int, rng: np.random.Generator) -> MaskedBatch:
        """Masked windows as tensors; for the arguments see `mask` and `collate`."""
        shown, places = self.mask(windows, rng)
        tokens = collate(shown, pad_id)
        lengths = np.asarray([len(window.piece_ids) for window in windows])
        row = np.searchsorted(np.cumsum(lengths), places, side="right")
        column = places - (np.cumsum(lengths) - lengths)[row]
        ids = np.concatenate([window.piece_ids for window in windows])[places].astype(np.int64)
        return MaskedBatch(tokens, torch.from_numpy(row * tokens.input_ids.shape[1] + column), torch.from_numpy(ids))

    def _units(
        self, windows: Sequence[Window], offsets: NDArray[np.int64], ids: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], int]:
        """The number of what each piece is hidden with, its word or itself; -1 for pieces that are never hidden."""
        ordinary = self._is_ordinary[ids]
        if not self._recipe.whole_words:
            return np.where(ordinary, np.arange(len(ids)), -1), len(ids)
        starts = np.zeros(len(ids), dtype=np.int64)
        for window, offset in zip(windows, offsets, strict=False):
            starts[offset + window.word_positions] = 1
        words = np.cumsum(starts) - 1
        n_words = int(starts.sum())
        for window, offset in zip(windows, offsets, strict=False):
            # What stands before the first word of a window belongs to no word, least of all to one of another window.
            words[offset : offset + next(iter(window.word_positions), len(window.piece_ids))] = -1
        # A word that is unknown in part is never hidden: half of it would have to be told from the other half.
        is_known = np.ones(n_words + 1, dtype=bool)
        is_known[words[ids == self._unknown_id]] = False
        return np.where(ordinary & is_known[words], words, -1), n_words


class MaskedTexts:
    """Masked batches of a text."""

    def __init__(self, rows: TextRows, masker: Masker, pad_id: int) -> None:
        self._rows, self._masker, self._pad_id = rows, masker, pad_id

    def batch(self, plan: PairPlan) -> MaskedBatch:
        """The micro-batch of a plan, the masks drawn from its seed."""
        return self.of_rows(np.concatenate([plan.first, plan.second]), np.random.default_rng(plan.seed))

    def of_rows(self, numbers: NDArray[np.int64], rng: np.random.Generator) -> MaskedBatch:
        """A batch of these rows."""
        return self._masker.batch([self._rows[number] for number in numbers], self._pad_id, rng)
