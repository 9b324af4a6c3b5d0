"""Checkpoints: all that a stopped run needs to go on as if it had never stopped, and what may differ when it does."""

import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from xlner.errors import RecipeError, RunError, disk_errors
from xlner.files import folder_damage, published_folder, remove_folder
from xlner.train.sharding import dealt, gathered

LOG = logging.getLogger("xlner")

# `checkpoints/step-N/` holds the weights (`model.safetensors`), the optimizer, schedule and random states (`state.pt`,
# read with `weights_only`), where the run stood and what it was made of (`progress.json`), and a manifest of these. It
# appears whole or not at all; the newest two are kept, and an older one is removed only when a newer one has been read
# back.


KEPT = 2
T = TypeVar("T")


class Measured(NamedTuple):
    """Losses of each term, (T,), summed up by one process over so many steps."""

    losses: torch.Tensor
    n_steps: int


@dataclass
class Progress:
    """Where a run stands. Steps count optimizer steps; `seconds` is time spent training, over all starts.

    `evaluated_step` is the last one after which the model was scored. `n_skipped` counts the steps that the scaler of
    fp16 left out, those since the last one that it did not. `depends_on` names what the run depends on beside its
    recipe: fingerprints of corpora, labels, teachers. `micro_batches` is how many a step has, on all processes.
    `batch_pieces` is the bound that memory left, where it ran out; 0: that of the recipe.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    evaluated_step: int = 0
    best_score: float = -1.0
    best_step: int = -1
    n_processes: int = 1
    micro_batches: int = 1
    seconds: float = 0.0
    n_words: int = 0
    n_skipped: int = 0
    batch_pieces: int = 0
    depends_on: dict[str, str] = field(default_factory=dict)


def decide(accelerator: Accelerator, job: Callable[[], T]) -> T:
    """Have the main process do something; what it gives comes in all processes, and so does its error.

    Otherwise the others would wait for one that is gone.

    Raises:
        RunError: In all processes, if the job did.
    """
    answer: list[Any] = [None, ""]
    if accelerator.is_main_process:
        try:
            answer[0] = job()
        except RunError as problem:
            answer[1] = str(problem)
    broadcast_object_list(answer)
    if answer[1]:
        raise RunError(answer[1])
    return cast(T, answer[0])


def check_space(folder: Path, model: nn.Module, *, n_checkpoints: int) -> None:
    """Refuse to begin a run whose checkpoints and result the disk cannot hold.

    Args:
        folder: Where they will lie; it need not be there yet.
        model: What is trained, and saved in float32 with the two moments of AdamW.
        n_checkpoints: How many there will be at the same time.

    Raises:
        RunError: With what is free and what is needed.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    trained = sum(4 * parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    needed = n_checkpoints * (weights + 2 * trained) + 2 * weights  # the result, old and new
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    found = sum(path.stat().st_size for path in folder.glob("step-*/*")) if folder.is_dir() else 0
    free = shutil.disk_usage(place).free
    if free + found < needed:
        raise RunError(
            f"{folder}: {free / 1e9:,.1f} GB are free, and the run needs {(needed - found) / 1e9:,.1f} GB for "
            f"{n_checkpoints} checkpoint(s) and its result; free some, or give run= on another disk"
        )


def save_checkpoint(
    folder: Path,
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LambdaLR,
    progress: Progress,
    measured: Measured,
) -> Path:
    """Save the state of all processes; every process must call it.

    Args:
        folder: Of the run's checkpoints.
        accelerator: As for the other state, which every process has alike.
        model: See there.
        optimizer: See there.
        schedule: See there.
        progress: See there.
        measured: What this process has summed up since the last line of metrics.jsonl.

    Raises:
        RunError: In all processes, if the disk refuses.
    """
    moments = gathered(optimizer.state_dict())
    own_states = gather_object([{**random_state(), "losses": measured.losses.cpu(), "steps": measured.n_steps}])
    target = folder / f"step-{progress.step}"

    def save() -> None:
        if target.exists() and not folder_damage(target):
            return
        state: dict[str, Any] = {
            "optimizer": moments,
            "schedule": schedule.state_dict(),
            "processes": own_states,
        }
        if accelerator.scaler is not None:
            state["scaler"] = accelerator.scaler.state_dict()
        try:
            _write(target, model, state, progress)
        except (OSError, RuntimeError, SafetensorError) as failure:  # torch and safetensors have their own errors
            reason = getattr(failure, "strerror", None) or str(failure).splitlines()[0]
            raise RunError(
                f"{target}: cannot be saved: {reason}; the checkpoints before it are as they were"
            ) from failure

    decide(accelerator, save)
    return target


def _write(target: Path, model: nn.Module, state: dict[str, Any], progress: Progress) -> None:
    if target.exists():
        shutil.rmtree(target)  # damaged, and made anew
    with published_folder(target) as unfinished:
        save_model(model, str(unfinished / "model.safetensors"))  # weights of two names are written once
        torch.save(state, unfinished / "state.pt")
        (unfinished / "progress.json").write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
    if found := folder_damage(target):
        raise OSError(f"read back, it differs: {found}")
    for old in checkpoints(target.parent)[:-KEPT]:
        remove_folder(old)


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first by step."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdigit() and not path.is_symlink()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def forget_checkpoints_after(path: Path) -> None:
    """Remove the checkpoints behind one that a run goes on from: they are of an attempt that it leaves.

    Raises:
        RunError: If the disk refuses.
    """
    own = checkpoints(path.parent)
    for later in own[own.index(path) + 1 :]:
        LOG.info(f"{later}: of the attempt before, removed")
        with disk_errors(later):
            remove_folder(later)


def chosen_checkpoint(folder: Path, resume: str, accelerator: Accelerator) -> Path | None:
    """The checkpoint to go on from, the same in every process; None if the run has none at all.

    Args:
        folder: Of the run's checkpoints.
        resume: The path of one of them; otherwise it is the newest that is whole, and damaged ones are named.
        accelerator: Of all processes.

    Raises:
        RunError: If the one that is named is damaged or none of the run's, or all that there are are damaged.
    """
    if resume in ("auto", "never"):
        return decide(accelerator, lambda: _newest_checkpoint(folder))
    return decide(accelerator, lambda: _named_checkpoint(folder, Path(resume)))


def _named_checkpoint(folder: Path, path: Path) -> Path:
    own = checkpoints(folder)
    for found in own:
        if found.resolve() == path.resolve():
            if problem := folder_damage(found):
                raise RunError(f"checkpoint.resume: {problem}")
            return found
    known = f"it has {', '.join(map(str, own))}; auto takes the last one" if own else "it has none yet"
    raise RunError(f"checkpoint.resume: {path} is no checkpoint of this run; {known}")


def _newest_checkpoint(folder: Path) -> Path | None:
    damaged: list[str] = []
    for path in reversed(checkpoints(folder)):
        if not (problem := folder_damage(path)):
            for told in damaged:
                LOG.warning(f"damaged, an older checkpoint is used: {told}")
            return path
        damaged.append(problem)
    if damaged:
        raise RunError(f"no checkpoint is whole: {'; '.join(damaged)}. Remove {folder} to begin anew")
    return None


def read_progress(path: Path) -> Progress:
    """Where the run stood when a checkpoint was made."""
    fields = json.loads((path / "progress.json").read_text(encoding="utf-8"))
    if "made_of" in fields:  # as version 0.1.0 called it
        fields["depends_on"] = fields.pop("made_of")
    return Progress(**fields)


def load_checkpoint(
    path: Path,
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LambdaLR,
) -> Measured:
    """Bring everything back to where it stood, in every process; the settings of the optimizer are those of now.

    Returns:
        What this process had summed up since the last line of metrics.jsonl.

    Raises:
        RunError: If the checkpoint does not fit the network.
    """
    try:
        load_model(model, path / "model.safetensors")
        state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        _load_optimizer(optimizer, schedule, state)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as problem:
        reason = str(problem).splitlines()[0]
        raise RunError(f"{path}: does not fit the network of this run: {reason}; give another run=") from problem
    if accelerator.scaler is not None and "scaler" in state:
        accelerator.scaler.load_state_dict(state["scaler"])
    owns = state["processes"]
    if accelerator.process_index >= len(owns):  # a further process begins with its seed, and has seen nothing
        return Measured(torch.zeros_like(owns[0]["losses"]), owns[0]["steps"])
    own = owns[accelerator.process_index]
    set_random_state(own)
    gone = owns[accelerator.num_processes :] if accelerator.is_main_process else []
    return Measured(sum((other["losses"] for other in gone), start=own["losses"]), own["steps"])


def _load_optimizer(optimizer: Optimizer, schedule: LambdaLR, state: Mapping[str, Any]) -> None:
    """Moments and step count of the checkpoint; rates, decay and length of the schedule of the recipe."""
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    rates = list(schedule.base_lrs)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        number: {name: dealt(values, parameters[number]) for name, values in own.items()}
        for number, own in state["optimizer"]["state"].items()
    }
    optimizer.load_state_dict({**state["optimizer"], "state": moments})
    schedule.load_state_dict(state["schedule"])
    schedule.base_lrs = rates
    for group, own, rate, share in zip(optimizer.param_groups, settings, rates, schedule.lr_lambdas, strict=True):
        group.update({**own, "lr": rate * share(schedule.last_epoch)})
    schedule._last_lr = [group["lr"] for group in optimizer.param_groups]


