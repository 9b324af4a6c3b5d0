"""The micro-batches that the steps of a run are made of, on one process or many."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from xlner.data.pairs import PairPlan, parts_within
from xlner.training.task import Batch, Task


class _Batches(Dataset[Any]):
    """The micro-batches of one process, made when asked for; a second value tells padding (0.0) from real (1.0)."""

    def __init__(self, load: Callable[[PairPlan], Any], plans: Sequence[tuple[PairPlan, float]]) -> None:
        self._load, self._plans = load, plans

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, number: int) -> tuple[Any, float]:
        plan, real = self._plans[number]
        return self._load(plan), real


def step_windows(
    task: Task[Batch],
    plans: Sequence[PairPlan],
    accelerator: Accelerator,
    k: int,
    skip: int,
    batch_pieces: int,
    n_workers: int,
) -> Iterator[list[tuple[Batch, float]]]:
    """This process's micro-batches, in lists of `k`: one list a step; the first `skip` steps are left out.

    All processes take equally many steps, as the collectives need; where the plans run out, the first one stands in
    and counts for nothing. Micro-batches of more than `batch_pieces` (0: no bound) come in parts, so that the lists
    differ in length: of a step's passes only the last one meets the other processes.
    """
    n, rank = accelerator.num_processes, accelerator.process_index
    most = max(1, batch_pieces // task.copies) if batch_pieces and task.copies else 0

    def parts(place: int) -> list[tuple[PairPlan, float]]:
        plan = plans[place] if place < len(plans) else plans[0]
        found = parts_within(plan, task.lengths, most) if most else [plan]
        return [(part, 1.0) for part in found] if place < len(plans) else [(found[0], 0.0)]

    n_windows = -(-len(plans) // (k * n))
    windows = [
        [part for j in range(k) for part in parts((window * k + j) * n + rank)] for window in range(skip, n_windows)
    ]
    # The generator is the loader's own: without one it would draw from the global one, which dropout uses, and a
    # resumed run would differ from one that was never stopped.
    loader = DataLoader(
        _Batches(task.load, list(chain.from_iterable(windows))),
        batch_size=None,
        num_workers=n_workers,
        generator=torch.Generator().manual_seed(0),
    )
    batches = iter(loader)
    for window in windows:
        yield [send_to_device(item, accelerator.device, non_blocking=True) for item in islice(batches, len(window))]


def step_counts(
    accelerator: Accelerator, task: Task[Batch], window: Sequence[tuple[Batch, float]], stop_requested: bool
) -> tuple[Tensor, int, bool]:
    """Over all micro-batches and processes: positions of each term, words, and whether anyone was asked to stop.

    One reduction carries all three, so that every process stops after the same step.
    """
    total = torch.zeros(len(task.terms) + 2, dtype=torch.float64, device=accelerator.device)
    for batch, real in window:
        total[:-2] += task.counts(batch) * real
        total[-2] += batch.tokens.word_mask.sum() * real
    total[-1] = float(stop_requested)
    total = accelerator.reduce(total, "sum")
    return total[:-2].float(), int(total[-2]), bool(total[-1] > 0)
