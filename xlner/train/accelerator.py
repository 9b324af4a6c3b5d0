"""What all jobs need around the loop: Accelerator, tracker, number format, optimizer, learning-rate curve."""

import logging
import math
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from xlner.config.load import Recipe
from xlner.config.schema import OptimizationRecipe
from xlner.errors import RecipeError, RunError, sigterm_ends
from xlner.train.run import RunFolder

LOG = logging.getLogger("xlner")

# Optimizer, learning-rate curve and number format of a run.


def make_optimizer(model: nn.Module, recipe: OptimizationRecipe) -> AdamW:
    """AdamW with one learning rate for the encoder and one for the heads; frozen weights are left out.

    Biases and normalisation weights (everything of one dimension) are not decayed.
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
    return AdamW(groups, fused=True)


def make_schedule(optimizer: AdamW, recipe: OptimizationRecipe, n_steps: int) -> LambdaLR:
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
    if on_gpu:
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("amx_tile", False) else "fp32"


def autocast_dtype(precision: str) -> torch.dtype | None:
    """What autocast computes in, from Accelerate's name of it; None for plain float32."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "no": None}[precision]


# What all jobs need around the loop: the Accelerator and the tracker.


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
    LOG.disabled = not accelerator.is_main_process  # all processes come by the same places
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
    LOG.info(
        f"run {run.path}: {accelerator.num_processes} process(es) on {accelerator.device.type}, "
        f"{torch.get_num_threads()} thread(s) each, {precision}"
    )
