"""A run: its folder and who may write there, how it is stopped, when it counts as finished, and where it computes."""

import json
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import yaml
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env
from torch import Tensor, nn

from xlner.config.load import KINDS, Recipe, Value, choose, recipe_of_keys, recipe_text
from xlner.config.schema import AdaptRecipe, DistillRecipe, HardwareRecipe, TeacherRecipe
from xlner.errors import GOES_ON, RecipeError, RunError, StoppedError, exit_status, sigterm_ends
from xlner.files import RUNS, append_line, locked, read_lines, remove_leftovers, remove_unfinished, to_json, write_text
from xlner.models.inference import computes_in_bf16, share_of_cores
from xlner.notebook import scores_html
from xlner.tagger import Tagger, load_tagger
from xlner.train import sharding
from xlner.train.checkpoint import Change, allowed_changes, recipe_changes

LOG = logging.getLogger("xlner")

# SIGINT and SIGTERM as a request that the training loop honours at the end of a step, or of an evaluation batch.
#
# Beside it, how the end of one process becomes that of all.


class Interrupted(Exception):  # noqa: N818 - no error
    """An evaluation was left before its end, since the run shall stop; in all processes, or within one of them."""


LOST_PROCESS = "another process of the run has ended; its own message tells why"


class StopRequest:
    """While entered, the first SIGINT or SIGTERM sets `requested`; a second one ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self.exit_status = 0
        self._before: dict[int, signal.Handlers | int | None] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # the only one in which Python allows handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def leaves(self, model: nn.Module) -> Iterator[None]:
        """While entered, the next batch that the model shall see raises `Interrupted` if a stop was requested."""

        def look(module: nn.Module, inputs: object) -> None:
            if self.requested:
                raise Interrupted

        # A wrapper around the model that is evaluated may leave its own forward out.
        handles = [module.register_forward_pre_hook(look) for module in (model, *model.children())]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.exit_status = 128 + number
        for handled in self._before:
            signal.signal(handled, signal.SIG_DFL)


def is_lost_process(error: BaseException) -> bool:
    """Whether an error says that another process of the run has gone, as gloo and NCCL tell it; no mere long wait."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return False
    if re.search(r"time(d)? ?-?out", str(error), re.IGNORECASE):
        return False
    gloo = isinstance(error, RuntimeError) and re.search(r"Connection (closed|reset) by peer|Broken pipe", str(error))
    return bool(gloo) or isinstance(error, dist.DistError)


def summed(accelerator: Accelerator, size: int, job: Callable[[], Tensor]) -> Tensor:
    """Add up what the processes find in their shares of an evaluation, (size,); every process calls it.

    Raises:
        Interrupted: In all of them, if any of them was interrupted, so that none waits for another.
    """
    found = torch.zeros(size + 1, dtype=torch.float64, device=accelerator.device)
    try:
        found[1:] = job()
    except Interrupted:
        found[0] = 1.0
    total: Tensor = accelerator.reduce(found, "sum")
    if total[0]:
        raise Interrupted
    return total[1:]


# The folder of a run: what lies in it, who may write to it, when it counts as finished, and what is then there.
#
# `recipe.yaml`, `status.json`, `metrics.jsonl`, `checkpoints/step-N/`, `model/`, and last `report.json`, which marks
# the run as finished. One process writes; a lock keeps a second run out.


