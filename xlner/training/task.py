"""What the training loop trains: batches, loss terms, and how good the result is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from xlner.data.batches import TokenBatch
from xlner.data.pairs import PairPlan


class PairBatch(Protocol):
    """What the loop itself reads of a batch."""

    @property
    def tokens(self) -> TokenBatch:
        """The padded windows."""


Batch = TypeVar("Batch", bound=PairBatch)


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """What is trained: batches, loss terms, and how good the result is.

    `counts` and `loss_sums` give one number per term, (T,): over how many positions the term runs in a micro-batch,
    and the sum of its losses there. `shares` are the terms' weights in the total. `evaluate` gives a score in
    percent, the higher the better, and what else is worth a line; every process calls it. `keep` takes the model
    that shall be the result, so far: after each new best evaluation, or, with `keep_best` False, once at the end.
    `copies` says how often each window comes in a forward pass, for what memory it takes; 0 where no batch is to be
    computed in parts: the network is too small to need it, or the loss looks at the batch as a whole.
    """

    lengths: NDArray[np.int64]
    load: Callable[[PairPlan], Batch]
    terms: tuple[str, ...]
    shares: tuple[float, ...]
    counts: Callable[[Batch], Tensor]
    loss_sums: Callable[[nn.Module, Batch], Tensor]
    evaluate: Callable[[Any], tuple[float, dict[str, Any]]]  # of the model that `fit` is given
    keep: Callable[[Any], None]
    score_name: str
    keep_best: bool = True
    copies: int = 1


def of_student(task: Task[Batch]) -> Task[Batch]:
    """A student's task, for a model that holds the student as its `student`, which alone is evaluated and kept."""
    return replace(
        task, evaluate=lambda model: task.evaluate(model.student), keep=lambda model: task.keep(model.student)
    )


def with_term(
    task: Task[Any],
    name: str,
    share: float,
    *,
    load: Callable[[PairPlan], Batch],
    counts: Callable[[Batch], Tensor],
    loss_sums: Callable[[nn.Module, Batch], Tensor],
) -> Task[Batch]:
    """A student's task with one more term, for a model that holds the student as its `student`.

    Args:
        task: For the student itself, which alone is evaluated and kept.
        name: Of the new term.
        share: Of the new term in the total.
        load: Makes the batches of the new task.
        counts: Of all terms, the new one last.
        loss_sums: Of all terms, the new one last.
    """
    made: Callable[..., Task[Batch]] = replace  # of another type of batch
    return made(
        of_student(task),
        load=load,
        terms=(*task.terms, name),
        shares=(*task.shares, share),
        counts=counts,
        loss_sums=loss_sums,
    )
