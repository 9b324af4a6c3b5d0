"""Hidden pieces: the text of an adaptation as rows of pieces, which are hidden, and the loss of telling them."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from xlner.config.schema import MaskingRecipe
from xlner.encode import Window, WordEncoder
from xlner.errors import ModelError
from xlner.models.inference import TokenBatch, collate
from xlner.train.batches import Plan
from xlner.train.objectives import Objective
from xlner.words import Sentence

# Text for masked-language-model training: rows of pieces of which every word is whole, sentences and translations.
#
# Unlike the windows that a tagger reads, the parts of a long sentence do not overlap: each word is met once an epoch.


CHUNK_SENTENCES = 4096  # that are encoded together


class TextRows:
    """Windows in two flat arrays: four bytes a piece and four a word, whatever the length of the text."""

    def __init__(self, windows: Iterable[Window]) -> None:
        pieces, words = array("i"), array("i")
        piece_ends, word_ends, numbers = array("q", [0]), array("q", [0]), array("q")
        for window in windows:
            pieces.frombytes(window.piece_ids.astype(np.int32).tobytes())
            words.frombytes(window.word_positions.astype(np.int32).tobytes())
            piece_ends.append(len(pieces))
            word_ends.append(len(words))
            numbers.append(window.sentence)
        self._pieces, self._words = np.array(pieces, dtype=np.int32), np.array(words, dtype=np.int32)
        self._piece_ends, self._word_ends = np.array(piece_ends), np.array(word_ends)
        self.sentences: NDArray[np.int64] = np.array(numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, number: int) -> Window:
        """One window; all its words are among those that it decides."""
        positions = self._words[self._word_ends[number] : self._word_ends[number + 1]]
        return Window(
            int(self.sentences[number]),
            self._pieces[self._piece_ends[number] : self._piece_ends[number + 1]],
            positions,
            np.arange(len(positions), dtype=np.int32),
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Pieces of each window."""
        return np.diff(self._piece_ends)

    @property
    def piece_ids(self) -> NDArray[np.int32]:
        """The pieces of all windows, special ones included."""
        return self._pieces

    @property
    def n_words(self) -> int:
        """Words of all windows."""
        return len(self._words)


def sentence_rows(encoder: WordEncoder, sentences: Sequence[Sequence[str]]) -> Iterator[Window]:
    """The windows of sentences, without overlap; one too long for the encoder becomes several."""
    for number, found in groupby(encoder.encode(sentences), attrgetter("sentence")):
        windows, words = list(found), sentences[number]
        if len(windows) == 1:
            yield windows[0]
            continue
        # Each window shows words that another one decides.
        begins = [int(window.word_numbers[0]) for window in windows]
        for begin, end in pairwise([*begins, len(words)]):
            yield from encoder.encode([words[begin:end]], number)


def pair_rows(encoder: WordEncoder, pairs: Sequence[tuple[Sentence, Sentence]]) -> Iterator[Window]:
    """A window for each translation: both sentences one after the other, each cut to half of the room.

    Pairs of which the tokenizer makes nothing of one side are left out.

    Source: translation language modelling, Conneau and Lample 2019 (arXiv:1901.07291), section 3.3.
    """
    middle = _between(encoder)
    room = (encoder.room - len(middle)) // 2
    for start in range(0, len(pairs), CHUNK_SENTENCES):
        block = pairs[start : start + CHUNK_SENTENCES]
        sides = [_first_windows(encoder, [pair[side].words for pair in block], room) for side in (0, 1)]
        for number in range(len(block)):
            first, second = sides[0].get(number), sides[1].get(number)
            if first is None or second is None:
                continue
            head = [*encoder.prefix, *first.piece_ids, *middle]
            pieces = [*head, *second.piece_ids, *encoder.suffix]
            positions = np.concatenate([first.word_positions + len(encoder.prefix), second.word_positions + len(head)])
            yield Window(
                start + number,
                np.array(pieces, dtype=np.int32),
                positions.astype(np.int32),
                np.arange(len(positions), dtype=np.int32),
            )