RecipeT = TypeVar("RecipeT", TeacherRecipe, DistillRecipe, AdaptRecipe)
_WRITTEN = ("recipe.yaml", "status.json", "metrics.jsonl", "report.json")
# Lines that stand in every recipe that a run wrote.
_RECIPE_SECTIONS = {"corpus:", "optimization:", "hardware:", "checkpoint:"}


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and how its records are written; only the main process writes."""

    path: Path
    writes: bool
    allowed_changes: frozenset[str] = frozenset()

    @property
    def model(self) -> Path:
        """The result."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """The folder of `step-N` folders."""
        return self.path / "checkpoints"

    def predictions(self, corpus: str) -> Path:
        """What the result says of a scored corpus, word by word, beside what the corpus says."""
        return self.path / f"predictions-{corpus}.conll"

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        if self.writes:
            append_line(self.path / "metrics.jsonl", to_json(record, ascii_only=True), way_out=GOES_ON)

    def tell(self, state: str, **details: Any) -> None:
        """Replace status.json: what a scheduler, or a person, wants to know of the run without reading a log."""
        if self.writes:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            content = {"state": state, "time": now, "process": os.getpid(), **details}
            write_text(self.path / "status.json", to_json(content, indent=2, ascii_only=True) + "\n", way_out=GOES_ON)

    def note_change(self, change: Change) -> None:
        """Append to changes.jsonl what is otherwise than when the run was begun; it comes into report.json, too."""
        if self.writes:
            append_line(self.path / "changes.jsonl", to_json(change._asdict(), ascii_only=True), way_out=GOES_ON)

    def forget_after(self, step: int) -> None:
        """Drop the lines of metrics.jsonl beyond a step, which a resumed run will write again."""
        path = self.path / "metrics.jsonl"
        if self.writes and path.is_file():
            kept = [line for line in read_lines(path) if _record(path, line)["step"] <= step]
            write_text(path, "".join(f"{line}\n" for line in kept), way_out=GOES_ON)

    def finish(self, report: Mapping[str, Any]) -> None:
        """Write report.json, which marks the run as finished."""
        if self.writes:
            noted = self.path / "changes.jsonl"
            lines = read_lines(noted)
            changes = {"changes": [_record(noted, line) for line in lines]} if lines else {}
            text = to_json({**report, **changes}, indent=2, ascii_only=True) + "\n"
            write_text(self.path / "report.json", text, way_out=GOES_ON)


def read_report(run: Path) -> dict[str, Any] | None:
    """The report of a finished run; None of one that is not finished, or whose report is empty or torn."""
    try:
        content = json.loads((run / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def report_beside(model: str) -> dict[str, Any]:
    """The report of the finished run whose `model/` a folder is; empty if there is none."""
    folder = Path(model).resolve()
    return (read_report(folder.parent) or {}) if folder.name == "model" else {}


def _record(path: Path, line: str) -> dict[str, Any]:
    try:
        return json.loads(line)  # type: ignore[no-any-return]
    except ValueError as problem:
        raise RunError(f"{path}: damaged, expected a record of JSON, found {line[:80]!r}; remove the line") from problem


def run_path(run: str, default: str) -> Path:
    """Where a run lies: a bare name under `runs/`, a path as it is.

    Args:
        run: What the recipe says; empty: nothing.
        default: A bare name, made of a language, which is no path even if it looks like one.

    Raises:
        RunError: If a bare name is no plain file name.
    """
    name = run or default
    if "/" in run or "\\" in run:
        return Path(run)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise RunError(
            f"run name {name!r}; expected letters, digits, dots, dashes and underscores, or a path with a slash"
        )
    return RUNS / name


class RunReport(dict[str, Any]):
    """The content of report.json: a dict, which a notebook shows as a table of scores."""

    def _repr_html_(self) -> str:
        language, training = self.get("target") or self.get("language") or "", self.get("training")
        told = training if isinstance(training, dict) else {}
        notes = (
            [f"{told['steps']} steps, {told['seconds']} s of training"] if {"steps", "seconds"} <= told.keys() else []
        )
        return scores_html(f"run: {language}", self.get("scores") or {}, notes)


@dataclass(frozen=True)
class FinishedRun(os.PathLike[str]):
    """What a training gives back. It is a path, too: that of the run's folder."""

    path: Path

    @property
    def model(self) -> Path:
        """The folder of the model: what `encoder=` and `teacher=` of further runs and `load_tagger` take."""
        return self.path / "model"

    @property
    def report(self) -> RunReport:
        """The content of report.json.

        Raises:
            RunError: If it is gone, or damaged.
        """
        found = read_report(self.path)
        if found is None:
            raise RunError(f"{self.path / 'report.json'}: is not there or damaged; train again, under another run=")
        return RunReport(found)

    def _repr_html_(self) -> str:
        return scores_html(str(self.path), (read_report(self.path) or {}).get("scores") or {})

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__


class TrainedTagger(FinishedRun):
    """The run of a teacher or a student."""

    def tagger(self, *, device: str = "cpu") -> Tagger:
        """The model, loaded; errors as for `load_tagger`."""
        return load_tagger(str(self.model), device=device)


def asked_recipe(schema: type[RecipeT], recipe: RecipeT | None, keys: Mapping[str, Value]) -> RecipeT:
    """The recipe that a training function was given, whole or as keyword arguments.

    A finished run among the values stands for its model, as in `teacher=train_teacher(...)`.

    Raises:
        RecipeError: If it was given both ways, or a key or value is none.
    """
    if recipe is not None:
        if keys:
            raise RecipeError(f"found a recipe and keyword arguments ({', '.join(keys)}); expected one or the other")
        return recipe
    kind = next(name for name, (own, _) in KINDS.items() if own is schema)
    made = recipe_of_keys(kind, {name: _with_models(value) for name, value in keys.items()})
    assert isinstance(made, schema)
    return made


