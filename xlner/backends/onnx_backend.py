"""The tagger's network run by ONNX Runtime on a CPU, without torch."""

import ctypes
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    def __init__(self, path: Path, *, side_by_side: bool = False) -> None:
        """Load a graph.

        Args:
            path: A graph that takes `input_ids` (int64) and `attention_mask` (bool), and gives `logits`.
            side_by_side: Compute as many batches at a time as there are threads, each with one thread. In int8 that is
                a quarter faster with two threads than sharing out every batch; it holds the weights once more.

        Raises:
            ModelError: If ONNX Runtime is not installed, or takes the file for no such graph.
        """
        self._path = path.absolute()
        self._session = Session(path)
        self._session.check(("input_ids", "attention_mask"), "logits")
        self._n_at_once = n_threads() if side_by_side else 1
        self._one_thread: Session | None = None

    def logits(self, batches: Iterable[tuple[NDArray[np.int64], NDArray[np.bool_]]]) -> Iterator[NDArray[np.float32]]:
        """Unnormalised scores, (B, P, C), of each batch: piece ids, (B, P), and a mask that is False on padding."""
        waiting = iter(batches)
        first = list(islice(waiting, self._n_at_once))
        if self._n_at_once == 1 or len(first) < self._n_at_once:
            for batch in chain(first, waiting):
                yield _run(self._session, batch)
            return
        session = self._session_of_one_thread()
        with ThreadPoolExecutor(self._n_at_once) as threads:
            # Twice as many as compute: while one waits to be fetched, the next is there.
            running = deque(threads.submit(_run, session, batch) for batch in first)
            for batch in waiting:
                running.append(threads.submit(_run, session, batch))
                if len(running) > 2 * self._n_at_once:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()

    def _session_of_one_thread(self) -> "Session":
        # Two threads may both open it, and the second one's stays; a lock would not live on in a forked process.
        if self._one_thread is None:
            self._one_thread = Session(self._path, threads=1)
        return self._one_thread


class Session:
    """A graph that every process opens for itself: neither a fork nor a pickle takes the threads along."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Open a graph; arguments and errors as for `open_session`."""
        self._path, self._threads = path.absolute(), threads
        self._session, self._process = open_session(path, threads), os.getpid()

    def __reduce__(self) -> tuple[type["Session"], tuple[Path, int | None]]:
        return Session, (self._path, self._threads)

    def run(self, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> list[Any]:
        """The named outputs of the graph.

        Raises:
            ModelError: If it fails, as one that is made for one size alone.
        """
        if self._process != os.getpid():
            # Kept for ever: to be destroyed, it would wait for its threads, which are not in this process.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._session, self._process = open_session(self._path, self._threads), os.getpid()
        try:
            found: list[Any] = self._session.run(outputs, inputs)
        except _graph_errors() as problem:
            shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
            raise ModelError(f"{self._path}: the graph fails at {shapes}: {str(problem).splitlines()[0]}") from problem
        return found

    def check(self, inputs: Sequence[str], output: str) -> None:
        """Refuse a graph that takes or gives other things than it will be asked for.

        Raises:
            ModelError: As graphs of other exporters, which take `token_type_ids` too or know one length only.
        """
        taken, given = (
            [part.name for part in parts] for parts in (self._session.get_inputs(), self._session.get_outputs())
        )
        if sorted(taken) != sorted(inputs) or output not in given:
            raise ModelError(
                f"{self._path}: the graph takes {', '.join(taken)} and gives {', '.join(given)}; expected "
                f"{', '.join(inputs)} to {output}, as `xlner export` writes it"
            )
        sizes = [part for part in self._session.get_inputs() if any(isinstance(size, int) for size in part.shape[:2])]
        if sizes:
            raise ModelError(
                f"{self._path}: the graph takes {sizes[0].name} of one size alone; expected any number and length"
            )


def _run(session: Session, batch: tuple[NDArray[np.int64], NDArray[np.bool_]]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = session.run(["logits"], {"input_ids": batch[0], "attention_mask": batch[1]})[0]
    return found


def open_session(path: Path, threads: int | None = None) -> "InferenceSession":
    """A graph ready to run on the CPU, by default with `n_threads` threads.

    Raises:
        ModelError: If ONNX Runtime is not installed or cannot load the file.
    """
    try:
        import onnxruntime
    except ImportError as problem:
        raise ModelError(f"{path}: this model needs ONNX Runtime: pip install onnxruntime") from problem
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or n_threads()
    options.log_severity_level = 3  # errors alone, and those are raised as well
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
    except _graph_errors() as problem:
        first_line = str(problem).splitlines()[0]
        raise ModelError(f"{path}: ONNX Runtime cannot load this graph: {first_line}") from problem


def _graph_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its errors have no kind in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    return (
        *(errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented),
        *(errors.RuntimeException, errors.EPFail, errors.NoSuchFile),
    )


def n_threads() -> int:
    """How many threads compute: `OMP_NUM_THREADS`, else one for each core that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
