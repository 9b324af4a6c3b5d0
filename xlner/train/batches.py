"""Batches of sentence pairs: which sentences meet, which words are compared, labels or soft labels of both."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlner.encode import Window
from xlner.network_outputs import TokenBatch, collate
from xlner.soft_labels.store import SoftLabels
from xlner.tags import split_tag

# Which sentences meet as pairs, and which words of theirs are compared.
#
# Everything is drawn from a generator that is handed in, or from (seed, epoch, ...), so that any batch of any epoch
# can be made again by itself: resuming needs no saved sampler state.


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


# Batches of sentence pairs: labelled ones for the teacher, ones with soft labels for the student.
#
# Both towers lie in one padded batch, the first tower's rows first, since the towers share their weights.
# Shapes: B windows, P pieces, C tags, Q word pairs.


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