def _with_models(value: Value) -> Value:
    if isinstance(value, list | tuple):
        return [one.model if isinstance(one, FinishedRun) else one for one in value]
    return value.model if isinstance(value, FinishedRun) else value


@contextmanager
def _told_status(run: RunFolder) -> Iterator[None]:
    """Tell in status.json how a run that had begun ended."""
    try:
        yield
    except BaseException as end:
        status = exit_status(end) if isinstance(end, KeyboardInterrupt) else getattr(end, "exit_status", 2)
        if (run.path / "status.json").is_file():
            state = "stopped" if isinstance(end, StoppedError | KeyboardInterrupt) else "failed"
            message = LOST_PROCESS if is_lost_process(end) else str(end) or type(end).__name__
            with suppress(RunError):  # on a full disk what ended the run matters more
                run.tell(state, exit_status=status, message=message)
        raise
    if read_report(run.path) is not None:
        run.tell("finished", exit_status=0)


@contextmanager
def open_run(path: Path, recipe: Recipe, *, writes: bool) -> Iterator[RunFolder]:
    """Lock a run folder for as long as the run lasts, and write its recipe.

    Args:
        path: The folder; it is made where it is missing, and removed again if nothing came into it.
        recipe: Of this run; a folder with checkpoints must have the same one.
        writes: False in all processes but the main one, which alone checks, locks and writes.

    Raises:
        RunError: If the folder is in use, finished, of another recipe, or not one of xlner's.
    """
    allowed = allowed_changes(recipe.checkpoint.allow_changes, _what_matters(_as_written(recipe)))
    run = RunFolder(path, writes, allowed)
    if not writes:
        yield run
        return
    if path.exists() and not path.is_dir():
        raise RunError(f"{path}: expected a folder for the run, found a file; give another run=")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise RunError(f"{path}: cannot be made: {problem.strerror}; give another run=") from problem

    def refuse() -> None:
        raise RunError(f"{path}: another run is writing here at this moment; give another run=")

    try:
        with locked(path / ".lock", refuse):
            _check_content(run, recipe)
            remove_leftovers(run.checkpoints, "step-*")
            remove_unfinished([run.model, *(path / name for name in _WRITTEN)])
            with _told_status(run):
                yield run
    finally:
        with suppress(OSError):  # where anything came into it
            path.rmdir()


def start_run(run: RunFolder, recipe: Recipe) -> None:
    """Write the recipe, once everything that it names has been found to exist."""
    if run.writes:
        write_text(run.path / "recipe.yaml", recipe_text(recipe), way_out=GOES_ON)
        run.tell("running")


def _check_content(run: RunFolder, recipe: Recipe) -> None:
    path = run.path
    if read_report(path) is not None:
        raise RunError(f"{path}: holds a finished run (report.json); give another run=, or remove the folder")
    others = sorted(name for name in os.listdir(path) if not name.startswith("."))
    if others and not _is_recipe(path / "recipe.yaml"):
        raise RunError(f"{path}: holds files that are no run of xlner ({', '.join(others[:5])}); give another run=")
    if not any(run.checkpoints.glob("step-*")):
        return
    if recipe.checkpoint.resume == "never":
        raise RunError(f"{path}: holds an unfinished run, and checkpoint.resume is never; give another run=")
    before, now = _what_matters(written_recipe(path / "recipe.yaml")), _what_matters(_as_written(recipe))
    try:
        changes = recipe_changes(before, now, run.allowed_changes)
    except RunError as refused:
        raise RunError(
            f"{path}: holds an {refused}; give another run=, the old recipe, checkpoint.allow_changes=, or remove the "
            "folder"
        ) from None
    for change in changes:
        run.note_change(change)


def written_recipe(path: Path) -> dict[str, Any]:
    """What stands in a recipe that a run wrote, all of it text; empty if there is none of that name.

    Raises:
        RunError: If it is damaged.
    """
    if not _is_recipe(path):
        return {}
    try:
        content: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (UnicodeDecodeError, yaml.YAMLError) as problem:
        raise RunError(f"{path}: no valid YAML: {' '.join(str(problem).split())}") from problem
    return content


def _as_written(recipe: Recipe) -> dict[str, Any]:
    """What `written_recipe` reads of a recipe, once a run has written it."""
    content: dict[str, Any] = yaml.load(recipe_text(recipe), yaml.BaseLoader)
    return content


