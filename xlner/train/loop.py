"""The one training loop, for teachers and students, on one process or many.

A step takes several micro-batches on every process. Each loss term is the exact mean over all positions of the
step: sums are divided by the count of the whole step, added up over micro-batches and processes, so that neither
gradient accumulation nor the number of processes changes the gradient.
"""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PreTrainedModel

from xlner.config.schema import CheckpointRecipe, HardwareRecipe, OptimizationRecipe
from xlner.errors import CorpusError, RecipeError, RunError, StoppedError, first_line
from xlner.models.frozen import computed_once
from xlner.models.inference import TokenBatch
from xlner.train.batches import Plan, parts_within, plan_epoch
from xlner.train.checkpoint import (
    KEPT,
    Change,
    Measured,
    Progress,
    check_space,
    chosen_checkpoint,
    decide,
    forget_checkpoints_after,
    load_checkpoint,
    random_state,
    read_progress,
    save_checkpoint,
    set_random_state,
    state_changes,
)
from xlner.train.objectives import Batch, Objective
from xlner.train.run import Interrupted, RunFolder, StopRequest, autocast_dtype
from xlner.train.sharding import check_shards, dealt, gathered, whole_weights

LOG = logging.getLogger("xlner")

MOST_SKIPPED = 50  # steps in a row that the scaler of fp16 may leave out; at the start of a run it needs some


class TrainingKeys(Protocol):
    """The keys of a recipe that the loop looks at; all jobs have them."""

    @property
    def seed(self) -> int:
        """Of batches and dropout."""

    @property
    def trackers(self) -> str:
        """Where numbers go, too."""

    @property
    def optimization(self) -> OptimizationRecipe:
        """How long and how fast."""

    @property
    def hardware(self) -> HardwareRecipe:
        """Where and how exactly."""

    @property
    def checkpoint(self) -> CheckpointRecipe:
        """When the state is saved, and what a restart does."""


# What a step is taken with.


def make_optimizer(model: nn.Module, recipe: OptimizationRecipe) -> Optimizer:
    """AdamW with one learning rate for the encoder and one for the heads; frozen weights are left out.

    Biases and normalisation weights (everything of one dimension) are not decayed.

    Raises:
        RecipeError: If the package of the optimizer is not installed.
    """
    networks = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    in_encoder = {id(parameter) for network in networks for parameter in network.base_model.parameters()}
    groups: list[dict[str, Any]] = []
    for rate, encoder in ((recipe.learning_rate, True), (recipe.head_learning_rate, False)):
        members = [p for p in model.parameters() if p.requires_grad and (id(p) in in_encoder) is encoder]
        for decay, decayed in ((recipe.weight_decay, True), (0.0, False)):
            chosen = [parameter for parameter in members if (parameter.dim() > 1) is decayed]
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    if recipe.optimizer == "adamw":
        return AdamW(groups, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit  # takes seconds
    except ImportError as problem:
        raise RecipeError(
            f"optimization.optimizer={recipe.optimizer}: needs the package bitsandbytes; pip install bitsandbytes"
        ) from problem
    return cast(Optimizer, (AdamW8bit if recipe.optimizer == "adamw_8bit" else PagedAdamW8bit)(groups))


def make_schedule(optimizer: Optimizer, recipe: OptimizationRecipe, n_steps: int) -> LambdaLR:
    """Linear warm-up, then the decay of the recipe down to 0 at step `n_steps`."""
    n_warmup = max(1, round(recipe.warmup_ratio * n_steps))

    def factor(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / n_warmup
        progress = min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))
        return {"linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)), "constant": 1.0}[
            recipe.decay
        ]

    return LambdaLR(optimizer, factor)


def make_tracker(accelerator: Accelerator, name: str, *, trackers: str) -> Callable[[dict[str, float], int], None]:
    """Where numbers go beside metrics.jsonl: the trackers that were asked for, which know the run by its name.

    Raises:
        RunError: If one does not start, as without a login or a data base.
    """
    if not trackers:
        return lambda numbers, step: None
    try:
        accelerator.init_trackers("xlner", init_kwargs={"wandb": {"name": name}, "mlflow": {"run_name": name}})
    except Exception as problem:  # each package has its own kinds
        raise RunError(f"trackers={trackers}: does not start: {first_line(problem)}") from problem
    return lambda numbers, step: accelerator.log(numbers, step=step)


