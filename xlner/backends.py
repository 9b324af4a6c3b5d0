"""Backends of the tagger: padded windows in, logits of their words out. Knows no corpus and no label.

ONNX Runtime and the linear student need no torch; `models/inference.py` has the one that does.
"""

import ctypes
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlner.decoding import penalties
from xlner.encode import PaddedWindows
from xlner.errors import ModelError, first_line
from xlner.files import MANIFEST_FILE, damage, describe
from xlner.models.compact_words import feature_rows
from xlner.models.settings import StudentSettings

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Scores = NDArray[np.float32]

# The folder of an exported tagger: `model.onnx`, what splits text for it, and a manifest of both.
#
# `manifest.json` is written last and holds the size and SHA-256 of every other file that tagging reads, so that a file
# that was cut short or comes from another export is refused by its name. It guards against accidents, not against
# someone who can write a manifest.


GRAPH_FILE = "model.onnx"
PARITY_FILE = "parity.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What an exported folder holds.

    `precision` is `fp32` or `int8`; `max_length` counts the pieces of the longest window, special ones included;
    `files` has size in bytes and SHA-256 of each file.
    """

    precision: str
    max_length: int
    pad_id: int
    files: dict[str, tuple[int, str]]
    format: int = FORMAT


def is_exported(folder: Path) -> bool:
    """Whether this is an exported folder, whole or damaged."""
    return (folder / GRAPH_FILE).is_file() or (folder / MANIFEST_FILE).is_file()


def unlisted_names(folder: Path) -> list[str]:
    """What lies in a folder and is no part of an exported model, sorted; everything, where there is no manifest of one.

    Whole or damaged: what an export wrote may be replaced by another one, and nothing else may.
    """
    names = {path.name for path in folder.iterdir()}
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        listed = set(content["files"])
        is_own = content.keys() >= {"format", "precision", "pad_id"} and GRAPH_FILE in listed
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_own = False
    return sorted(names - listed - {MANIFEST_FILE, PARITY_FILE} if is_own else names)


def write_manifest(folder: Path, names: Iterable[str], *, precision: str, max_length: int, pad_id: int) -> None:
    """Describe the files of a folder, which must be as they shall stay."""
    manifest = Manifest(precision, max_length, pad_id, describe(folder, names))
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an exported folder, once every file that it lists is found as it was written.

    Raises:
        ModelError: If the manifest or a file is missing, damaged or another's.
    """
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ModelError(f"{path}: found format {content['format']}, expected {FORMAT}; export the model again")
        manifest = Manifest(**content)
        listed = {name: (int(size), str(digest)) for name, (size, digest) in manifest.files.items()}
    except FileNotFoundError as problem:
        raise ModelError(
            f"{folder}: no {MANIFEST_FILE} beside {GRAPH_FILE}; expected a folder that `xlner export` wrote"
        ) from problem
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(f"{path}: expected the manifest of an exported model, found: {problem}") from problem
    if GRAPH_FILE not in listed:
        raise ModelError(f"{path}: lists no {GRAPH_FILE}; export the model again")
    if found := damage(folder, listed):
        raise ModelError(f"{found}; copy the folder again, or export the model again")
    return manifest


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

    def logits(self, batches: Iterable[PaddedWindows]) -> Iterator[Scores]:
        """See `Backend.logits`."""
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


def _run(session: Session, batch: PaddedWindows) -> Scores:
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    found: Scores = session.run(["logits"], inputs)[0]
    return found.reshape(-1, found.shape[-1])[batch.words]


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
        raise ModelError(f"{path}: ONNX Runtime cannot load this graph: {first_line(problem)}") from problem


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
    return n_cores()


def n_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Compact students run without torch: the linear one by NumPy, the others by ONNX Runtime.
#
# Shapes: B windows, W words, K numbers a row, P = W K, N words of all windows, C tags.


