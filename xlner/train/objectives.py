"""What the loop minimises: micro-batches of a plan, and the sum of each loss term over them.

An objective says for each term over how many positions it runs and what the losses add up to; the loop divides by the
count of the whole step, over micro-batches and processes, and steps. Labelled text (`LabelledWords`), soft labels of a
transformer student (`SoftWords`) and of a compact one (`CompactWords`) are here, hidden pieces in `masking.py`, word
pairs and what is weighted by them in `mtmt.py`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from xlner.config.load import choose
from xlner.config.schema import CompactRecipe, LossRecipe
from xlner.decoding import IMPOSSIBLE
from xlner.encode import Window
from xlner.models.inference import TokenBatch, collate
from xlner.soft_labels.store import SoftLabels
from xlner.train.batches import Plan

# Losses of words, and how far a word is trusted: pure functions of tensors, one value a word, in float32.


def token_cross_entropy(logits: Tensor, tag_ids: Tensor) -> Tensor:
    """Cross-entropy against gold tags.

    Args:
        logits: Unnormalised scores, (N, C).
        tag_ids: Gold tag ids, (N,).

    Returns:
        Nats per word, (N,).
    """
    return F.cross_entropy(logits.float(), tag_ids, reduction="none")


def soft_cross_entropy(student_logits: Tensor, teacher_probs: Tensor, *, temperature: float | Tensor = 1.0) -> Tensor:
    """Cross-entropy of the student's tag distribution against the teacher's soft labels.

    It is KL(teacher || student) plus the teacher's entropy, which does not depend on the student: the gradients
    are those of the KL divergence, the values are not.

    Args:
        student_logits: Unnormalised scores, (N, C).
        teacher_probs: Tag probabilities, (N, C), each row summing to 1 and made at temperature 1; no
            gradient flows into them.
        temperature: Divides the logits of both; above 0. The result is multiplied by its square, which keeps the
            size of the gradients.

    Returns:
        Nats per word, (N,).

    Raises:
        ValueError: If the two shapes differ.

    Source: Hinton et al. 2015 (arXiv:1503.02531), section 2.
    """
    _same_shape(student_logits, teacher_probs)
    targets = soften(teacher_probs.detach().float(), temperature)
    log_probs = F.log_softmax(student_logits.float() / temperature, dim=-1)
    return -(targets * log_probs).sum(dim=-1) * temperature**2


def squared_error(student_logits: Tensor, teacher_probs: Tensor, *, temperature: float | Tensor = 1.0) -> Tensor:
    """Squared difference of the probabilities, summed over tags.

    Args and Raises as for `soft_cross_entropy`.

    Returns:
        Between 0 and 2 per word, (N,).

    Source: Li et al. 2022 (2022.acl-long.14), published code.
    """
    _same_shape(student_logits, teacher_probs)
    targets = soften(teacher_probs.detach().float(), temperature)
    return (F.softmax(student_logits.float() / temperature, dim=-1) - targets).square().sum(dim=-1)


def mean_squared_error(student_logits: Tensor, teacher_probs: Tensor, *, temperature: float | Tensor = 1.0) -> Tensor:
    """Squared difference of the probabilities, averaged over tags: `squared_error` divided by C.

    Args and Raises as for `soft_cross_entropy`.

    Returns:
        Between 0 and 2 / C per word, (N,).

    Source: Wu et al. 2020 (2020.acl-main.581), equation 4.
    """
    return squared_error(student_logits, teacher_probs, temperature=temperature) / student_logits.shape[-1]


# Logarithms of probabilities below this are taken for it: gold tags leave the others a probability of 0.
LEAST_PROBABILITY = 1e-6


def squared_logits(student_logits: Tensor, teacher_probs: Tensor, *, temperature: float | Tensor = 1.0) -> Tensor:
    """Squared difference of the logits, averaged over tags; the teacher's are the logarithms of its probabilities.

    Logits are told by their softmax up to a number that is the same for all tags, so both are taken from their mean.

    Args:
        student_logits: Unnormalised scores, (N, C).
        teacher_probs: As for `soft_cross_entropy`; a row of zeros (a position without a teacher) costs nothing.
        temperature: Divides the logits of both; the result is multiplied by its square, so that nothing changes.

    Returns:
        From 0 on, per word, (N,).

    Raises:
        ValueError: If the two shapes differ.

    Source: Ba and Caruana 2014 (arXiv:1312.6184), equation 1; Tang et al. 2019 (arXiv:1903.12136), section 3.2.
    """
    _same_shape(student_logits, teacher_probs)
    targets = teacher_probs.detach().float().clamp_min(LEAST_PROBABILITY).log()
    difference = student_logits.float() - targets
    squares = (difference - difference.mean(dim=-1, keepdim=True)).square().mean(dim=-1)
    return squares * teacher_probs.any(dim=-1)


def possible_logits(log_marginals: Tensor) -> Tensor:
    """What a CRF excludes by construction (`I-X` at the first word) as unlikely as `LEAST_PROBABILITY`.

    Its log-probability of `IMPOSSIBLE` is no number to compare with a teacher's: the distance would be of it alone.
    """
    return torch.where(log_marginals < IMPOSSIBLE / 2, math.log(LEAST_PROBABILITY), log_marginals)


def soften(probs: Tensor, temperature: float | Tensor) -> Tensor:
    """Probabilities at a temperature: what `softmax(logits / temperature)` gives, from `softmax(logits)`.

    Rows of zeros (positions without a teacher) stay zeros.
    """
    if temperature == 1.0:
        return probs
    # Relative to the highest of its row, or the powers of a low temperature would all vanish in float32.
    highest = probs.amax(dim=-1, keepdim=True)
    powered = (probs / torch.where(highest > 0, highest, 1.0)).pow(1.0 / temperature)
    return powered / powered.sum(dim=-1, keepdim=True).clamp_min(1.0)


def _same_shape(student_logits: Tensor, teacher_probs: Tensor) -> None:
    if student_logits.shape != teacher_probs.shape:
        raise ValueError(
            f"student_logits {tuple(student_logits.shape)} and teacher_probs {tuple(teacher_probs.shape)} "
            "must have one shape (N, C); do teacher and student share their label set?"
        )


# A new distillation loss is one function above and one line here; recipes name it by its key.
DISTILLATION_LOSSES: dict[str, Callable[..., Tensor]] = {
    "soft_cross_entropy": soft_cross_entropy,
    "squared_error": squared_error,
    "mean_squared_error": mean_squared_error,
    "squared_logits": squared_logits,
}


def squared_confidence(probs: Tensor) -> Tensor:
    """Alpha: the square of the highest tag probability; (N, C) to (N,).

    Source: Li et al. 2022 (2022.acl-long.14), section 3.
    """
    return probs.float().amax(dim=-1).square()


def _full_alpha(probs: Tensor) -> Tensor:
    return torch.ones(probs.shape[:-1], device=probs.device)


# A new weighting is one function above and one line here; recipes name it by its key.
ALPHAS: dict[str, Callable[[Tensor], Tensor]] = {"squared_confidence": squared_confidence, "one": _full_alpha}


# What the loop asks of an objective.


class AnyBatch(Protocol):
    """What the loop itself reads of a batch."""

    @property
    def tokens(self) -> TokenBatch:
        """The padded windows."""


Batch = TypeVar("Batch", bound=AnyBatch)


class Objective(ABC, Generic[Batch]):
    """A loss over a text.

    Attributes:
        lengths: Pieces of each window of the text.
        terms: The names of the terms of the loss, and their shares in it.
        in_parts: Whether a micro-batch may be computed in parts: not where the loss looks at it as a whole, and not
            worth while where the network is small.
        same_pieces: Whether a window has the same pieces in each epoch.
    """

    lengths: NDArray[np.int64]
    terms: Mapping[str, float]
    in_parts: ClassVar[bool] = True
    same_pieces: ClassVar[bool] = True

    @abstractmethod
    def batch(self, plan: Plan) -> Batch:
        """The batch of a plan, always the same one."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, int]:
        """Over how many positions each term runs, known before any network has seen them."""

    @abstractmethod
    def loss_sums(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The sum of each term's losses over its positions."""


# Labelled text: shapes N words of a batch, C tags.


class LabelledBatch(NamedTuple):
    """Labelled windows; `tag_ids` (N,)."""

    tokens: TokenBatch
    tag_ids: Tensor


class LabelledText:
    """Windows of labelled sentences."""

    def __init__(self, windows: Sequence[Window], tag_ids: Sequence[NDArray[np.int64]], pad_id: int) -> None:
        """Keep them.

        Args:
            windows: Of all sentences.
            tag_ids: Of the words of each sentence.
            pad_id: Piece id of padding.
        """
        self._windows, self._tag_ids, self._pad_id = windows, tag_ids, pad_id
        self.lengths = np.asarray([len(window.piece_ids) for window in windows], dtype=np.int64)

    def batch(self, plan: Plan) -> tuple[TokenBatch, list[NDArray[np.int64]]]:
        """Padded windows, and the tag ids of each of them."""
        windows = [self._windows[number] for number in plan.windows]
        return collate(windows, self._pad_id), [self._tag_ids[one.sentence][one.word_numbers] for one in windows]


class LabelledWords(Objective[LabelledBatch]):
    """Cross-entropy against gold tags, averaged over words."""

    def __init__(self, text: LabelledText) -> None:
        self._text, self.lengths = text, text.lengths
        self.terms = {"recognizer": 1.0}

    def batch(self, plan: Plan) -> LabelledBatch:
        """See `Objective.batch`."""
        tokens, tags = self._text.batch(plan)
        return LabelledBatch(tokens, torch.from_numpy(np.concatenate(tags)))

    def counts(self, batch: LabelledBatch) -> dict[str, int]:
        """Words."""
        return {"recognizer": len(batch.tag_ids)}

    def loss_sums(self, network: nn.Module, batch: LabelledBatch) -> dict[str, Tensor]:
        """See `Objective.loss_sums`; the network gives `logits` of words."""
        return {"recognizer": token_cross_entropy(network(*batch.tokens).logits, batch.tag_ids).sum()}


# Soft labels of unlabelled text: shapes as above.


class SoftBatch(NamedTuple):
    """Unlabelled windows; `probs` (N, C) is what the teacher says of each word, `trust` (N,) in [0, 1] how far."""

    tokens: TokenBatch
    probs: Tensor
    trust: Tensor


class SoftText:
    """Windows of unlabelled sentences, and the soft labels of their words."""

    def __init__(
        self, windows: Sequence[Window], trained: NDArray[np.int64], soft_labels: SoftLabels, pad_id: int
    ) -> None:
        """Keep them.

        Args:
            windows: Of all sentences.
            trained: Numbers of those that are trained on; a plan counts among these.
            soft_labels: Of the sentences.
            pad_id: Piece id of padding.
        """
        self._windows, self._trained, self._pad_id = windows, trained, pad_id
        self.soft_labels = soft_labels
        self.lengths = np.asarray([len(windows[number].piece_ids) for number in trained], dtype=np.int64)

    def windows(self, plan: Plan) -> list[Window]:
        """The windows of a plan, without words that the teacher could not see: nothing can be learnt from those."""
        return [self._labelled_part(self._windows[self._trained[number]]) for number in plan.windows]

    def batch(self, windows: Sequence[Window]) -> SoftBatch:
        """Padded windows with their soft labels."""
        found = self.soft_labels
        probs = [found.probs(window.sentence)[window.word_numbers] for window in windows]
        trust = [found.weights(window.sentence)[window.word_numbers] for window in windows]
        return SoftBatch(
            collate(windows, self._pad_id),
            torch.from_numpy(np.concatenate(probs)),
            torch.from_numpy(np.concatenate(trust).astype(np.float32)),
        )

    def _labelled_part(self, window: Window) -> Window:
        known = self.soft_labels.probs(window.sentence)[window.word_numbers].any(axis=1)
        if known.all():
            return window
        return window._replace(word_positions=window.word_positions[known], word_numbers=window.word_numbers[known])


class WordLoss:
    """What a student is told of each word: the distance from the teacher's probabilities, times the trust in it."""

    def __init__(self, recipe: LossRecipe, alpha: str) -> None:
        """Choose out of the tables.

        Args:
            recipe: Names the distance and its temperature.
            alpha: Names how far the teacher is trusted by what it says of a word.

        Raises:
            RecipeError: If a name stands in no table.
        """
        self._distance: Callable[..., Tensor] = choose(DISTILLATION_LOSSES, recipe.recognizer, "loss.recognizer")
        self._alpha: Callable[[Tensor], Tensor] = choose(ALPHAS, alpha, "weights.alpha")
        self.temperature = recipe.temperature

    def weights(self, probs: Tensor, trust: Tensor) -> Tensor:
        """Alpha of what the teacher says of each word, times the trust in it, (N,)."""
        return self._alpha(probs) * trust

    def alpha(self, probs: Tensor) -> Tensor:
        """Alpha of whatever says these probabilities (N, C), (N,)."""
        return self._alpha(probs)

    def distance(self, logits: Tensor, probs: Tensor, temperature: Tensor | None = None) -> Tensor:
        """Of scores (N, C) from probabilities (N, C), (N,); at the temperature of the recipe, or another."""
        return self._distance(logits, probs, temperature=self.temperature if temperature is None else temperature)


class SoftWords(Objective[SoftBatch]):
    """The loss of a student of soft labels, averaged over words."""

    def __init__(self, text: SoftText, loss: WordLoss, share: float) -> None:
        """Keep them; `share` is that of the one term."""
        self._text, self._loss, self.lengths = text, loss, text.lengths
        self.terms = {"recognizer": share}

    def batch(self, plan: Plan) -> SoftBatch:
        """See `Objective.batch`."""
        return self._text.batch(self._text.windows(plan))

    def counts(self, batch: SoftBatch) -> dict[str, int]:
        """Words."""
        return dict.fromkeys(self.terms, len(batch.trust))

    def loss_sums(self, network: nn.Module, batch: SoftBatch) -> dict[str, Tensor]:
        """See `Objective.loss_sums`; the network gives `logits` of words."""
        logits = network(*batch.tokens).logits
        return {
            "recognizer": (
                self._loss.distance(logits, batch.probs) * self._loss.weights(batch.probs, batch.trust)
            ).sum()
        }


class CompactBatch(NamedTuple):
    """As `SoftBatch`; `temperature` () is that of the epoch."""

    tokens: TokenBatch
    probs: Tensor
    trust: Tensor
    temperature: Tensor


class CompactWords(Objective[CompactBatch]):
    """The loss of a compact student: what its teacher says of each word, and the tags themselves.

        L = soft * mean alpha KL(teacher || student) at temperature T + hard * mean alpha L_task

    The task is to tell the gold tag where the soft labels are gold (their probability is 1), and else the teacher's
    likeliest one. With a CRF the student's part of the divergence are its marginals, and the task is the likelihood of
    the whole sequence, in which words that nobody vouches for may have any tag.

    Source: Izsak et al. 2019 (arXiv:1910.06294), section 3; Hinton et al. 2015 (arXiv:1503.02531).
    """

    in_parts = False

    def __init__(self, text: SoftText, loss: WordLoss, soft_share: float, recipe: CompactRecipe, n_epochs: int) -> None:
        """Keep them.

        Args:
            text: What it learns from.
            loss: How far it is from the teacher.
            soft_share: Of that.
            recipe: Gives the share of the task, the temperature that training begins with, and whether there is a CRF.
            n_epochs: Of the run.
        """
        self._text, self._loss, self.lengths = text, loss, text.lengths
        self.terms = {"distillation": soft_share, "task": recipe.hard_weight}
        self._whole_sequences = recipe.decoder == "crf"
        self._temperatures = np.linspace(recipe.first_temperature or loss.temperature, loss.temperature, n_epochs)

    def batch(self, plan: Plan) -> CompactBatch:
        """See `Objective.batch`."""
        _, epoch, *_ = plan.seed
        found = self._text.batch(self._text.windows(plan))
        return CompactBatch(*found, torch.tensor(self._temperatures[epoch], dtype=torch.float32))

    def counts(self, batch: CompactBatch) -> dict[str, int]:
        """Words."""
        return dict.fromkeys(self.terms, len(batch.trust))

    def loss_sums(self, network: nn.Module, batch: CompactBatch) -> dict[str, Tensor]:
        """See `Objective.loss_sums`; the network is a `CompactNetwork`."""
        weights, likeliest = self._loss.weights(batch.probs, batch.trust), batch.probs.argmax(dim=-1)
        if self._whole_sequences:
            output = network(*batch.tokens, likeliest, batch.trust > 0)
            task = -output.log_likelihood.sum()
            logits = possible_logits(output.logits)
        else:
            logits = network(*batch.tokens).logits
            task = (token_cross_entropy(logits, likeliest) * weights).sum()
        distance = self._loss.distance(logits, batch.probs, batch.temperature)
        return {"distillation": (distance * weights).sum(), "task": task}