def random_state() -> dict[str, torch.Tensor]:
    """Where the generators of this process stand, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: dict[str, torch.Tensor]) -> None:
    """Have them go on from there."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


# What may differ between a run and the one that goes on with it: nothing, but what `checkpoint.allow_changes` names.
#
# Steps stay steps: what a step is made of, and which outputs the network has, can never change within a run.


# Names beside the keys of the recipe, and what a checkpoint knows of each.
MADE_OF = {"corpus": ("training corpus", "dev corpus", "text"), "teacher": ("teacher",)}
PROCESSES = "processes"
_ACCUMULATION = "optimization.accumulation"
_NEVER = {
    "labels": "the outputs of the network are theirs",
    "labels.map": "the outputs of the network are theirs",
    "optimization.batch_size": "the steps so far were made of other batches",
    _ACCUMULATION: f"it may change along with the number of processes alone, which {PROCESSES} allows",
}


class Change(NamedTuple):
    """Something that was otherwise when the run was begun."""

    name: str
    then: str
    now: str


def allowed_changes(text: str, keys: Collection[str]) -> frozenset[str]:
    """The names in `checkpoint.allow_changes`.

    Args:
        text: Names with commas between them.
        keys: Of the recipe, as in `optimization.epochs`.

    Raises:
        RecipeError: If a name is unknown, or of what can never change.
    """
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    for name in sorted(names):
        if reason := _NEVER.get(name):
            raise RecipeError(f"checkpoint.allow_changes: {name} cannot change within a run: {reason}")
        if name not in {*keys, *MADE_OF, PROCESSES}:
            raise RecipeError(
                f"checkpoint.allow_changes: unknown name {name!r}; expected {', '.join([*MADE_OF, PROCESSES])}, or "
                "keys of the recipe, such as optimization.learning_rate"
            )
    return names