# What tells how good the network is so far, and keeps it.


class Validation(ABC):
    """Scores a network while it trains, and keeps the one that shall be the result.

    Attributes:
        score_name: What the score is called in metrics.jsonl.
        keeps_best: Whether the network of the best score is kept; else that of the last step.
    """

    score_name: str
    keeps_best: bool = True

    @abstractmethod
    def score(self, network: Any) -> tuple[float, dict[str, Any]]:
        """In percent, the higher the better, and what else is worth a line; every process calls it."""

    @abstractmethod
    def keep(self, network: Any) -> None:
        """Write the model folder; called in the main process alone."""


# The micro-batches that the steps of a run are made of, on one process or many.


class _Batches(Dataset[Any]):
    """The micro-batches of one process, made when asked for; a second value tells padding (0.0) from real (1.0)."""

    def __init__(self, objective: Objective[Any], plans: Sequence[tuple[Plan, float]]) -> None:
        self._objective, self._plans = objective, plans

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, number: int) -> tuple[Any, float]:
        plan, real = self._plans[number]
        return self._objective.batch(plan), real


def step_batches(
    objective: Objective[Batch],
    plans: Sequence[Plan],
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
    in_parts = objective.in_parts and batch_pieces > 0

    def parts(place: int) -> list[tuple[Plan, float]]:
        plan = plans[place] if place < len(plans) else plans[0]
        found = parts_within(plan, objective.lengths, batch_pieces) if in_parts else [plan]
        return [(part, 1.0) for part in found] if place < len(plans) else [(found[0], 0.0)]

    n_steps = -(-len(plans) // (k * n))

    def of_process(number: int, step: int) -> list[tuple[Plan, float]]:
        return [part for j in range(k) for part in parts((step * k + j) * n + number)]

    steps = [of_process(rank, step) for step in range(skip, n_steps)]
    if accelerator.is_fsdp2:  # every pass meets the others
        for number, own in enumerate(steps, start=skip):
            longest = max(len(of_process(other, number)) for other in range(n))
            own += [(own[0][0], 0.0)] * (longest - len(own))
    # The generator is the loader's own: without one it would draw from the global one, which dropout uses, and a
    # resumed run would differ from one that was never stopped.
    loader = DataLoader(
        _Batches(objective, list(chain.from_iterable(steps))),
        batch_size=None,
        num_workers=n_workers,
        generator=torch.Generator().manual_seed(0),
    )
    batches = iter(loader)
    for own in steps:
        yield [send_to_device(item, accelerator.device, non_blocking=True) for item in islice(batches, len(own))]


def step_counts(
    accelerator: Accelerator, objective: Objective[Batch], batches: Sequence[tuple[Batch, float]], stop_requested: bool
) -> tuple[Tensor, int, bool]:
    """Over all micro-batches and processes: positions of each term, words, and whether anyone was asked to stop.

    One reduction carries all three, so that every process stops after the same step.
    """
    found = [0.0] * (len(objective.terms) + 2)
    for batch, real in batches:
        counts = objective.counts(batch)
        for place, number in enumerate([*(counts[name] for name in objective.terms), len(batch.tokens.words)]):
            found[place] += number * real
    found[-1] = float(stop_requested)
    total = accelerator.reduce(torch.tensor(found, dtype=torch.float64, device=accelerator.device), "sum")
    return total[:-2].float(), int(total[-2]), bool(total[-1] > 0)


# The loop itself.


def fit(
    accelerator: Accelerator,
    network: nn.Module,
    objective: Objective[Any],
    validation: Validation,
    run: RunFolder,
    keys: TrainingKeys,
    depends_on: Mapping[str, str],
) -> Progress:
    """Train until the epochs are done; go on from the newest checkpoint of the run where there is one.

    Args:
        accelerator: Of all processes.
        network: Is trained in place.
        objective: What it is trained on.
        validation: How good it is, and what is kept.
        run: Where it is written to.
        keys: Of the recipe.
        depends_on: Fingerprints of what the recipe names, by name: a checkpoint of something else is refused.

    Raises:
        CorpusError: If there is nothing to train on.
        RunError: If a loss or a gradient is not finite, the checkpoints are damaged or of something else, or the disk
            refuses or has no room.
        StoppedError: After SIGINT or SIGTERM, once the state has been saved.
    """
    if not len(objective.lengths):
        raise CorpusError("nothing to train on: the tokenizer makes nothing of any word of the text")
    loop = _Loop(accelerator, network, objective, validation, run, keys, depends_on)
    with _frozen_layers_once(accelerator, network, objective, run, keys):
        return loop.train()


def _frozen_layers_once(
    accelerator: Accelerator, network: nn.Module, objective: Objective[Any], run: RunFolder, keys: TrainingKeys
) -> AbstractContextManager[Any]:
    """Looks up what frozen layers say, where that is worth while: each process would have to store the whole text."""
    optimization, lengths = keys.optimization, objective.lengths
    if optimization.epochs == 1 or accelerator.num_processes > 1 or accelerator.is_fsdp2 or not objective.same_pieces:
        return nullcontext()

    def batches() -> Iterator[TokenBatch]:  # nothing is planned where no layer is frozen
        # Those of the first epoch, also where a run goes on: the same numbers, to the last bit.
        plans = plan_epoch(lengths, optimization.batch_size, keys.seed, 0)
        bound = optimization.batch_pieces or int(lengths.max()) * optimization.batch_size
        parts = [part for plan in plans for part in parts_within(plan, lengths, bound)]
        for part in tqdm(parts, "frozen layers", unit="batch", leave=False, disable=None, dynamic_ncols=True):
            yield objective.batch(part).tokens

    return computed_once(
        network,
        batches(),
        int(lengths.sum()),
        run.path,
        device=accelerator.device,
        autocast_dtype=autocast_dtype(accelerator.mixed_precision),
    )


class _Loop(Generic[Batch]):
    """The parts that turn together, and where they stand."""

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        objective: Objective[Batch],
        validation: Validation,
        run: RunFolder,
        keys: TrainingKeys,
        depends_on: Mapping[str, str],
    ) -> None:
        """Make optimizer and schedule, and go where the newest checkpoint stands; arguments as for `fit`."""
        self._accelerator, self._run, self._keys = accelerator, run, keys
        self._objective, self._validation, self._model = objective, validation, network
        optimization, n_processes = keys.optimization, accelerator.num_processes
        n_batches = len(plan_epoch(objective.lengths, optimization.batch_size, keys.seed, 0))
        self._epoch_steps = -(-n_batches // (optimization.accumulation * n_processes))
        self._n_steps = self._epoch_steps * optimization.epochs
        if accelerator.is_fsdp2:
            check_shards(network, optimization.optimizer)
        if optimization.optimizer == "paged_adamw_8bit" and accelerator.device.type != "cuda":
            raise RecipeError(
                "optimization.optimizer=paged_adamw_8bit: pages out of a GPU, here is none; set adamw_8bit"
            )
        optimizer = make_optimizer(network, optimization)
        self._schedule = make_schedule(optimizer, optimization, self._n_steps)
        self._copy = deepcopy(network) if accelerator.is_fsdp2 else None  # before it becomes shards
        # What Accelerate wraps is trained; the network itself is scored, kept and saved.
        self._network, self._optimizer = accelerator.prepare(network, optimizer)
        set_seed(keys.seed, device_specific=True)  # processes hold one network but drop out different units
        n_checkpoints = KEPT + 1 if keys.checkpoint.steps else 1
        decide(accelerator, lambda: check_space(run.checkpoints, network, n_checkpoints=n_checkpoints))
        self._progress = Progress(
            n_processes=n_processes,
            micro_batches=n_processes * optimization.accumulation,
            depends_on=dict(depends_on),
        )
        self._shares = torch.tensor(list(objective.terms.values()), device=accelerator.device)
        self._start_meter()
        if found := chosen_checkpoint(run.checkpoints, keys.checkpoint.resume, accelerator):
            self._go_on_from(found)
        run.forget_after(self._progress.step)
        self._track = make_tracker(accelerator, run.path.name, trackers=keys.trackers)
        self._bar = tqdm(
            total=self._n_steps,
            initial=self._progress.step,
            unit="step",
            disable=not run.writes,
            dynamic_ncols=True,
        )

    def train(self) -> Progress:
        """Go through the epochs that are left; errors as for `fit`."""
        keys, progress, per_epoch = self._keys, self._progress, self._keys.optimization.evaluations
        evaluate_at = {-(-self._epoch_steps * (i + 1) // per_epoch) for i in range(per_epoch)}
        self._network.train()  # pretrained models come in evaluation mode
        self._meter_started = time.perf_counter()
        with StopRequest() as stop, self._bar:
            if progress.step_in_epoch in evaluate_at and progress.evaluated_step < progress.step:
                # The run was stopped before or within this evaluation.
                self._end_if(not self._evaluate(stop), stop)
            for epoch in range(progress.epoch, keys.optimization.epochs):
                before = time.perf_counter()
                for batches in self._steps():
                    stopping = self._step(batches, stop.requested)
                    before, progress.seconds = time.perf_counter(), progress.seconds + time.perf_counter() - before
                    if progress.step % keys.optimization.log_steps == 0:
                        self._log()
                    if not stopping and progress.step_in_epoch in evaluate_at:
                        stopping = not self._evaluate(stop)
                        before = self._meter_started = time.perf_counter()  # training time alone is counted
                    self._end_if(stopping, stop)
                    if keys.checkpoint.steps and progress.step % keys.checkpoint.steps == 0:
                        self._save()
                progress.epoch, progress.step_in_epoch = epoch + 1, 0
            if keys.checkpoint.steps:
                self._save()  # what follows, the scoring of the result, may take long, too
        if not self._validation.keeps_best:
            self._keep()
        self._accelerator.wait_for_everyone()
        return progress

    def _steps(self) -> Iterator[list[tuple[Batch, float]]]:
        """The micro-batches of each step of this epoch that is still to be taken, in the parts of now."""
        optimization, progress = self._keys.optimization, self._progress
        plans = plan_epoch(self._objective.lengths, optimization.batch_size, self._keys.seed, progress.epoch)
        while progress.step_in_epoch < self._epoch_steps:
            bound = self._batch_pieces
            for batches in step_batches(
                self._objective,
                plans,
                self._accelerator,
                optimization.accumulation,
                progress.step_in_epoch,
                bound,
                self._keys.hardware.loader_workers,
            ):
                yield batches
                if self._batch_pieces != bound:  # memory ran out
                    break

    @property
    def _batch_pieces(self) -> int:
        """The bound of the recipe, or the lower one that memory left; 0: none."""
        return min(filter(None, (self._progress.batch_pieces, self._keys.optimization.batch_pieces)), default=0)

    def _step(self, batches: Sequence[tuple[Batch, float]], stop_requested: bool) -> bool:
        """One optimizer step; gives whether any process was asked to stop.

        Where memory runs out on the way, it is taken anew in smaller parts, as if it had never been tried.
        """
        accelerator, progress = self._accelerator, self._progress
        counts, n_words, stopping = step_counts(accelerator, self._objective, batches, stop_requested)
        losses, random_numbers = self._losses.clone(), random_state()
        if failure := self._find_gradients(batches, counts.clamp_min(1.0)):
            self._lower_batch_pieces(batches, failure)
            self._losses.copy_(losses)
            set_random_state(random_numbers)
            return self._step(next(self._steps()), stop_requested)
        # Without a bound nothing is clipped: the norm alone is wanted.
        norm = gathered(
            accelerator.clip_grad_norm_(self._network.parameters(), self._keys.optimization.clip_norm or float("inf"))
        )
        self._refuse_non_finite(norm)
        self._optimizer.step()
        progress.n_skipped = progress.n_skipped + 1 if accelerator.optimizer_step_was_skipped else 0
        if not accelerator.optimizer_step_was_skipped:
            self._schedule.step()
        self._optimizer.zero_grad()
        progress.step, progress.step_in_epoch = progress.step + 1, progress.step_in_epoch + 1
        progress.n_words += n_words
        self._meter_words += n_words
        self._meter_steps += 1
        self._bar.update()
        return stopping

    def _find_gradients(self, batches: Sequence[tuple[Batch, float]], counts: Tensor) -> str:
        """Add up gradients and losses of a step; gives what was told where memory ran out, else nothing."""
        accelerator, objective = self._accelerator, self._objective
        scale = self._shares * accelerator.num_processes / counts
        try:
            for number, (batch, real) in enumerate(batches):
                last = number == len(batches) - 1
                with nullcontext() if last else accelerator.no_sync(self._network):
                    with accelerator.autocast() if accelerator.is_fsdp2 else nullcontext():  # else it is in the network
                        found = objective.loss_sums(self._network, batch)
                    sums = torch.stack([found[name] for name in objective.terms]) * real
                    accelerator.backward((sums * scale).sum())
                self._losses += sums.detach() / counts
        except RuntimeError as problem:
            if not should_reduce_batch_size(problem):
                raise
            return first_line(problem)  # no more of it: what it holds keeps the memory
        return ""

    def _lower_batch_pieces(self, batches: Sequence[tuple[Batch, float]], failure: str) -> None:
        """Halve what is computed at a time, from what this step has; the step's result stays the same.

        Raises:
            RunError: If there is nothing to halve, or other processes would wait for this one.
        """
        progress, bound = self._progress, self._batch_pieces
        where = f"step {progress.step + 1} (epoch {progress.epoch + 1}): out of memory"
        ways_out = "less is needed by optimization.gradient_checkpointing=true, optimization.lora=8, a smaller encoder"
        if not self._objective.in_parts:
            raise RunError(f"{where}, and this loss takes batches whole: {failure}. Lower optimization.batch_size")
        largest = max(batch.tokens.input_ids.numel() for batch, _ in batches)
        lowered = largest // 2
        if lowered < self._objective.lengths.max() or 0 < bound <= lowered:
            raise RunError(f"{where} with {largest} pieces, the fewest at a time: {failure}. {ways_out}")
        if self._accelerator.num_processes > 1:
            raise RunError(f"{where}: {failure}. Set optimization.batch_pieces={lowered}, or less; {ways_out}")
        progress.batch_pieces = lowered
        self._optimizer.zero_grad()
        clear_device_cache(garbage_collection=True)
        self._run.note_change(Change("optimization.batch_pieces", str(bound), str(lowered)))
        LOG.warning(
            f"{where} with {largest} pieces; goes on with optimization.batch_pieces={lowered}, at the same result"
        )

    def _refuse_non_finite(self, norm: Tensor | None) -> None:
        """End the run before an update with numbers that are none; all processes do, since they share the gradient."""
        progress = self._progress
        where = f"step {progress.step + 1} (epoch {progress.epoch + 1})"
        ways_out = "Lower optimization.learning_rate, or set hardware.precision=fp32"
        if self._accelerator.scaler is not None:  # it leaves such steps out, and tries a smaller scale
            if progress.n_skipped >= MOST_SKIPPED:
                raise RunError(
                    f"{where}: {progress.n_skipped} steps in a row had a gradient beyond the range of fp16 at a "
                    f"learning rate of {self._rate:.2g}. {ways_out}"
                )
            return
        if torch.isfinite(self._losses).all() and (norm is None or torch.isfinite(norm)):
            return
        losses = zip(self._objective.terms, self._losses.tolist(), strict=True)
        names = [name for name, loss in losses if not np.isfinite(loss)]
        what = f"the loss of {', '.join(names)}" if names else "the gradient"
        raise RunError(
            f"{where}: {what} is not finite at a learning rate of {self._rate:.2g}; nothing was updated. {ways_out}"
        )

    def _start_meter(self, measured: Measured | None = None) -> None:
        """Begin to sum up what the next line of metrics.jsonl tells, or go on with what a checkpoint held."""
        device = self._accelerator.device
        self._losses = torch.zeros(len(self._objective.terms), device=device)
        self._meter_words, self._meter_started = 0, time.perf_counter()
        self._meter_steps = 0
        if measured is not None and len(measured.losses) == len(self._losses):  # version 0.2.0 had other terms
            self._losses, self._meter_steps = measured.losses.to(device), measured.n_steps

    def _log(self) -> None:
        """Write a line of metrics.jsonl, show the same, and begin a new meter."""
        terms, progress = self._objective.terms, self._progress
        losses = (self._accelerator.reduce(self._losses, "sum") / self._meter_steps).tolist()
        total = sum(share * loss for share, loss in zip(terms.values(), losses, strict=True))
        speed = self._meter_words / (time.perf_counter() - self._meter_started)
        numbers = {
            "loss": round(total, 6),
            **{f"loss_{name}": round(loss, 6) for name, loss in zip(terms, losses, strict=True)},
            "learning_rate": self._rate,
            "words_per_second": round(speed, 1),
        }
        self._run.log({"step": progress.step, "epoch": progress.epoch + 1, **numbers})
        self._track(numbers, progress.step)
        best = {self._validation.score_name: f"{progress.best_score:.2f}"} if progress.best_step >= 0 else {}
        self._bar.set_postfix({"loss": f"{total:.3f}", "words": f"{speed:.0f}/s", **best}, refresh=False)
        self._start_meter()

    def _evaluate(self, stop: StopRequest) -> bool:
        """Score the network, and keep it if it is the best; False if a stop came before the score."""
        validation, progress = self._validation, self._progress
        self._network.eval()
        try:
            with whole_weights(self._model), stop.leaves(self._model):
                score, details = validation.score(self._model)
        except Interrupted:
            return False
        finally:
            self._network.train()
        name = validation.score_name
        self._run.log({"step": progress.step, "epoch": progress.epoch + 1, name: round(score, 3), **details})
        self._track({name: score}, progress.step)
        if score > progress.best_score:
            progress.best_score, progress.best_step = score, progress.step
            if validation.keeps_best:
                self._keep()
        progress.evaluated_step = progress.step
        self._accelerator.wait_for_everyone()
        self._bar.set_postfix({name: f"{score:.2f}"}, refresh=False)
        return True

    def _keep(self) -> None:
        whole = self._whole_network()
        if self._accelerator.is_main_process:
            self._validation.keep(whole)

    def _whole_network(self) -> nn.Module:
        """The network, or where it is in shards its copy with the weights of now; every process calls it."""
        if self._copy is not None:
            self._copy.load_state_dict(gathered(self._model.state_dict()))
        return self._copy or self._model

    def _save(self) -> Path:
        measured = Measured(self._losses, self._meter_steps)
        return save_checkpoint(
            self._run.checkpoints,
            self._accelerator,
            self._whole_network(),
            self._optimizer,
            self._schedule,
            self._progress,
            measured,
        )

    def _go_on_from(self, checkpoint: Path) -> None:
        """Take up the state of a checkpoint of this run."""
        before, now = read_progress(checkpoint), self._progress
        for change in state_changes(checkpoint, before, now, self._run.allowed_changes):
            self._run.note_change(change)
        whole = self._copy or self._model
        measured = load_checkpoint(checkpoint, self._accelerator, whole, self._optimizer, self._schedule)
        if whole is not self._model:
            weights = whole.state_dict()
            own = self._model.state_dict()
            self._model.load_state_dict({name: dealt(weights[name], shard) for name, shard in own.items()})
        self._start_meter(measured)
        self._progress = replace(
            before, n_processes=now.n_processes, micro_batches=now.micro_batches, depends_on=now.depends_on
        )
        LOG.info(f"going on from {checkpoint}")
        if self._run.writes and self._names_checkpoint:
            forget_checkpoints_after(checkpoint)

    def _end_if(self, stopping: bool, stop: StopRequest) -> None:
        if stopping:
            command = f"{'with checkpoint.resume=auto ' if self._names_checkpoint else ''}the same command"
            told = f"stopped; saved to {self._save()}: {command} goes on from there"
            raise StoppedError(told, stop.exit_status or 143)

    @property
    def _names_checkpoint(self) -> bool:
        return self._keys.checkpoint.resume not in ("auto", "never")

    @property
    def _rate(self) -> float:
        return float(self._schedule.get_last_lr()[0])
