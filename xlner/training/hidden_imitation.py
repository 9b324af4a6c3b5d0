"""A teacher's hidden states beside its soft labels: one more term of a student's loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlner.data.pair_batches import SoftBatch
from xlner.training.objective import Objective
from xlner.training.task import Task, with_term


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
