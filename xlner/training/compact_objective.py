"""The loss of a compact student: what its teacher says of each word, and the tags themselves.

    L = soft * mean alpha KL(teacher || student) at temperature T + hard * mean alpha L_task

The task is to tell the gold tag where the soft labels are gold (their probability is 1), and else the teacher's
likeliest one. With a CRF the student's part of the divergence are its marginals, and the task is the likelihood of the
whole sequence, in which words that nobody vouches for may have any tag.

Source: Izsak et al. 2019 (arXiv:1910.06294), section 3; Hinton et al. 2015 (arXiv:1503.02531).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xlner.data.pair_batches import SoftBatch
from xlner.losses import DISTILLATION_LOSSES, masked_sum, token_cross_entropy
from xlner.recipe import choose
from xlner.schema import DistillRecipe
from xlner.students.crf import valid_tag_ids
from xlner.weights import ALPHAS


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
