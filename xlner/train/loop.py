"""The one training loop, for teachers and students, on one process or many: what it trains, steps and micro-batches."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import send_to_device, set_seed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from xlner.config.schema import (
    AdaptRecipe,
    CheckpointRecipe,
    DistillRecipe,
    HardwareRecipe,
    OptimizationRecipe,
    TeacherRecipe,
)
from xlner.errors import CorpusError, RunError, StoppedError
from xlner.network_outputs import TokenBatch
from xlner.train.accelerator import make_optimizer, make_schedule, make_tracker
from xlner.train.batches import PairPlan, parts_within, plan_epoch
from xlner.train.checkpoint import (
    KEPT,
    Measured,
    Progress,
    check_space,
    chosen_checkpoint,
    decide,
    load_checkpoint,
    read_progress,
    save_checkpoint,
    state_changes,
)
from xlner.train.run import Interrupted, RunFolder, StopRequest

LOG = logging.getLogger("xlner")

# What the training loop trains: batches, loss terms, and how good the result is.


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


# The micro-batches that the steps of a run are made of, on one process or many.


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


# The one training loop, for teachers and students, on one process or many.
#
# A step takes a window of micro-batches on every process. Each loss term is the exact mean over all positions of the
# step: sums are divided by the count of the whole step, added up over micro-batches and processes, so that neither
# gradient accumulation nor the number of processes changes the gradient.


MOST_SKIPPED = 50  # steps in a row that the scaler of fp16 may leave out; at the start of a run it needs some


@dataclass
class _Meter:
    """What is summed up between two lines of metrics.jsonl."""

    losses: Tensor
    n_words: int = 0
    n_steps: int = 0
    started: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class _Engine(Generic[Batch]):
    """The parts that turn together: `network` is the model as Accelerate wraps it, `optimizer` likewise.

    `averaged` holds a moving average of the weights, updated after each step; None if none was asked for.
    """

    accelerator: Accelerator
    task: Task[Batch]
    run: RunFolder
    model: nn.Module
    averaged: AveragedModel | None
    network: nn.Module
    optimizer: AcceleratedOptimizer
    schedule: LambdaLR
    clip_norm: float
    bar: "tqdm[Any]"
    tracker: Callable[[dict[str, float], int], None]

    @property
    def result(self) -> nn.Module:
        """What is evaluated and kept: the averaged weights, where the recipe asks for them."""
        return self.model if self.averaged is None else self.averaged.module


def fit(
    accelerator: Accelerator,
    model: nn.Module,
    task: Task[Batch],
    run: RunFolder,
    *,
    seed: int,
    optimization: OptimizationRecipe,
    hardware: HardwareRecipe,
    checkpoint: CheckpointRecipe,
    tracker: Callable[[dict[str, float], int], None],
    depends_on: Mapping[str, str],
) -> Progress:
    """Train until the epochs are done; go on from the newest checkpoint of the run where there is one.

    Args:
        accelerator: Of all processes.
        model: Is trained in place.
        task: What it is trained on, and how good it is.
        run: Where it is written to.
        seed: Of batches and dropout.
        optimization: As in the recipe, as are `hardware` and `checkpoint`.
        hardware: See there.
        checkpoint: See there.
        tracker: Gets the numbers of each line of metrics.jsonl.
        depends_on: Fingerprints of what the recipe names, by name: a checkpoint of something else is refused.

    Raises:
        CorpusError: If there is nothing to train on.
        RunError: If a loss or a gradient is not finite, the checkpoints are damaged or of something else, or the disk
            refuses or has no room.
        StoppedError: After SIGINT or SIGTERM, once the state has been saved.
    """
    if not len(task.lengths):
        raise CorpusError("nothing to train on: the tokenizer makes nothing of any word of the text")
    k = optimization.accumulation
    n_batches = len(plan_epoch(task.lengths, optimization.batch_size, seed, 0))
    n_windows = -(-n_batches // (k * accelerator.num_processes))
    n_steps = n_windows * optimization.epochs
    optimizer = make_optimizer(model, optimization)
    schedule = make_schedule(optimizer, optimization, n_steps)
    # Copied before Accelerate wraps the forward of the model.
    averaged = None
    if optimization.ema:
        ema = get_ema_multi_avg_fn(optimization.ema)  # type: ignore[no-untyped-call]
        averaged = AveragedModel(model, accelerator.device, multi_avg_fn=ema)
    network, prepared = accelerator.prepare(model, optimizer)
    set_seed(seed, device_specific=True)  # processes hold one model but drop out different units
    n_checkpoints, averages = KEPT + 1 if checkpoint.steps else 1, averaged is not None
    decide(accelerator, lambda: check_space(run.checkpoints, model, averages=averages, n_checkpoints=n_checkpoints))
    n_processes = accelerator.num_processes
    progress = Progress(n_processes=n_processes, micro_batches=n_processes * k, depends_on=dict(depends_on))
    meter = _Meter(torch.zeros(len(task.terms), device=accelerator.device))
    if found := chosen_checkpoint(run.checkpoints, checkpoint.resume, accelerator):
        before_that = read_progress(found)
        for change in state_changes(found, before_that, progress, run.allowed_changes):
            run.note_change(change)
        measured = load_checkpoint(found, accelerator, model, averaged, optimizer, schedule)
        meter = _Meter(measured.losses.to(accelerator.device), n_steps=measured.n_steps)
        progress = replace(
            before_that, n_processes=n_processes, micro_batches=progress.micro_batches, depends_on=progress.depends_on
        )
        LOG.info(f"going on from {found}")
    run.forget_after(progress.step)
    bar = tqdm(total=n_steps, initial=progress.step, unit="step", disable=not run.writes, dynamic_ncols=True)
    engine = _Engine(
        accelerator, task, run, model, averaged, network, prepared, schedule, optimization.clip_norm, bar, tracker
    )
    evaluate_at = {-(-n_windows * (i + 1) // optimization.evaluations) for i in range(optimization.evaluations)}

    def save() -> Path:
        measured = Measured(meter.losses, meter.n_steps)
        return save_checkpoint(run.checkpoints, accelerator, model, averaged, optimizer, schedule, progress, measured)

    def end_if(stopping: bool) -> None:
        if stopping:
            told = f"stopped; saved to {save()}: the same command goes on from there"
            raise StoppedError(told, stop.exit_status or 143)

    network.train()  # pretrained models come in evaluation mode
    with StopRequest() as stop, bar:
        if progress.step_in_epoch in evaluate_at and progress.evaluated_step < progress.step:
            end_if(not _evaluate(engine, progress, stop))  # the run was stopped before or within this evaluation
        before = time.perf_counter()
        for epoch in range(progress.epoch, optimization.epochs):
            plans = plan_epoch(task.lengths, optimization.batch_size, seed, epoch)
            windows = step_windows(
                task,
                plans,
                accelerator,
                k,
                progress.step_in_epoch,
                optimization.batch_pieces,
                hardware.loader_workers,
            )
            for window in windows:
                n_words, stopping = _step(engine, window, stop.requested, meter, progress)
                progress.step, progress.step_in_epoch = progress.step + 1, progress.step_in_epoch + 1
                progress.n_words += n_words
                bar.update()
                before, progress.seconds = time.perf_counter(), progress.seconds + time.perf_counter() - before
                if progress.step % optimization.log_steps == 0:
                    meter = _log(engine, progress, meter)
                if not stopping and progress.step_in_epoch in evaluate_at:
                    stopping = not _evaluate(engine, progress, stop)
                    before = meter.started = time.perf_counter()  # training time alone is counted
                end_if(stopping)
                if checkpoint.steps and progress.step % checkpoint.steps == 0:
                    save()
            progress.epoch, progress.step_in_epoch = epoch + 1, 0
        if checkpoint.steps:
            save()  # what follows, the scoring of the result, may take long, too
    if not task.keep_best and accelerator.is_main_process:
        task.keep(engine.result)
    accelerator.wait_for_everyone()
    return progress


def _step(
    engine: _Engine[Batch],
    window: Sequence[tuple[Batch, float]],
    stop_requested: bool,
    meter: _Meter,
    progress: Progress,
) -> tuple[int, bool]:
    """One optimizer step; gives the words of all processes, and whether any of them was asked to stop."""
    accelerator, task = engine.accelerator, engine.task
    counts, n_words, stopping = step_counts(accelerator, task, window, stop_requested)
    shares = torch.tensor(task.shares, device=accelerator.device)
    scale = shares * accelerator.num_processes / counts.clamp_min(1.0)
    for number, (batch, real) in enumerate(window):
        last = number == len(window) - 1
        with nullcontext() if last else accelerator.no_sync(engine.network):
            sums = task.loss_sums(engine.network, batch) * real
            accelerator.backward((sums * scale).sum())
        meter.losses += sums.detach() / counts.clamp_min(1.0)
    # Without a bound nothing is clipped: the norm alone is wanted.
    norm = accelerator.clip_grad_norm_(engine.network.parameters(), engine.clip_norm or float("inf"))
    _refuse_non_finite(engine, meter.losses, norm, progress)
    engine.optimizer.step()
    progress.n_skipped = progress.n_skipped + 1 if accelerator.optimizer_step_was_skipped else 0
    if not accelerator.optimizer_step_was_skipped:
        engine.schedule.step()
        if engine.averaged is not None:
            engine.averaged.update_parameters(engine.model)
    engine.optimizer.zero_grad()
    meter.n_words, meter.n_steps = meter.n_words + n_words, meter.n_steps + 1
    return n_words, stopping


def _refuse_non_finite(engine: _Engine[Batch], losses: Tensor, norm: Tensor | None, progress: Progress) -> None:
    """End the run before an update with numbers that are none; all processes do, since they share the gradient."""
    where = f"step {progress.step + 1} (epoch {progress.epoch + 1})"
    ways_out = "Lower optimization.learning_rate, or set hardware.precision=fp32"
    if engine.accelerator.scaler is not None:  # it leaves such steps out, and tries a smaller scale
        if progress.n_skipped >= MOST_SKIPPED:
            raise RunError(
                f"{where}: {progress.n_skipped} steps in a row had a gradient beyond the range of fp16 at a learning "
                f"rate of {_rate(engine):.2g}. {ways_out}"
            )
        return
    if torch.isfinite(losses).all() and (norm is None or torch.isfinite(norm)):
        return
    names = [name for name, loss in zip(engine.task.terms, losses.tolist(), strict=True) if not np.isfinite(loss)]
    what = f"the loss of {', '.join(names)}" if names else "the gradient"
    raise RunError(
        f"{where}: {what} is not finite at a learning rate of {_rate(engine):.2g}; nothing was updated. {ways_out}"
    )


def _log(engine: _Engine[Batch], progress: Progress, meter: _Meter) -> _Meter:
    """Write a line of metrics.jsonl, show the same, and begin a new meter."""
    task = engine.task
    losses = (engine.accelerator.reduce(meter.losses, "sum") / meter.n_steps).tolist()
    total = sum(share * loss for share, loss in zip(task.shares, losses, strict=True))
    speed = meter.n_words / (time.perf_counter() - meter.started)
    numbers = {
        "loss": round(total, 6),
        **{f"loss_{name}": round(loss, 6) for name, loss in zip(task.terms, losses, strict=True)},
        "learning_rate": _rate(engine),
        "words_per_second": round(speed, 1),
    }
    engine.run.log({"step": progress.step, "epoch": progress.epoch + 1, **numbers})
    engine.tracker(numbers, progress.step)
    best = {task.score_name: f"{progress.best_score:.2f}"} if progress.best_step >= 0 else {}
    engine.bar.set_postfix({"loss": f"{total:.3f}", "words": f"{speed:.0f}/s", **best}, refresh=False)
    return _Meter(torch.zeros_like(meter.losses))


def _evaluate(engine: _Engine[Batch], progress: Progress, stop: StopRequest) -> bool:
    """Score the model, and keep it if it is the best; False if a stop was requested before the score was there."""
    task = engine.task
    engine.network.eval()
    try:
        with stop.leaves(engine.result):
            score, details = task.evaluate(engine.result)
    except Interrupted:
        return False
    finally:
        engine.network.train()
    engine.run.log({"step": progress.step, "epoch": progress.epoch + 1, task.score_name: round(score, 3), **details})
    engine.tracker({task.score_name: score}, progress.step)
    if score > progress.best_score:
        progress.best_score, progress.best_step = score, progress.step
        if task.keep_best and engine.accelerator.is_main_process:
            task.keep(engine.result)
    progress.evaluated_step = progress.step
    engine.accelerator.wait_for_everyone()
    engine.bar.set_postfix({task.score_name: f"{score:.2f}"}, refresh=False)
    return True


def _rate(engine: _Engine[Batch]) -> float:
    return float(engine.schedule.get_last_lr()[0])


# The loop as a recipe asks for it: what all jobs hand over to `fit` alike.


def fit_recipe(
    accelerator: Accelerator,
    model: nn.Module,
    task: Task[Any],
    run: RunFolder,
    recipe: TeacherRecipe | DistillRecipe | AdaptRecipe,
    depends_on: Mapping[str, str],
) -> Progress:
    """Train as a recipe says; arguments and errors as for `fit`."""
    return fit(
        accelerator,
        model,
        task,
        run,
        seed=recipe.seed,
        optimization=recipe.optimization,
        hardware=recipe.hardware,
        checkpoint=recipe.checkpoint,
        tracker=make_tracker(accelerator, recipe),
        depends_on=depends_on,
    )
