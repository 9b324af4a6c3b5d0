"""Optimizer, learning-rate curve and number format of a run."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from xlner.errors import RecipeError
from xlner.sections import OptimizationRecipe


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