class Marginals:
    """What a CRF makes of the scores of tags: the log-probability of each tag of each word, by NumPy."""

    def __init__(self, pairs: NDArray[np.floating], first: NDArray[np.floating], last: NDArray[np.floating]) -> None:
        """Keep the scores of pairs (C, C), of first tags (C,) and of last ones (C,), penalties included."""
        self._pairs, self._first, self._last = (np.exp(part.astype(np.float64)) for part in (pairs, first, last))

    def __call__(self, emissions: Scores, mask: NDArray[np.bool_]) -> Scores:
        """Emissions (B, W, C) and a mask of words (B, W) to log marginals (B, W, C)."""
        # Every word's weights are divided by the highest, and every sum by its total: neither changes a marginal.
        weights = np.exp((emissions - emissions.max(axis=-1, keepdims=True)).astype(np.float64)).clip(1e-100)
        n_words = weights.shape[1]
        forward, backward = np.empty_like(weights), np.empty_like(weights)
        state = _normalised(self._first * weights[:, 0])
        forward[:, 0] = state
        for word in range(1, n_words):
            state = np.where(mask[:, word, None], _normalised(state @ self._pairs * weights[:, word]), state)
            forward[:, word] = state
        state = np.broadcast_to(self._last, state.shape)
        backward[:, -1] = state
        for word in range(n_words - 1, 0, -1):
            following = _normalised((weights[:, word] * state) @ self._pairs.T)
            state = np.where(mask[:, word, None], following, state)
            backward[:, word - 1] = state
        marginals = _normalised(forward * backward)
        found: Scores = np.log(np.maximum(marginals, 1e-30)).astype(np.float32)
        return found


class LinearBackend:
    """The table of a linear student; threads may share it."""

    def __init__(self, table: NDArray[np.float32], width: int, marginals: Marginals | None) -> None:
        """Keep the scores of features (buckets, C), K, and the CRF where there is one."""
        self._table, self._width, self._marginals = table, width, marginals

    def logits(self, batches: Iterable[PaddedWindows]) -> Iterator[Scores]:
        """See `Backend.logits`."""
        for batch in batches:
            rows = batch.input_ids.reshape(len(batch.input_ids), -1, self._width)
            places = feature_rows(rows, len(self._table))
            scores = self._table[places[:, :, 0]]
            for feature in range(1, places.shape[2]):
                scores += self._table[places[:, :, feature]]
            yield _of_words(scores, batch, self._width, self._marginals)


class CompactOnnxBackend:
    """A graph of `rows` (B, W, K) and `lengths` (B,) to `emissions` (B, W, C); threads may share it."""

    def __init__(self, path: Path, width: int, marginals: Marginals | None) -> None:
        """Load a graph.

        Raises:
            ModelError: If ONNX Runtime is not installed, or takes the file for no such graph.
        """
        self._session = Session(path)
        self._session.check(("rows", "lengths"), "emissions")
        self._width, self._marginals = width, marginals

    def logits(self, batches: Iterable[PaddedWindows]) -> Iterator[Scores]:
        """See `Backend.logits`."""
        for batch in batches:
            rows = batch.input_ids.reshape(len(batch.input_ids), -1, self._width).astype(np.int32)
            lengths = batch.attention_mask[:, :: self._width].sum(axis=1).astype(np.int32)
            emissions = self._session.run(["emissions"], {"rows": rows, "lengths": lengths})[0]
            yield _of_words(emissions, batch, self._width, self._marginals)


def stored_marginals(weights: Mapping[str, NDArray[np.floating]], settings: StudentSettings) -> Marginals | None:
    """The CRF among stored weights, with what must not be added; None for a student without."""
    if settings.decoder != "crf":
        return None
    of_pairs, of_first = penalties(settings.tags)
    return Marginals(weights["crf.transitions"] + of_pairs, weights["crf.first"] + of_first, weights["crf.last"])


def _normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = values / values.sum(axis=-1, keepdims=True)
    return total


def _of_words(scores: Scores, batch: PaddedWindows, width: int, marginals: Marginals | None) -> Scores:
    """Scores (B, W, C) to those of the words, (N, C); a word stands at the first number of its row."""
    if marginals is not None:
        scores = marginals(scores, batch.attention_mask[:, ::width])
    return scores.reshape(-1, scores.shape[-1])[batch.words // width]
