"""The student's loss, put together from the tables that a recipe names.

    L = share * mean gamma beta L_sim + 1/2 mean gamma alpha L_ner (first tower) + 1/2 the same (second tower)

and, if asked, the divergence between two passes with different dropout.

Source: Li et al. 2022 (2022.acl-long.14), section 3; the variants are explained in `docs/method.md`.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from xlner.data.batches import twice
from xlner.data.pair_batches import SoftBatch
from xlner.errors import RecipeError
from xlner.losses import DISTILLATION_LOSSES, masked_sum, similarity_cross_entropy, symmetric_divergence
from xlner.models.folder import is_there, read_settings
from xlner.models.joint import JointOutput
from xlner.recipe import choose
from xlner.schema import DistillRecipe
from xlner.weights import ALPHAS, BETAS, GAMMAS, gamma_of_words


class AnyObjective(Protocol):
    """What the task of a student asks of its loss, of whatever kind the student is."""

    @property
    def uses_similarity(self) -> bool:
        """Whether word pairs are to be drawn."""

    @property
    def terms(self) -> dict[str, float]:
        """The names of the terms of the loss, T of them, and their shares."""

    @property
    def copies(self) -> int:
        """As in `Task`."""

    def counts(self, batch: SoftBatch) -> Tensor:
        """Over how many positions each term runs, (T,)."""

    def loss_sums(self, network: nn.Module, batch: SoftBatch) -> Tensor:
        """The sum of each term's losses, (T,)."""


class Objective(NamedTuple):
    """The student's loss: its choices out of the tables, and the shares of its terms."""

    recognizer: Callable[..., Tensor]
    temperature: float
    alpha: Callable[[Tensor], Tensor]
    beta: Callable[[Tensor], Tensor]
    gamma: Callable[[Tensor, Tensor, Tensor], Tensor]
    recognizer_weight: float
    similarity_weight: float
    rdrop_weight: float
    uses_similarity: bool
    weighs_by_student: bool

    @property
    def terms(self) -> dict[str, float]:
        """The names of the terms of the loss, T of them, and their shares."""
        half = self.recognizer_weight / 2
        terms = {"similarity": self.similarity_weight, "recognizer_first": half, "recognizer_second": half}
        return terms | ({"rdrop": self.rdrop_weight} if self.rdrop_weight else {})

    @property
    def copies(self) -> int:
        """How often a window comes in a forward pass."""
        return 2 if self.rdrop_weight else 1

    def counts(self, batch: SoftBatch) -> Tensor:
        """Positions of the terms: word pairs, words of the first and of the second tower, words; (T,)."""
        first = (batch.tokens.word_mask & batch.in_first_tower[:, None]).sum()
        n_pairs = torch.tensor(batch.teacher_similarity.numel(), device=first.device)
        n_words = batch.tokens.word_mask.sum()
        counts = [n_pairs, first, n_words - first]
        return torch.stack([*counts, n_words] if self.rdrop_weight else counts)

    def loss_sums(self, network: nn.Module, batch: SoftBatch) -> Tensor:
        """Weighted sums of the similarity loss, of the recognizer loss of either tower, of the divergence; (T,)."""
        # Places of word pairs stay right when the windows come twice: they lie in the first half.
        seen = twice(batch.tokens) if self.rdrop_weight else batch.tokens
        return self.sums(network(seen.input_ids, seen.attention_mask, self.pairs(batch)), batch)

    def pairs(self, batch: SoftBatch) -> Tensor | None:
        """The word pairs that the network is to compare, (2, Q); None for no similarity task."""
        return batch.word_pairs if self.similarity_weight else None

    def sums(self, output: JointOutput, batch: SoftBatch) -> Tensor:
        """As `loss_sums`, from what the network said."""
        tokens = batch.tokens
        passes = torch.split(output.logits, len(tokens.input_ids))
        probs, said = batch.teacher_probs.detach(), batch.teacher_similarity.detach()
        weights = self.alpha(probs) * batch.trust
        similarity = torch.zeros((), device=probs.device)
        if self.uses_similarity:
            compared = passes[0].float().softmax(dim=-1) if self.weighs_by_student else probs
            first_probs, second_probs = compared.flatten(0, 1)[batch.word_pairs]
            gamma = self.gamma(first_probs, second_probs, said)
            places = batch.word_pairs.flatten()  # a pair counts for both of its words
            weights = weights * gamma_of_words(gamma.repeat(2), places, weights.numel()).view_as(weights)
            if output.similarity_logits is not None:
                trusted = output.similarity_logits.float().sigmoid() if self.weighs_by_student else said
                values = similarity_cross_entropy(output.similarity_logits, said)
                first_trust, second_trust = batch.trust.flatten()[batch.word_pairs]
                both = first_trust * second_trust
                similarity = masked_sum(values, weights=gamma * self.beta(trusted) * both)
        losses = [self.recognizer(logits, probs, temperature=self.temperature) for logits in passes]
        values = sum(losses[1:], losses[0]) / len(losses)
        first = batch.in_first_tower[:, None]
        by_tower = [masked_sum(values, tokens.word_mask & tower, weights) for tower in (first, ~first)]
        if not self.rdrop_weight:
            return torch.stack([similarity, *by_tower])
        divergence = masked_sum(symmetric_divergence(*passes), tokens.word_mask)
        return torch.stack([similarity, *by_tower, divergence])


def make_objective(recipe: DistillRecipe) -> Objective:
    """The loss that a recipe names.

    Raises:
        RecipeError: If a name stands in no table.
    """
    return Objective(
        recognizer=choose(DISTILLATION_LOSSES, recipe.loss.recognizer, "loss.recognizer"),
        temperature=recipe.loss.temperature,
        alpha=choose(ALPHAS, recipe.weights.alpha, "weights.alpha"),
        beta=choose(BETAS, recipe.weights.beta, "weights.beta"),
        gamma=choose(GAMMAS, recipe.weights.gamma, "weights.gamma"),
        recognizer_weight=recipe.loss.recognizer_weight,
        similarity_weight=recipe.loss.similarity_weight,
        rdrop_weight=recipe.loss.rdrop_weight,
        uses_similarity=recipe.loss.similarity_weight > 0 or recipe.weights.gamma != "one",
        weighs_by_student=recipe.weights.outputs == "student",
    )


def check_similarity(recipe: DistillRecipe, objective: Objective) -> None:
    """Refuse teachers without the head that the loss needs, before they label a whole text; one with it is enough."""
    if not objective.uses_similarity or any(
        not is_there(teacher) or read_settings(teacher).similarity for teacher in recipe.model_teachers
    ):
        return  # of a teacher that is not there somebody else tells
    if len(recipe.teachers) == 1 and recipe.model_teachers:
        raise RecipeError(
            f"{recipe.teacher}: this teacher has no similarity head; set loss.similarity_weight=0 and "
            "weights.gamma=one (or variant=pooled), or train it with similarity_weight above 0"
        )
    raise RecipeError(
        f"{recipe.teacher}: none of these teachers has a similarity head; set loss.similarity_weight=0 and "
        "weights.gamma=one (or variant=pooled)"
    )
