"""Compact students in a smaller or faster form: as graphs built operator by operator, in halves, or in bytes.

`torch.onnx.export` (2.13) does not stand in: what it makes of a `bilstm` fails at other numbers of windows than the
example's, though logits agree to 1e-5 at that one.
The older exporter (`dynamo=False`) is as good for a `bilstm` (73 ms for 67, 0.96 MB for 0.93), but it is to go.
"""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlner.backends import GRAPH_FILE, PARITY_FILE
from xlner.errors import ModelError
from xlner.export.int8 import round_weights
from xlner.export.parity import Attempt, Reference, check_target, compared
from xlner.hub import WEIGHTS_FILE
from xlner.models.card import CARD_FILE
from xlner.models.compact_folder import float_weights, write_student
from xlner.models.compact_words import VOCABULARY_FILE
from xlner.models.folder import replaced_folder
from xlner.models.settings import (
    SETTINGS_FILE,
    STUDENT_FILE,
    THRESHOLDS_FILE,
    StudentSettings,
    is_compact,
    parse_settings,
    read_student,
)
from xlner.tagger import load_tagger

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto


# A BiLSTM or convolutional student as an ONNX graph, built operator by operator from its weights; without torch.
#
# The graph takes `rows` (B, W, K) and `lengths` (B,), both int32, and gives `emissions` (B, W, C). Convolutions are
# written as products of shifted copies. In int8 weights have a byte a number; ONNX Runtime makes numbers of them when
# it loads the graph, of tables when it looks a row up, and computes in float32. It has an LSTM in bytes, too, 1.2 to
# 1.7 times as fast, but with one scale for a whole batch: of 1,064 texts 117 had other entities in a batch than alone.
# Letters: B windows, W words, K numbers a row, C tags.


Weights = Mapping[str, NDArray[np.float32]]
OPSET = 17
# ONNX wants the gates as input, output, forget, cell; torch has input, forget, cell, output.
_GATES = (0, 3, 1, 2)


