"""FSDP: weights, gradients and moments in shards, one for each process, as Accelerate's configuration asks for it.

A pass then meets the other processes at every layer, so all take equally many. A shard is a `DTensor`, which knows the
whole that it is of; where a network is scored or saved, every process holds the whole for that time.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from xlner.errors import RecipeError, RunError


def is_asked() -> bool:
    """Whether Accelerate's configuration asks for shards; what it would do before it looks at them is refused.

    Raises:
        RunError: If it asks for what would train otherwise than without shards.
    """
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    for name, default, expected in (
        ("FSDP_VERSION", "1", "2"),
        # Processes but the first would hold no weights where heads are drawn and weights looked at.
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "false", "false"),
    ):
        if (found := os.environ.get(name, default).lower()) != expected:
            raise RunError(f"FSDP: {name.lower()} is {found} in Accelerate's configuration; set {expected}")
    return True


def shard_as_asked(accelerator: Accelerator) -> None:
    """Have Accelerate shard what it prepares, on processors too.

    Raises:
        RunError: If there is nobody to share with.
    """
    state = accelerator.state
    if state.distributed_type == DistributedType.MULTI_CPU:
        # torch shards over gloo as well; Accelerate (1.15) would pass over the wish in silence. What it does on GPUs:
        state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, FullyShardedDataParallelPlugin()
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    if state.distributed_type != DistributedType.FSDP:
        raise RunError(
            "FSDP was asked for, but this process knows of no others; give num_processes, or hardware.cpu=true"
        )
    # Autocast computes as without shards; the plugin's policy would round the weights themselves.
    state.fsdp_plugin.mixed_precision_policy = None


def check_shards(network: nn.Module, optimizer: str) -> None:
    """Refuse what cannot be trained in shards.

    Raises:
        RecipeError: If the network has a weight that is a single number, or the optimizer knows no shards.
    """
    if numbers := [name for name, parameter in network.named_parameters() if not parameter.dim()]:
        raise RecipeError(f"FSDP: {numbers[0]} is a single number, which has no shards; set similarity_weight=0")
    if optimizer != "adamw":
        raise RecipeError(f"optimization.optimizer={optimizer}: cannot have its moments in shards (FSDP); set adamw")


@contextmanager
def whole_weights(network: nn.Module) -> Iterator[None]:
    """While entered, every process holds all weights, and a forward pass meets no other process.

    What `state_dict` gives stays shards.
    """
    parts = [part for part in network.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not network, recurse=False)  # the whole is needed for the way back


def gathered(state: Any) -> Any:
    """A state with whole tensors in the place of shards; every process calls it."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, dict):
        return {key: gathered(value) for key, value in state.items()}
    return state


def dealt(values: Any, like: Any) -> Any:
    """This process' shard of a tensor, where the one like it is a shard; else the tensor as it is."""
    if not isinstance(like, DTensor) or not isinstance(values, Tensor) or values.shape != like.shape:
        return values
    with torch.no_grad():
        return distribute_tensor(values.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
