"""The tagger's network run by ONNX Runtime on a CPU, without torch."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xlner.errors import ModelError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# ONNX Runtime (1.31) normalises layers faster by its plain operator than by the one that adds first: a whole pass of 6
# layers, 384 wide, takes 13 % less time in float32.
SLOW_FUSIONS = ["SkipLayerNormFusion"]


class OnnxBackend:
    """A session of ONNX Runtime; threads may share it.

    As for torch, `OMP_NUM_THREADS` bounds the threads; without it there is one for each core.
    """

    def __init__(self, path: Path) -> None:
        """Load a graph.

        Args:
            path: A graph that takes `input_ids` (int64) and `attention_mask` (bool), and gives `logits`.

        Raises:
            ModelError: If ONNX Runtime is not installed, or takes the file for no such graph.
        """
        self._session = open_session(path)

    def logits(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Unnormalised scores, (B, P, C), of piece ids, (B, P); the mask is False on padding."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        found: NDArray[np.float32] = self._session.run(["logits"], inputs)[0]
        return found


def open_session(path: Path) -> "InferenceSession":
    """A graph ready to run on the CPU.

    Raises:
        ModelError: If ONNX Runtime is not installed or cannot load the file.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError as problem:
        raise ModelError(f"{path}: this model needs ONNX Runtime: pip install onnxruntime") from problem
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _n_threads()
    options.log_severity_level = 3  # errors alone, and those are raised as well
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
    except (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NotImplemented,
    ) as problem:
        first_line = str(problem).splitlines()[0]
        raise ModelError(f"{path}: ONNX Runtime cannot load this graph: {first_line}") from problem


def _n_threads() -> int:
    """Threads of a forward pass; 0 leaves it to ONNX Runtime, which takes the cores of the machine."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() else 0