def recipe_changes(before: Mapping[str, str], now: Mapping[str, str], allowed: Collection[str]) -> list[Change]:
    """The keys of two recipes that differ; all that are not allowed are refused.

    Raises:
        RunError: With the first of them.
    """
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    with_processes = {_ACCUMULATION} if PROCESSES in allowed else set()
    if refused := [name for name in names if name not in {*allowed, *with_processes}]:
        told = ", ".join(f"{name}: {now.get(name)}" for name in refused[:5])
        raise RunError(f"unfinished run of another recipe (now different: {told})")
    return [Change(name, before.get(name, "none"), now.get(name, "none")) for name in names]


def state_changes(path: Path, before: Progress, now: Progress, allowed: Collection[str]) -> Iterator[Change]:
    """How the fingerprints and processes of a run differ from those of a checkpoint.

    Args:
        path: Of the checkpoint, for messages.
        before: What stands in it.
        now: Of the run that shall go on from it.
        allowed: Names, as `allowed_changes` gives them.

    Raises:
        RunError: If something differs that is not allowed, or a step would have another size.
    """
    if before.n_processes != now.n_processes:
        if PROCESSES not in allowed:
            raise RunError(
                f"{path}: made by {before.n_processes} processes, now there are {now.n_processes}; resume with as many "
                f"as before, or with checkpoint.allow_changes={PROCESSES} and as many micro-batches a step"
            )
        yield Change(PROCESSES, str(before.n_processes), str(now.n_processes))
    if before.micro_batches != now.micro_batches:
        fitting, rest = divmod(before.micro_batches, now.n_processes)
        way = "no accumulation makes it the same" if rest else f"set {_ACCUMULATION}={fitting}"
        raise RunError(
            f"{path}: a step had {before.micro_batches} micro-batches over all processes, now it has "
            f"{now.micro_batches}; {way}"
        )
    may_differ = {name for kind, names in MADE_OF.items() if kind in allowed for name in names}
    for name in dict.fromkeys([*now.depends_on, *before.depends_on]):
        then, found = before.depends_on.get(name, "none"), now.depends_on.get(name, "none")
        if then == found:
            continue
        if name not in may_differ:
            ways = [kind for kind, names in MADE_OF.items() if name in names]
            way = f", checkpoint.allow_changes={ways[0]}" if ways else ""
            raise RunError(
                f"{path}: the run was begun with another {name} (then {then}, now {found}); give it the same again"
                f"{way}, or another run="
            )
        yield Change(name, then, found)
