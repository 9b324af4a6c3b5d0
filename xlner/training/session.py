"""What all jobs need around the loop: the Accelerator, the tracker, the launch from a command line."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from xlner.errors import RecipeError, StoppedError, XlnerError
from xlner.escaping import lines_for_terminal
from xlner.recipe import Recipe, explain, load_recipe
from xlner.signals import exit_status, sigterm_as_ctrl_c, sigterm_ends
from xlner.training.interruption import LOST_PROCESS, is_lost_process
from xlner.training.optimization import effective_precision
from xlner.training.run_folder import RunFolder


def launch(kind: str, job: Callable[[Any], Path], recipes: Path) -> int:
    """Run a job from the command line; the exit status: 0 done, 2 refused, 130 or 143 stopped.

    Args:
        kind: A key of `recipe.KINDS`.
        job: `train_teacher`, `distill` or `adapt_encoder`.
        recipes: The folder of recipes.
    """
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        try:
            print(explain(kind), flush=True)  # noqa: T201
        except BrokenPipeError:
            # The reader has seen enough; what is left unwritten goes nowhere, or Python would complain at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    try:
        with sigterm_as_ctrl_c():
            job(load_recipe(kind, arguments, recipes))
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)  # noqa: T201
        return stopped.exit_status
    except XlnerError as problem:
        print(lines_for_terminal(problem.told()), file=sys.stderr)  # noqa: T201
        return 2
    except RuntimeError as problem:
        if not is_lost_process(problem):
            raise
        print(LOST_PROCESS, file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt as stop:
        print("stopped; the same command goes on from what the run has saved", file=sys.stderr)  # noqa: T201
        return exit_status(stop)
    return 0


def make_accelerator(recipe: Recipe, path: Path) -> Accelerator:
    """The Accelerator of a run.

    Raises:
        RecipeError: If TensorBoard is asked for and not installed.
    """
    if recipe.tensorboard and not find_spec("tensorboard"):
        raise RecipeError("tensorboard=true, but TensorBoard is not installed: pip install 'xlner[tensorboard]'")
    if recipe.hardware.cpu or not torch.cuda.is_available():
        # `accelerate launch` leaves each process one thread (OMP_NUM_THREADS=1) unless told otherwise.
        n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        n_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        torch.set_num_threads(recipe.hardware.threads or max(1, n_cores // n_local))
    precision = effective_precision(recipe.hardware.precision, recipe.hardware.cpu)
    with sigterm_ends():  # processes that start together wait for each other, perhaps for one that is gone
        return Accelerator(
            cpu=recipe.hardware.cpu,
            mixed_precision="no" if precision == "fp32" else precision,
            log_with="tensorboard" if recipe.tensorboard else None,
            project_dir=str(path),
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