def unknown_share(rows: TextRows, unknown_id: int | None, n_special: int) -> tuple[float, float]:
    """Share of unknown pieces among all pieces, and pieces per word; special pieces are left out.

    Args:
        rows: Of sentences, not of pairs.
        unknown_id: The tokenizer's piece for what it does not know; None if it has none.
        n_special: Special pieces around each sentence.
    """
    n_pieces = len(rows.piece_ids) - n_special * len(rows)
    n_unknown = 0 if unknown_id is None else int((rows.piece_ids == unknown_id).sum())
    return n_unknown / max(1, n_pieces), n_pieces / max(1, rows.n_words)


def _between(encoder: WordEncoder) -> list[int]:
    """The special pieces that the tokenizer puts between two sentences.

    Raises:
        ModelError: If it has none.
    """
    tokenizer = encoder.tokenizer
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    both = tokenizer("a", "a")["input_ids"]
    end = len(both) - len(encoder.suffix) - len(bare)
    middle: list[int] = both[len(encoder.prefix) + len(bare) : end]
    if not middle or not set(middle) <= set(tokenizer.all_special_ids):
        raise ModelError(
            f"{tokenizer.name_or_path}: its tokenizer puts nothing between two sentences, so that translations cannot "
            "be read together; leave out parallel="
        )
    return middle


def _first_windows(encoder: WordEncoder, sentences: Sequence[Sequence[str]], room: int) -> dict[int, Window]:
    """What fits into the room of each sentence, by its number, without special pieces."""
    found: dict[int, Window] = {}
    for window in sentence_rows(encoder, sentences):
        if window.sentence in found:
            continue
        n_before = len(encoder.prefix)
        pieces = window.piece_ids[n_before : len(window.piece_ids) - len(encoder.suffix)]
        starts = window.word_positions - n_before
        # Whole words only; one that is longer than the room is cut.
        n_words = int(np.searchsorted([*starts[1:], len(pieces)], room, side="right")) or 1
        end = min(room, [*starts[1:], len(pieces)][n_words - 1])
        found[window.sentence] = Window(
            window.sentence, pieces[:end], starts[:n_words], np.arange(n_words, dtype=np.int32)
        )
    return found


# Masked pieces: which pieces of a batch are hidden, and what the model sees instead.
#
# All draws come from a generator that is handed in, so that any batch can be made again. Special pieces and those that
# the tokenizer does not know are never hidden: there is nothing to be told of them. Shapes: B windows, P pieces,
# M hidden pieces.


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


class HiddenPieces(Objective[MaskedBatch]):
    """Cross-entropy of hidden pieces, averaged over them.

    Source: Devlin et al. 2019 (arXiv:1810.04805), section 3.1.
    """

    same_pieces = False

    def __init__(self, rows: TextRows, masker: Masker, pad_id: int) -> None:
        self._rows, self._masker, self._pad_id = rows, masker, pad_id
        self.lengths, self.terms = rows.lengths, {"masked": 1.0}

    def batch(self, plan: Plan) -> MaskedBatch:
        """See `Objective.batch`; the masks are drawn from the seed of the plan."""
        return self.of_rows(plan.windows, np.random.default_rng(plan.seed))

    def of_rows(self, numbers: NDArray[np.int64], rng: np.random.Generator) -> MaskedBatch:
        """A batch of these rows."""
        return self._masker.batch([self._rows[number] for number in numbers], self._pad_id, rng)

    def counts(self, batch: MaskedBatch) -> dict[str, int]:
        """Hidden pieces."""
        return {"masked": len(batch.masked_ids)}

    def loss_sums(self, network: nn.Module, batch: MaskedBatch) -> dict[str, Tensor]:
        """See `Objective.loss_sums`, in nats; the network is a `MaskedModel`."""
        logits = network(batch.tokens.input_ids, batch.tokens.attention_mask, batch.masked_places)
        return {"masked": F.cross_entropy(logits.float(), batch.masked_ids, reduction="sum")}
