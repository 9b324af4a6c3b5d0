"""The tagger's network run by torch, in float32 or bfloat16, on a CPU or a GPU."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xlner.errors import ModelError


class TorchBackend:
    """A network on its device; threads may share it."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        autocast_dtype: torch.dtype | None = None,
        *,
        heeds_mask: bool = True,
    ) -> None:
        """Wrap a network.

        Args:
            model: Called with `input_ids` and `attention_mask`, it gives an object with `logits`; lies on `device`.
            device: Where the model lies.
            autocast_dtype: Number format of the pass; None for that of the weights.
            heeds_mask: Whether padding changes nothing. If it does, only windows of one length are computed together.
        """
        self.model = model
        self.device = device
        self.autocast_dtype = autocast_dtype
        if device.type == "cpu":
            _one_thread_after_fork()
        self._heeds_mask = heeds_mask
        # oneDNN keeps memory for every shape of a product in bfloat16, and the last batches of a block have any shape.
        weights = next(model.parameters(), torch.empty(0)).dtype
        self._few_shapes = device.type == "cpu" and torch.bfloat16 in (weights, autocast_dtype)

    def logits(self, batches: Iterable[tuple[NDArray[np.int64], NDArray[np.bool_]]]) -> Iterator[NDArray[np.float32]]:
        """Unnormalised scores, (B, P, C), of each batch: piece ids, (B, P), and a mask that is False on padding."""
        for input_ids, attention_mask in batches:
            whole = self._heeds_mask or bool(attention_mask.all())
            yield (self._scores if whole else self._scores_by_length)(input_ids, attention_mask)

    def _scores_by_length(self, input_ids: NDArray[Any], attention_mask: NDArray[Any]) -> NDArray[np.float32]:
        lengths = attention_mask.sum(axis=1)
        found: NDArray[np.float32] | None = None
        for length in np.unique(lengths).tolist():
            rows = lengths == length
            scores = self._scores(input_ids[rows, :length], attention_mask[rows, :length])
            if found is None:
                found = np.zeros((*input_ids.shape, scores.shape[-1]), dtype=np.float32)
            found[rows, :length] = scores
        assert found is not None  # a batch has windows
        return found

    def _scores(self, input_ids: NDArray[Any], attention_mask: NDArray[Any]) -> NDArray[np.float32]:
        n_rows = len(input_ids)
        if self._few_shapes:
            input_ids, attention_mask = (_more_rows(array) for array in (input_ids, attention_mask))
        pieces, mask = (torch.from_numpy(array).to(self.device) for array in (input_ids, attention_mask))
        try:
            with predicting(self.model, self.device, self.autocast_dtype):
                scores: NDArray[np.float32] = self.model(pieces, mask).logits[:n_rows].float().cpu().numpy()
        except (LookupError, RuntimeError, ValueError) as problem:  # of torch; NotImplementedError is a RuntimeError
            network = getattr(self.model, "recognizer", self.model)
            first_line = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            raise ModelError(
                f"{type(network).__name__} fails at {n_rows} windows of {input_ids.shape[1]} numbers: {first_line}"
            ) from problem
        return scores


@cache
def _one_thread_after_fork() -> None:
    """Have torch compute with one thread in every process that is forked off this one.

    The threads of a pool do not live on in a forked process, which would wait for them for ever; torch's own
    `DataLoader` does the same in its workers.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def _more_rows(array: NDArray[Any]) -> NDArray[Any]:
    """Repeats of the last row, up to the next number of rows with at most three significant bits."""
    n_rows = len(array)
    step = 1 << max(0, n_rows.bit_length() - 3)
    return np.pad(array, ((0, -n_rows % step), (0, 0)), mode="edge")


@contextmanager
def predicting(model: nn.Module, device: torch.device, autocast_dtype: torch.dtype | None) -> Iterator[None]:
    """No dropout, no gradients, a number format; the model's training mode is as before afterwards."""
    was_training = model.training
    if was_training:  # to set it walks through all modules, which a short text would notice
        model.eval()
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None),
        ):
            yield
    finally:
        if was_training:
            model.train()


def weights_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of a tagger's weights.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 on GPUs that have it and on CPUs with matrix tiles (AMX).
        device: Where the network will lie.
    """
    if precision == "auto":
        on_gpu = device.type == "cuda"
        has_it = torch.cuda.is_bf16_supported() if on_gpu else torch.cpu.get_capabilities().get("amx_tile", False)
        precision = "bf16" if has_it else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def number_format(autocast_dtype: torch.dtype | None) -> str:
    """The name of what a network computes in, as Accelerate calls it."""
    return {torch.bfloat16: "bf16", torch.float16: "fp16", None: "fp32"}[autocast_dtype]
