"""What all jobs need around the loop: the Accelerator and the tracker."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env

from xlner.errors import RecipeError, RunError
from xlner.recipe import Recipe
from xlner.signals import sigterm_ends
from xlner.training.optimization import effective_precision
from xlner.training.run_folder import RunFolder

# Processes wait for each other where one of them works alone: for a lock that another run holds, pooling, scores. That
# may take days; a process that has ended is noticed by its connection, or by the launcher.
LONGEST_WAIT = timedelta(days=7)


def make_accelerator(recipe: Recipe, path: Path) -> Accelerator:
    """The Accelerator of a run.

    Raises:
        RecipeError: If TensorBoard is asked for and not installed.
        RunError: If processes were started together and cannot know of each other.
    """
    if recipe.tensorboard and not find_spec("tensorboard"):
        raise RecipeError("tensorboard=true, but TensorBoard is not installed: pip install 'xlner[tensorboard]'")
    if recipe.hardware.cpu or not torch.cuda.is_available():
        # `accelerate launch` leaves each process one thread (OMP_NUM_THREADS=1) unless told otherwise.
        n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        n_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        torch.set_num_threads(recipe.hardware.threads or max(1, n_cores // n_local))
    precision = effective_precision(recipe.hardware.precision, recipe.hardware.cpu)
    on_cpu = recipe.hardware.cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    if not on_cpu and not torch.accelerator.is_available():
        # Accelerate then leaves each process alone; asked before, since one that ends resets the others' connections.
        check_world(1)
    with sigterm_ends():  # processes that start together wait for each other, perhaps for one that is gone
        accelerator = Accelerator(
            cpu=recipe.hardware.cpu,
            mixed_precision="no" if precision == "fp32" else precision,
            log_with="tensorboard" if recipe.tensorboard else None,
            project_dir=str(path),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
        )
    check_world(accelerator.num_processes)
    return accelerator


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


def make_tracker(accelerator: Accelerator, recipe: Recipe) -> Callable[[dict[str, float], int], None]:
    """Where numbers go beside metrics.jsonl: TensorBoard if asked, else nowhere."""
    if not recipe.tensorboard:
        return lambda numbers, step: None
    accelerator.init_trackers("tensorboard")
    return lambda numbers, step: accelerator.log(numbers, step=step)


def announce(accelerator: Accelerator, run: RunFolder) -> None:
    """One line on where and how the run computes."""
    precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    accelerator.print(
        f"run {run.path}: {accelerator.num_processes} process(es) on {accelerator.device.type}, "
        f"{torch.get_num_threads()} thread(s) each, {precision}"
    )