class Graph:
    """Operators and constants of a graph that is being built; a name stands for each value."""

    def __init__(self, *, int8: bool) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._int8 = int8

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Apply an operator; the name of its (first) output."""
        from onnx import helper

        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, value: NDArray[np.generic] | Sequence[int]) -> str:
        """A constant; lists become int64."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype=np.int64) if isinstance(value, list) else np.asarray(value)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array.copy(order="C"), name))
        return name

    def weights(self, value: NDArray[np.float32]) -> str:
        """Weights (..., outputs, inputs); in bytes they have a scale for each output."""
        from onnx import TensorProto

        if not self._int8:
            return self.constant(value)
        stored, scales = round_weights(value.reshape(-1, value.shape[-1]).T)
        whole = self.add("Cast", self.constant(stored.T.reshape(value.shape)), to=TensorProto.FLOAT)
        return self.add("Mul", whole, self.constant(scales.reshape(*value.shape[:-1], 1)))

    def product(self, states: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """States (..., D) times a weight of torch (E, D), and its bias (E,)."""
        by_input = self.add("Transpose", self.weights(weight), perm=[1, 0])
        return self.add("Add", self.add("MatMul", states, by_input), self.constant(bias))

    def rows_of(self, table: NDArray[np.float32], numbers: str) -> str:
        """The rows of a table, (..., D); in bytes it has a scale for each column."""
        from onnx import TensorProto

        if not self._int8:
            return self.add("Gather", self.constant(table), numbers)
        stored, scales = round_weights(table)
        whole = self.add("Cast", self.add("Gather", self.constant(stored), numbers), to=TensorProto.FLOAT)
        return self.add("Mul", whole, self.constant(scales))

    def convolved(self, states: str, weight: NDArray[np.float32], bias: NDArray[np.float32], step: int) -> str:
        """A convolution of torch, (E, D, 3), over the second axis of states (N, W, D), `step` apart."""
        ends = np.asarray([0, step, 0, 0, step, 0], dtype=np.int64)
        padded = self.add("Pad", states, self.constant(ends))
        axis = self.constant([1])
        shifted = [
            self.add("Slice", padded, self.constant([n * step]), self.constant([end]), axis)
            for n, end in enumerate((-2 * step, -step, 2**31))
        ]
        flat = weight.transpose(0, 2, 1).reshape(len(weight), -1)
        return self.product(self.add("Concat", *shifted, axis=2), flat, bias)


def write_compact_graph(kind: str, weights: Weights, path: Path, *, int8: bool) -> None:
    """Write the graph of a student.

    Args:
        kind: A key of `GRAPHS`.
        weights: Of its network, by the names that torch gives them.
        path: The file to write.
        int8: Weights as bytes.

    Raises:
        ModelError: If the packages that exporting needs are not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as problem:
        raise ModelError(f"exporting needs {problem.name}: pip install 'xlner[onnx]'") from problem
    graph = Graph(int8=int8)
    own = {name.removeprefix("body."): value for name, value in weights.items() if name.startswith("body.")}
    scores = GRAPHS[kind](graph, own)
    graph.nodes.append(helper.make_node("Identity", [scores], ["emissions"]))
    n_tags, integer = len(own["scores.bias"]), TensorProto.INT32
    made = helper.make_graph(
        graph.nodes,
        f"xlner_{kind}",
        [
            helper.make_tensor_value_info("rows", integer, ["windows", "words", "numbers"]),
            helper.make_tensor_value_info("lengths", integer, ["windows"]),
        ],
        [helper.make_tensor_value_info("emissions", TensorProto.FLOAT, ["windows", "words", n_tags])],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _word_vectors(graph: Graph, weights: Weights) -> str:
    """Vectors of words, (B, W, D)."""
    last = graph.constant([2])
    words = graph.add("Gather", "rows", graph.constant(np.asarray(0, dtype=np.int64)), axis=2)
    letters = graph.add("Slice", "rows", graph.constant([1]), graph.constant([2**31]), last)
    table = weights["vectors.characters.weight"]
    spelled = graph.rows_of(table, letters)  # (B, W, L, E)
    sizes = graph.add("Shape", letters)
    n_letters = graph.add("Slice", sizes, graph.constant([2]), graph.constant([3]))
    one_by_one = graph.add("Concat", graph.constant([-1]), n_letters, graph.constant([table.shape[1]]), axis=0)
    spelled = graph.add("Reshape", spelled, one_by_one)
    filters = weights["vectors.filters.weight"]
    found = graph.convolved(spelled, filters, weights["vectors.filters.bias"], 1)
    highest = graph.add("Relu", graph.add("ReduceMax", found, axes=[1], keepdims=0))
    by_window = graph.add("Concat", graph.add("Shape", words), graph.constant([len(filters)]), axis=0)
    spelling = graph.add("Reshape", highest, by_window)
    return graph.add("Concat", graph.rows_of(weights["vectors.words.weight"], words), spelling, axis=2)


def _bilstm(graph: Graph, weights: Weights) -> str:
    states = graph.add("Transpose", _word_vectors(graph, weights), perm=[1, 0, 2])  # (W, B, D)
    layer = 0
    while f"rightward.{layer}.weight_ih_l0" in weights:
        parts = [
            np.stack([_gates(weights[f"{way}.{layer}.{name}"]) for way in ("rightward", "leftward")])
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        ]
        size = parts[1].shape[2]
        inputs = [*map(graph.weights, parts[:2]), graph.constant(np.concatenate(parts[2:], axis=1))]
        found = graph.add("LSTM", states, *inputs, "lengths", direction="bidirectional", hidden_size=size)
        beside = graph.add("Transpose", found, perm=[0, 2, 1, 3])  # (W, B, 2, H)
        states = graph.add("Reshape", beside, graph.constant([0, 0, 2 * size]))
        layer += 1
    states = graph.add("Transpose", states, perm=[1, 0, 2])
    return graph.product(states, weights["scores.weight"], weights["scores.bias"])


def _gates(part: NDArray[np.float32]) -> NDArray[np.float32]:
    """The gates of a weight or bias in the order of ONNX."""
    return np.concatenate([np.split(part, 4)[gate] for gate in _GATES])


# A new kind of network is one function above and one line here.
GRAPHS: dict[str, Callable[[Graph, Weights], str]] = {"bilstm": _bilstm}


# A compact student in a smaller or faster form: as a graph for ONNX Runtime, in halves, or in bytes.


# What such a folder may hold; nothing else is overwritten.
_EXPORTED = {STUDENT_FILE, SETTINGS_FILE, THRESHOLDS_FILE, WEIGHTS_FILE, GRAPH_FILE, VOCABULARY_FILE, CARD_FILE}
_EXPORTED |= {PARITY_FILE}


def export_student(
    model: Path,
    target: Path,
    sentences: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]] | None,
    *,
    precision: str,
    force: bool,
    report: Callable[[Attempt], None],
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> Attempt:
    """Store a student in another form and compare it with the original.

    Args:
        model: Folder that distilling wrote.
        target: Folder to make; one that an earlier export made is replaced.
        sentences: Words to compare on.
        gold: Their tags, if they are labelled.
        precision: fp32: a graph; int8: a graph in bytes, of a linear student its table; fp16: halves, for torch, and
            for a linear student.
        force: Keep it even if it differs too much.
        report: Called with the result before that is decided.
        beside: Further files of the folder, by name.

    Raises:
        ModelError: If the original is itself an export, the form makes no sense for its kind, the folder holds other
            things, or the result differs too much; then nothing was written.
    """
    settings = read_student(model)
    if _is_export(model):
        raise ModelError(f"{model}: is an exported model; export the folder that it was made of")
    if settings.kind == "linear" and precision == "fp32":
        raise ModelError(f"{model}: a linear student needs no export to run without torch; give --half or --int8")
    check_target(target, str(model), "an exported student", lambda folder: _others(folder, beside))
    reference = Reference(load_tagger(model), sentences, gold)
    with replaced_folder(target) as unfinished:
        _write(model, unfinished, settings, precision)
        for name, content in beside.items():
            (unfinished / name).write_bytes(content)
        scheme = _scheme(settings, precision)
        return compared(unfinished, str(model), precision, scheme, reference, force=force, report=report)


def _others(folder: Path, beside: Collection[str]) -> set[str]:
    """What a folder holds beside an exported student and these files; all of it where there is no such student."""
    names = {path.name for path in folder.iterdir()}
    return names - _EXPORTED - set(beside) if is_compact(folder) and _is_export(folder) else names


def _is_export(folder: Path) -> bool:
    """Whether a student's folder is an export, rather than what distilling wrote."""
    return (folder / GRAPH_FILE).is_file() or read_student(folder).precision != "fp32"


def _scheme(settings: StudentSettings, precision: str) -> str:
    if precision == "fp16":
        return "halves"
    return "float32" if precision == "fp32" else "table in bytes" if settings.kind == "linear" else "graph in bytes"


def _write(model: Path, folder: Path, settings: StudentSettings, precision: str) -> None:
    weights = float_weights(model, settings)
    has_graph = settings.kind in GRAPHS and precision != "fp16"
    if has_graph:
        write_compact_graph(settings.kind, weights, folder / GRAPH_FILE, int8=precision == "int8")
    stored = {name: value for name, value in weights.items() if not has_graph or name.startswith("crf.")}
    write_student(folder, settings.stored_as(precision), stored, parse_settings(model / SETTINGS_FILE))
    for name in (VOCABULARY_FILE, CARD_FILE, THRESHOLDS_FILE):
        if (model / name).is_file():
            shutil.copy(model / name, folder / name)
