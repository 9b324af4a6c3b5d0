"""The losses of students, put together from the tables that a recipe names."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlner.config.load import PUBLISHED, choose
from xlner.config.schema import DistillRecipe
from xlner.errors import RecipeError
from xlner.models.compact import valid_tag_ids
from xlner.models.folder import ModelSettings, is_there, read_settings
from xlner.models.joint import JointOutput
from xlner.network_outputs import twice
from xlner.train.batches import SoftBatch
from xlner.train.loop import Task, with_term
from xlner.train.losses import (
    ALPHAS,
    BETAS,
    DISTILLATION_LOSSES,
    GAMMAS,
    gamma_of_words,
    masked_sum,
    similarity_cross_entropy,
    symmetric_divergence,
    token_cross_entropy,
)

# The student's loss, put together from the tables that a recipe names.
#
#     L = share * mean gamma beta L_sim + 1/2 mean gamma alpha L_ner (first tower) + 1/2 the same (second tower)
#
# and, if asked, the divergence between two passes with different dropout. The weights are the teacher's, one for each
# word and pair (`Objective`), or the student's, one for the batch (`BatchObjective`).
#
# Source: Li et al. 2022 (2022.acl-long.14), section 3; the variants are explained in `docs/method.md`.


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
    """The student's loss: its choices out of the tables, and the shares of its terms.

    The weights look at what the teacher said of each word and pair; no gradient flows through them.
    """

    recognizer: Callable[..., Tensor]
    temperature: float
    alpha: Callable[[Tensor], Tensor]
    beta: Callable[[Tensor], Tensor]
    gamma: Callable[[Tensor, Tensor, Tensor], Tensor]
    recognizer_weight: float
    similarity_weight: float
    rdrop_weight: float
    uses_similarity: bool

    @property
    def terms(self) -> dict[str, float]:
        """The names of the terms of the loss, T of them, and their shares."""
        terms = _terms(self.recognizer_weight, self.similarity_weight)
        return terms | ({"rdrop": self.rdrop_weight} if self.rdrop_weight else {})

    @property
    def copies(self) -> int:
        """How often a window comes in a forward pass."""
        return 2 if self.rdrop_weight else 1

    def counts(self, batch: SoftBatch) -> Tensor:
        """Positions of the terms: word pairs, words of the first and of the second tower, words; (T,)."""
        counts = _counts(batch)
        return torch.cat([counts, counts[1:].sum(dim=0, keepdim=True)]) if self.rdrop_weight else counts

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
            first_probs, second_probs = probs.flatten(0, 1)[batch.word_pairs]
            gamma = self.gamma(first_probs, second_probs, said)
            places = batch.word_pairs.flatten()  # a pair counts for both of its words
            weights = weights * gamma_of_words(gamma.repeat(2), places, weights.numel()).view_as(weights)
            if output.similarity_logits is not None:
                values = similarity_cross_entropy(output.similarity_logits, said)
                similarity = masked_sum(values, weights=gamma * self.beta(said) * _trust_of_pairs(batch))
        losses = [self.recognizer(logits, probs, temperature=self.temperature) for logits in passes]
        values = sum(losses[1:], losses[0]) / len(losses)
        first = batch.in_first_tower[:, None]
        by_tower = [masked_sum(values, tokens.word_mask & tower, weights) for tower in (first, ~first)]
        if not self.rdrop_weight:
            return torch.stack([similarity, *by_tower])
        divergence = masked_sum(symmetric_divergence(*passes), tokens.word_mask)
        return torch.stack([similarity, *by_tower, divergence])


class BatchObjective(NamedTuple):
    """The loss with the student's own weights, each a mean over the batch, with a gradient through them.

        L = gamma ( share * beta BCE(s_p, s_T) + 1/2 share * (alpha_1 CE_1 + alpha_2 CE_2) )

    s_T is the teacher's similarity, s_z and s_p the cosines of the student's scores and of its probabilities, squashed.
    Alpha is a mean over the words of a tower, beta over the pairs by s_z, gamma over the pairs by s_p and s_z. A batch
    is a micro-batch of one process, which is therefore never computed in parts; how many of them a step has changes the
    weights a little.

    The network is a `TwoHeadStudent`.
    """

    recognizer: Callable[..., Tensor]
    temperature: float
    alpha: Callable[[Tensor], Tensor]
    beta: Callable[[Tensor], Tensor]
    gamma: Callable[[Tensor, Tensor, Tensor], Tensor]
    recognizer_weight: float
    similarity_weight: float
    uses_similarity: bool = True
    copies: int = 0  # a mean over a part would not be one over the batch

    @property
    def terms(self) -> dict[str, float]:
        """The names of the terms of the loss, T of them, and their shares."""
        return _terms(self.recognizer_weight, self.similarity_weight)

    def counts(self, batch: SoftBatch) -> Tensor:
        """Positions of the terms: word pairs, words of the first and of the second tower; (T,)."""
        return _counts(batch)

    def loss_sums(self, network: nn.Module, batch: SoftBatch) -> Tensor:
        """Weighted sums of the similarity loss and of the recognizer loss of either tower; (T,)."""
        tokens, targets = batch.tokens, batch.teacher_probs.detach()
        logits = network(tokens.input_ids, tokens.attention_mask, batch.in_first_tower).float()
        probs = logits.softmax(dim=-1)
        first_scores, second_scores = logits.flatten(0, 1)[batch.word_pairs]
        first_probs, second_probs = probs.flatten(0, 1)[batch.word_pairs]
        of_scores = F.cosine_similarity(first_scores, second_scores, dim=-1).sigmoid()
        gamma = _mean(self.gamma(first_probs, second_probs, of_scores))
        values = similarity_cross_entropy(
            F.cosine_similarity(first_probs, second_probs, dim=-1), batch.teacher_similarity
        )
        similarity = _mean(self.beta(of_scores)) * masked_sum(values, weights=_trust_of_pairs(batch))
        losses, alphas = self.recognizer(logits, targets, temperature=self.temperature), self.alpha(probs)
        first = batch.in_first_tower[:, None]
        by_tower = []
        for mask in (tokens.word_mask & first, tokens.word_mask & ~first):
            alpha = masked_sum(alphas, mask) / mask.sum().clamp_min(1)
            by_tower.append(alpha * masked_sum(losses, mask, batch.trust))
        sums: Tensor = gamma * torch.stack([similarity, *by_tower])
        return sums


def _terms(recognizer_weight: float, similarity_weight: float) -> dict[str, float]:
    half = recognizer_weight / 2
    return {"similarity": similarity_weight, "recognizer_first": half, "recognizer_second": half}


def _counts(batch: SoftBatch) -> Tensor:
    """Word pairs, words of the first and of the second tower; (3,)."""
    first = (batch.tokens.word_mask & batch.in_first_tower[:, None]).sum()
    n_pairs = torch.tensor(batch.teacher_similarity.numel(), device=first.device)
    return torch.stack([n_pairs, first, batch.tokens.word_mask.sum() - first])


def _trust_of_pairs(batch: SoftBatch) -> Tensor:
    """The product of how far both words of each pair are trusted, (Q,)."""
    return batch.trust.flatten()[batch.word_pairs].prod(dim=0)


def _mean(weights: Tensor) -> Tensor:
    """The mean over the pairs of a batch; 1 where there are none."""
    return weights.mean() if weights.numel() else torch.ones((), device=weights.device)


def make_objective(recipe: DistillRecipe) -> Objective | BatchObjective:
    """The loss that a recipe names.

    Raises:
        RecipeError: If a name stands in no table.
    """
    loss, weights = recipe.loss, recipe.weights
    recognizer = choose(DISTILLATION_LOSSES, loss.recognizer, "loss.recognizer")
    alpha = choose(ALPHAS, weights.alpha, "weights.alpha")
    beta = choose(BETAS, weights.beta, "weights.beta")
    gamma = choose(GAMMAS, weights.gamma, "weights.gamma")
    if weights.outputs == "student":
        return BatchObjective(
            recognizer, loss.temperature, alpha, beta, gamma, loss.recognizer_weight, loss.similarity_weight
        )
    return Objective(
        recognizer=recognizer,
        temperature=loss.temperature,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        recognizer_weight=loss.recognizer_weight,
        similarity_weight=loss.similarity_weight,
        rdrop_weight=loss.rdrop_weight,
        uses_similarity=loss.similarity_weight > 0 or weights.gamma != "one",
    )


def check_published(recipe: DistillRecipe) -> None:
    """Refuse what a published variant cannot learn from: a teacher of another make, or a round beyond the first.

    Raises:
        RecipeError: With the teacher, what it is, and what would be right.
    """
    if recipe.variant not in PUBLISHED:
        return
    way = f"train one with train_teacher.py recipe={recipe.variant}, or take another variant"
    if not recipe.model_teachers:
        raise RecipeError(
            f"{recipe.teacher}: annotations have no similarity, which variant={recipe.variant} needs; {way}"
        )
    for teacher in recipe.model_teachers:
        if not is_there(teacher):
            continue  # of a teacher that is not there somebody else tells
        found = read_settings(teacher)
        if (found.similarity, found.sharing) != ("cosine", "separate"):
            raise RecipeError(
                f"{teacher}: variant={recipe.variant} needs a teacher with an encoder for each task and the cosine of "
                f"hidden states (sharing=separate similarity.kind=cosine); this one has {_make_of(found)}; {way}"
            )
    if recipe.rounds.count > 1:
        raise RecipeError(
            f"rounds.count={recipe.rounds.count}: a student of variant={recipe.variant} has one encoder and cannot "
            "teach the next one; set rounds.count=1, or take another variant"
        )


def _make_of(settings: ModelSettings) -> str:
    if not settings.similarity:
        return "no similarity head"
    encoders = "an encoder for each task" if settings.sharing == "separate" else "one encoder for both tasks"
    return f"{encoders} (sharing={settings.sharing}) and similarity.kind={settings.similarity}"


def check_similarity(recipe: DistillRecipe, uses_similarity: bool) -> None:
    """Refuse teachers without the head that the loss needs, before they label a whole text; one with it is enough."""
    if not uses_similarity or any(
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


# A teacher's hidden states beside its soft labels: one more term of a student's loss.


def with_hidden_states(task: Task[SoftBatch], objective: Objective, weight: float) -> Task[SoftBatch]:
    """A student's task with 1 - cos of its hidden states and the teacher's as one more term.

    Args:
        task: For a `JointModel`, on batches that bring `teacher_vectors`; the new one is for a `HiddenStudent`.
        objective: Its loss.
        weight: Share of the new term, the mean over all words, each with its trust.
    """

    def counts(batch: SoftBatch) -> Tensor:
        found = task.counts(batch)
        return torch.cat([found, found.new_tensor([len(batch.teacher_vectors)])])

    def loss_sums(network: nn.Module, batch: SoftBatch) -> Tensor:
        tokens = batch.tokens
        places = tokens.word_mask.flatten().nonzero().flatten()
        output = network(tokens.input_ids, tokens.attention_mask, objective.pairs(batch), places)
        distance = 1 - F.cosine_similarity(output.vectors.float(), batch.teacher_vectors.float(), dim=-1)
        trusted = (distance * batch.trust.flatten()[places]).sum()
        return torch.cat([objective.sums(output.joint, batch), trusted[None]])

    return with_term(task, "hidden", weight, load=task.load, counts=counts, loss_sums=loss_sums)


# The loss of a compact student: what its teacher says of each word, and the tags themselves.
#
#     L = soft * mean alpha KL(teacher || student) at temperature T + hard * mean alpha L_task
#
# The task is to tell the gold tag where the soft labels are gold (their probability is 1), and else the teacher's
# likeliest one. With a CRF the student's part of the divergence are its marginals, and the task is the likelihood of
# the whole sequence, in which words that nobody vouches for may have any tag.
#
# Source: Izsak et al. 2019 (arXiv:1910.06294), section 3; Hinton et al. 2015 (arXiv:1503.02531).


class CompactObjective(NamedTuple):
    """The loss and its choices; `width` is the numbers of a word's row, `tags` those of the student."""

    tags: tuple[str, ...]
    width: int
    whole_sequences: bool
    recognizer: Callable[..., Tensor]
    temperature: float
    alpha: Callable[[Tensor], Tensor]
    soft_weight: float
    hard_weight: float
    uses_similarity: bool = False
    copies: int = 0  # such small networks need no smaller batches

    @property
    def terms(self) -> dict[str, float]:
        """The names of the terms of the loss and their shares."""
        return {"distillation": self.soft_weight, "task": self.hard_weight}

    def counts(self, batch: SoftBatch) -> Tensor:
        """Both terms run over words; (2,)."""
        return batch.tokens.word_mask.sum().repeat(2)

    def loss_sums(self, network: nn.Module, batch: SoftBatch) -> Tensor:
        """Weighted sums of the divergence and of the task loss, (2,)."""
        tokens, probs = batch.tokens, batch.teacher_probs.detach()
        weights = self.alpha(probs) * batch.trust
        likeliest = probs.argmax(dim=-1)
        if not self.whole_sequences:
            output = network(tokens.input_ids, tokens.attention_mask)
            task = masked_sum(token_cross_entropy(output.logits, likeliest), tokens.word_mask, weights)
        else:
            at_words = slice(None, None, self.width)
            tag_ids = valid_tag_ids(likeliest[:, at_words], self.tags)
            known = tokens.word_mask[:, at_words] & (batch.trust[:, at_words] > 0)
            output = network(tokens.input_ids, tokens.attention_mask, tag_ids, known)
            task = -output.log_likelihood.sum()
        values = self.recognizer(output.logits, probs, temperature=self.temperature)
        return torch.stack([masked_sum(values, tokens.word_mask, weights), task])


def make_compact_objective(recipe: DistillRecipe, tags: tuple[str, ...], width: int) -> CompactObjective:
    """The loss that a recipe names.

    Raises:
        RecipeError: If a name stands in no table.
    """
    return CompactObjective(
        tags=tags,
        width=width,
        whole_sequences=recipe.compact.decoder == "crf",
        recognizer=choose(DISTILLATION_LOSSES, recipe.loss.recognizer, "loss.recognizer"),
        temperature=recipe.loss.temperature,
        alpha=choose(ALPHAS, recipe.weights.alpha, "weights.alpha"),
        soft_weight=recipe.loss.recognizer_weight,
        hard_weight=recipe.compact.hard_weight,
    )