def _what_matters(recipe: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a stored recipe, as in `optimization.epochs`, but those that say when to save and where to go on."""
    found: dict[str, str] = {}
    for name, value in recipe.items():
        found |= (
            {f"{name}.{key}": content for key, content in value.items()} if isinstance(value, dict) else {name: value}
        )
    return {name: value for name, value in found.items() if not name.startswith("checkpoint.")}


def _is_recipe(path: Path) -> bool:
    """Whether a file is a recipe that a run wrote; others have files of that name, too."""
    if not path.is_file():
        return False
    return set(path.read_text(encoding="utf-8", errors="replace").splitlines()) >= _RECIPE_SECTIONS


# Where a run computes: the Accelerator and the number format.


def effective_precision(precision: str, cpu: bool) -> str:
    """`auto` made definite: bf16 on GPUs that have it and on CPUs with matrix tiles (AMX), else fp32.

    Raises:
        RecipeError: For fp16 without a GPU, which has no gradient scaling to offer.
    """
    on_gpu = torch.cuda.is_available() and not cpu
    if precision == "fp16" and not on_gpu:
        raise RecipeError("hardware.precision is fp16, which needs a GPU; on a CPU set bf16, fp32 or auto")
    if precision != "auto":
        return precision
    return "bf16" if computes_in_bf16(on_gpu=on_gpu) else "fp32"


def autocast_dtype(precision: str) -> torch.dtype | None:
    """What autocast computes in, from Accelerate's name of it; None for plain float32."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "no": None}[precision]


# Processes wait for each other where one of them works alone: for a lock that another run holds, pooling, scores. That
# may take days; a process that has ended is noticed by its connection, or by the launcher.
LONGEST_WAIT = timedelta(days=7)


def make_accelerator(hardware: HardwareRecipe, path: Path, *, trackers: str) -> Accelerator:
    """The Accelerator of a run.

    Args:
        hardware: Of the recipe.
        path: The folder of the run.
        trackers: Names of trackers, separated by commas, that get the numbers of a run, too.

    Raises:
        RecipeError: If a tracker is not known, or not installed.
        RunError: If processes were started together and cannot know of each other, or are asked for shards of a kind
            that is refused.
    """
    asked = [name.strip() for name in trackers.split(",") if name.strip()]
    check_trackers(asked)
    in_shards = sharding.is_asked()
    if hardware.cpu or not torch.cuda.is_available():
        torch.set_num_threads(hardware.threads or share_of_cores())
    precision = effective_precision(hardware.precision, hardware.cpu)
    on_cpu = hardware.cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    if not on_cpu and not torch.accelerator.is_available():
        # Accelerate then leaves each process alone; asked before, since one that ends resets the others' connections.
        check_world(1)
    with sigterm_ends():  # processes that start together wait for each other, perhaps for one that is gone
        accelerator = Accelerator(
            cpu=hardware.cpu,
            mixed_precision="no" if precision == "fp32" else precision,
            log_with=asked or None,
            project_dir=str(path),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
        )
    check_world(accelerator.num_processes)
    if in_shards:
        sharding.shard_as_asked(accelerator)
    LOG.disabled = not accelerator.is_main_process  # all processes come by the same places
    return accelerator


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that Accelerate would pass over in silence.

    Raises:
        RecipeError: If it is not known, or its package is not installed.
    """
    for name in names:
        choose(LOGGER_TYPE_TO_CLASS, name, "tracker")
        if name not in [str(found) for found in get_available_trackers()]:
            raise RecipeError(f"trackers={name}: its package is not installed; pip install {name.replace('_', '-')}")


def check_world(n_processes: int) -> None:
    """Refuse processes that were started together and do not know of each other: each would make the whole run.

    Args:
        n_processes: As many as Accelerate sees.

    Raises:
        RunError: If the launcher started more.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > n_processes:
        raise RunError(
            f"the launcher started {started} processes, but {n_processes} know of each other: there is no GPU; give "
            f"accelerate launch --multi_gpu --num_processes {started} SCRIPT ... hardware.cpu=true to use processors"
        )


def announce(accelerator: Accelerator, run: RunFolder) -> None:
    """One line on where and how the run computes."""
    precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    LOG.info(
        f"run {run.path}: {accelerator.num_processes} process(es) on {accelerator.device.type}, "
        f"{torch.get_num_threads()} thread(s) each, {precision}{', in shards (FSDP)' if accelerator.is_fsdp2 else ''}"
    )
