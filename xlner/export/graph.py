"""A network of torch as an ONNX graph of any number of windows and pieces.

Made by torch's own exporter (`dynamo=True`): the one in transformers wraps it and calls itself experimental.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlner.backends.onnx_backend import OnnxBackend
from xlner.errors import ModelError
from xlner.models.trial import heeds_mask

# Windows and pieces that a graph is tried on: other ones than it is exported with, and what an exporter may fix at 1.
_TRIED_SHAPES = ((1, 4), (3, 9))


class _Logits(nn.Module):
    """The network with its inputs in a fixed order and one output."""

    def __init__(self, recognizer: PreTrainedModel) -> None:
        super().__init__()
        self.recognizer = recognizer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, P) to (B, P, C)."""
        logits: Tensor = self.recognizer(input_ids=input_ids, attention_mask=attention_mask.long()).logits
        return logits


def write_graph(recognizer: PreTrainedModel, path: Path, *, max_length: int) -> None:
    """Write the graph; weights above 2 GB go into a second file beside it.

    Args:
        recognizer: In float32, on the CPU; it computes attention by plain matrix products afterwards.
        path: The file to write.
        max_length: Pieces of the longest window, special ones included.

    Raises:
        ModelError: If the packages that exporting needs are not installed, torch cannot export the network, or what it
            exports is for windows of one length alone.
    """
    _check_packages()
    told = type(recognizer).__name__
    if not heeds_mask(recognizer):
        raise ModelError(f"{told} cannot be exported: what it says of a text depends on the padding beside it")
    # ONNX Runtime fuses plain attention better than what torch makes of its own fused one: a fifth faster in int8.
    recognizer.set_attn_implementation("eager")
    # Two windows, one padded: what the exporter saw as a 1 it would take for a constant.
    input_ids = torch.full((2, 6), 5)
    attention_mask = torch.ones(2, 6, dtype=torch.bool)
    attention_mask[1, 4:] = False
    axes: dict[int, Any] = {0: torch.export.Dim("windows"), 1: torch.export.Dim("pieces", max=max_length)}
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)  # it tells which packages of other fields are not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Logits(recognizer).eval(),
                (input_ids, attention_mask),
                dynamo=True,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": axes, "attention_mask": axes},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as problem:
        first_line = str(problem).strip().splitlines()[0]
        raise ModelError(f"{told} cannot be exported by torch: {first_line}") from problem
    finally:
        chatter.setLevel(level)
    if program is None:
        raise ModelError(f"{told} cannot be exported by torch")
    program.save(path)
    _try_graph(told, path, max_length)


def _try_graph(told: str, path: Path, max_length: int) -> None:
    """Refuse a graph in which the exporter has fixed a number of windows or of pieces."""
    try:
        shapes = [(windows, min(pieces, max_length)) for windows, pieces in _TRIED_SHAPES]
        batches = [(np.full(shape, 5, dtype=np.int64), np.ones(shape, dtype=np.bool_)) for shape in shapes]
        given = [scores.shape[:2] for scores in OnnxBackend(path).logits(batches)]
    except ModelError as problem:
        raise ModelError(
            f"{told} cannot be exported, its graph is for windows of one length alone: {problem}"
        ) from problem
    if given != shapes:
        raise ModelError(f"{told} cannot be exported: its graph gives {given} for {shapes} windows and pieces")


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as problem:
        raise ModelError(f"exporting needs {problem.name}: pip install 'xlner[onnx]'") from problem
