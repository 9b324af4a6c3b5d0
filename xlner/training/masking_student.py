"""Hidden pieces beside another task: the same windows come once more with pieces hidden, in the same forward."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlner.data.alignment import Window
from xlner.data.batches import TokenBatch
from xlner.data.masking import Masker
from xlner.data.pair_batches import SoftBatch
from xlner.data.pairs import PairPlan
from xlner.training.objective import Objective
from xlner.training.task import Task, with_term


class CopiedBatch(NamedTuple):
    """A batch, and the masked copies of its windows.

    `seen_ids` (B, P) are the pieces that the model sees of the copies; `masked_places` (M,) and `masked_ids` (M,) are
    as in `MaskedBatch`, places counted within the copies.
    """

    soft: SoftBatch
    seen_ids: Tensor
    masked_places: Tensor
    masked_ids: Tensor

    @property
    def tokens(self) -> TokenBatch:
        """The windows as they are."""
        return self.soft.tokens


def with_masking(task: Task[SoftBatch], objective: Objective, masker: Masker, weight: float) -> Task[CopiedBatch]:
    """A student's task with the loss of hidden pieces as one more term; its model is a `MaskingStudent`.

    Args:
        task: For a `JointModel`.
        objective: Its loss.
        masker: Of the student's tokenizer.
        weight: Share of the new term.
    """

    def load(plan: PairPlan) -> CopiedBatch:
        # One number more than the seed of the word pairs, or the two draws would follow each other.
        return _copied(task.load(plan), masker, np.random.default_rng((*plan.seed, 1)))

    def counts(batch: CopiedBatch) -> Tensor:
        found = task.counts(batch.soft)
        return torch.cat([found, found.new_tensor([batch.masked_ids.numel()])])

    def loss_sums(network: nn.Module, batch: CopiedBatch) -> Tensor:
        tokens = batch.soft.tokens
        output = network(
            torch.cat([tokens.input_ids, batch.seen_ids]),
            tokens.attention_mask.repeat(2, 1),
            objective.pairs(batch.soft),
            len(tokens.input_ids),
            batch.masked_places + tokens.input_ids.numel(),
        )
        masked = F.cross_entropy(output.piece_logits.float(), batch.masked_ids, reduction="sum")
        return torch.cat([objective.sums(output.joint, batch.soft), masked[None]])

    return replace(with_term(task, "masked", weight, load=load, counts=counts, loss_sums=loss_sums), copies=2)


def _copied(soft: SoftBatch, masker: Masker, rng: np.random.Generator) -> CopiedBatch:
    tokens = soft.tokens
    windows = []
    for number, (ids, mask, words) in enumerate(zip(*tokens, strict=True)):
        positions = torch.nonzero(words).flatten().numpy().astype(np.int32)
        windows.append(
            Window(number, ids[mask].numpy().astype(np.int32), positions, np.arange(len(positions), dtype=np.int32))
        )
    batch = masker.batch(windows, 0, rng)
    seen = tokens.input_ids.clone()
    seen[tokens.attention_mask] = batch.tokens.input_ids[batch.tokens.attention_mask]
    width, narrow = tokens.input_ids.shape[1], batch.tokens.input_ids.shape[1]
    # A batch may be padded further than its longest window.
    places = batch.masked_places // narrow * width + batch.masked_places % narrow
    return CopiedBatch(soft, seen, places, batch.masked_ids)
