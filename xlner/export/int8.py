"""Weights of a graph in int8: smaller, and faster where the processor multiplies bytes.

Weights are rounded once, with a scale for each output, and the table of word embeddings with one for each word piece.
What flows through is rounded while the graph runs, in one of two ways.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlner.backends import open_session
from xlner.encode import WordEncoder

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


Reaches = dict[str, NDArray[np.float32]]
CALIBRATION_SENTENCES = 256


def weighted_products(graph: "GraphProto") -> "list[NodeProto]":
    """The products of a graph by weights, in its order; their second input names the weights."""
    weights = {tensor.name for tensor in graph.initializer}
    return [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]


def channel_reaches(path: Path, encoder: WordEncoder, sentences: Sequence[Sequence[str]]) -> Reaches:
    """The largest absolute value of each channel of what flows into products by weights.

    Args:
        path: A graph in float32; a second one is written beside it for the time of the call.
        encoder: Cuts the sentences into windows, which run one at a time: no padding is measured.
        sentences: Words; without any, all is zero.

    Returns:
        By the name of the tensor, (inputs of the product,).
    """
    import onnx

    model = onnx.load(path, load_external_data=False)  # the weights stay where they are, beside both graphs
    sizes = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    found = {node.input[0]: np.zeros(sizes[node.input[1]], np.float32) for node in weighted_products(model.graph)}
    for name, reach in found.items():
        _measure(model.graph, name, len(reach))
    measuring = path.with_name("measuring.onnx")
    try:
        onnx.save(model, measuring)
        session = open_session(measuring)
    finally:
        with suppress(OSError):  # the disk must not speak over the reason
            measuring.unlink(missing_ok=True)
    for window in encoder.encode(sentences):
        pieces = np.array([window.piece_ids], dtype=np.int64)
        inputs = {"input_ids": pieces, "attention_mask": np.ones(pieces.shape, dtype=np.bool_)}
        for name, reach in zip(found, session.run([f"{name}/reach" for name in found], inputs), strict=True):
            np.maximum(found[name], reach, out=found[name])
    return found


def _measure(graph: "GraphProto", name: str, size: int) -> None:
    """Have a graph also give `NAME/reach`, the largest absolute value of each of a tensor's `size` channels."""
    from onnx import TensorProto, helper

    graph.initializer.append(helper.make_tensor(f"{name}/rows", TensorProto.INT64, [2], [-1, size]))
    graph.initializer.append(helper.make_tensor(f"{name}/axis", TensorProto.INT64, [1], [0]))
    graph.node.extend(
        [
            helper.make_node("Abs", [name], [f"{name}/abs"]),
            helper.make_node("Reshape", [f"{name}/abs", f"{name}/rows"], [f"{name}/table"]),
            helper.make_node("ReduceMax", [f"{name}/table", f"{name}/axis"], [f"{name}/reach"], keepdims=0),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(f"{name}/reach", TensorProto.FLOAT, [size]))


# The two ways to turn what flows through a graph into bytes, and to multiply it by weights in bytes.
#
# New names are those of the graph with an ending: `/w8...` for weights, `/sums...` for what a product gives, others
# for what flows into one. What one product gives may flow into the next, so no ending serves for two of these.
#
# Neither depends on the batch, so a text's entities do not depend on the texts beside it, as they would with ONNX
# Runtime's own dynamic quantiser: that takes one scale for a whole batch. Sums are exact integers. What flows is made
# unsigned, with 128 for 0: processors multiply unsigned bytes by signed ones.


STEPS = 127  # on either side of zero
SHIFT = 128
TINY = 1e-12  # no row of zeros is divided by zero
# SmoothQuant's alpha: how much of the differences between channels moves into the weights. Of 0.5, 0.7, 0.8 and 0.9
# the last kept the most tags of the float32 network, on English, German and Spanish text (no labels looked at).
SMOOTHING = 0.9

Constants = dict[str, NDArray[np.generic]]


class Product(NamedTuple):
    """A product by weights: names of what flows in and out and of the weights, and these, (inputs, outputs).

    `bias` names what is added to it, empty if that is done elsewhere; `output` then holds the sum.
    """

    source: str
    weights: str
    output: str
    values: NDArray[np.float32]
    bias: str = ""


class RangeOfEachRow:
    """Each row of what flows, which is one piece of a text, has a scale of its own, found while the graph runs."""

    adds_bias = False

    def __init__(self) -> None:
        self.constants: Constants = {
            "int8_axes": np.array([-1], dtype=np.int64),
            "int8_step": np.array(1 / STEPS, dtype=np.float32),
            "int8_shift": np.array(SHIFT, dtype=np.float32),
            "int8_tiny": np.array(TINY, dtype=np.float32),
            "int8_zero": np.array(SHIFT, dtype=np.uint8),
        }

    def nodes(self, products: Sequence[Product]) -> "list[NodeProto]":
        """Nodes in the place of products that all read the same."""
        source = products[0].source
        found = _row_rounding(source)
        for product in products:
            values, scales = round_weights(product.values)
            self.constants |= {f"{product.weights}/w8": values, f"{product.weights}/w8_scales": scales}
            found += _row_product(source, product.weights, product.output)
        return found


class FixedRanges:
    """What flows has one scale, measured beforehand, once its channels are made alike.

    Channels that get large are divided and their weights multiplied by the same number (SmoothQuant, Xiao et al. 2023,
    https://arxiv.org/abs/2211.10438, eq. 4), since weights have a scale of their own for each output to bear it. A
    number that is larger than any that was measured is cut off.
    """

    adds_bias = True

    def __init__(self, reaches: Reaches) -> None:
        """Take what `channel_reaches` gave."""
        self._reaches = reaches
        self.constants: Constants = {"int8_zero": np.array(SHIFT, dtype=np.uint8)}

    def nodes(self, products: Sequence[Product]) -> "list[NodeProto]":
        """Nodes in the place of products that all read the same."""
        from onnx import helper

        source = products[0].source
        reaches = np.maximum(self._reaches[source], TINY)
        largest = np.max([np.abs(product.values).max(axis=1) for product in products], axis=0)
        divisors = reaches**SMOOTHING / np.maximum(largest, TINY) ** (1 - SMOOTHING)
        self.constants |= {
            f"{source}/factors": (1 / divisors).astype(np.float32),
            f"{source}/scale": np.array((reaches / divisors).max() / STEPS, dtype=np.float32),
        }
        smooth, scale, bytes_ = f"{source}/smooth", f"{source}/scale", f"{source}/int8"
        found = [
            helper.make_node("Mul", [source, f"{source}/factors"], [smooth]),
            helper.make_node("QuantizeLinear", [smooth, scale, "int8_zero"], [bytes_]),
        ]
        for product in products:
            # Named by the output: weights that two products share are smoothed by what each of them reads.
            name = product.output
            values, scales = round_weights(product.values * divisors[:, None])
            self.constants |= {f"{name}/w8": values, f"{name}/w8_scales": scales}
            inputs = [bytes_, f"{name}/w8", scale, f"{name}/w8_scales", "int8_zero"]
            inputs += ["", product.bias] if product.bias else []
            found.append(helper.make_node("MatMulIntegerToFloat", inputs, [name], domain="com.microsoft"))
        return found


def round_weights(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights (inputs, outputs) as bytes, and the scale of each output: bytes times scales are nearly the weights."""
    scales = np.maximum(np.abs(weights).max(axis=0), TINY) / STEPS
    return np.round(weights / scales).astype(np.int8), scales.astype(np.float32)


def _row_rounding(name: str) -> "list[NodeProto]":
    """Nodes that turn the rows of a tensor into bytes, `NAME/int8`, with a scale for each, `NAME/scale`."""
    from onnx import TensorProto, helper

    return [
        helper.make_node("ReduceMax", [name, "int8_axes"], [f"{name}/highest"], keepdims=1),
        helper.make_node("ReduceMin", [name, "int8_axes"], [f"{name}/lowest"], keepdims=1),
        helper.make_node("Neg", [f"{name}/lowest"], [f"{name}/below"]),
        helper.make_node("Max", [f"{name}/highest", f"{name}/below", "int8_tiny"], [f"{name}/reach"]),
        helper.make_node("Mul", [f"{name}/reach", "int8_step"], [f"{name}/scale"]),
        helper.make_node("Div", [name, f"{name}/scale"], [f"{name}/steps"]),
        helper.make_node("Add", [f"{name}/steps", "int8_shift"], [f"{name}/shifted"]),
        helper.make_node("Round", [f"{name}/shifted"], [f"{name}/whole"]),
        helper.make_node("Cast", [f"{name}/whole"], [f"{name}/int8"], to=TensorProto.UINT8),
    ]


def _row_product(source: str, weights: str, output: str) -> "list[NodeProto]":
    """Nodes that multiply bytes, and give the sums the scales of row and column."""
    from onnx import TensorProto, helper

    return [
        helper.make_node("MatMulInteger", [f"{source}/int8", f"{weights}/w8", "int8_zero"], [f"{output}/sums"]),
        helper.make_node("Cast", [f"{output}/sums"], [f"{output}/sums_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}/sums_float", f"{source}/scale"], [f"{output}/sums_scaled"]),
        helper.make_node("Mul", [f"{output}/sums_scaled", f"{weights}/w8_scales"], [output]),
    ]


class Scheme(NamedTuple):
    """How a graph is rounded, and what of it stays in float32.

    `fixed` is for ranges that were measured beforehand; `classifier`, `last` and `first` tell whether the classifier,
    and how many of the last and first layers, stay as they are.
    """

    fixed: bool
    classifier: bool = False
    last: int = 0
    first: int = 0

    def in_float32(self, n_products: int, n_layers: int) -> set[int]:
        """The numbers of the products that stay.

        Products are counted in the order of the graph, which is that of the layers, and ends with the classifier.
        """
        per_layer = (n_products - 1) // max(1, n_layers)
        first_kept = n_products - self.classifier - self.last * per_layer
        return {*range(self.first * per_layer), *range(first_kept, n_products)}


# From the fastest to the most careful one: an export takes the first that is good enough.
SCHEMES: dict[str, Scheme] = {
    "int8 in fixed ranges": Scheme(True, classifier=True),
    "int8": Scheme(False),
    "int8 but the classifier": Scheme(False, classifier=True),
    "int8 but classifier and last layer": Scheme(False, classifier=True, last=1),
    "int8 but classifier, first and last layer": Scheme(False, classifier=True, last=1, first=1),
}


def quantize(source: Path, target: Path, scheme: str, n_layers: int, reaches: Reaches) -> None:
    """Write a graph again with its products by weights in int8, and its weights into `NAME.data` beside it.

    Args:
        source: A graph in float32.
        target: The file to write.
        scheme: A key of `SCHEMES`.
        n_layers: Layers of the network.
        reaches: From `channel_reaches`; schemes without fixed ranges do not look at it.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    graph = model.graph
    rounding = FixedRanges(reaches) if SCHEMES[scheme].fixed else RangeOfEachRow()
    left_out = SCHEMES[scheme].in_float32(len(weighted_products(graph)), n_layers)
    groups, gone = _products(graph, left_out, with_bias=rounding.adds_bias)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    table = _largest_table(graph)
    constants: Constants = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.output[0] in groups:
            nodes += rounding.nodes(groups[node.output[0]])
        elif node.output[0] == table:
            values, scales = round_weights(numpy_helper.to_array(weights[node.input[0]]).T)
            constants |= {f"{node.input[0]}/w8": values.T, f"{node.input[0]}/w8_scales": scales[:, None]}
            nodes += _looking_up(node.input[0], node.input[1], node.output[0])
        elif node.output[0] not in gone:
            nodes.append(node)
    constants |= rounding.constants
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    kept += [numpy_helper.from_array(values, name) for name, values in constants.items()]
    for part in (graph.node, graph.initializer, graph.value_info):
        del part[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    # Beside the graph, since what ONNX Runtime maps it does not copy: of the table of words no more is in memory than
    # what texts look up, and processes share it.
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")


def _products(
    graph: "GraphProto", left_out: Collection[int], *, with_bias: bool
) -> tuple[dict[str, list[Product]], set[str]]:
    """What is to be replaced: all products but those of the numbers that are left out.

    Returns:
        The products that read the same, under the output of the first of them; and the outputs of all nodes that go.
    """
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    by_source: dict[str, list[Product]] = defaultdict(list)
    first: dict[str, str] = {}
    gone: set[str] = set()
    for number, node in enumerate(weighted_products(graph)):
        if number in left_out:
            continue
        source, name = node.input
        (output,) = node.output
        product = Product(source, name, output, numpy_helper.to_array(weights[name]))
        gone.add(output)
        if with_bias and len(readers[output]) == 1 and readers[output][0].op_type == "Add":
            (adding,) = readers[output]
            others = [other for other in adding.input if other in weights and len(weights[other].dims) == 1]
            if others:
                product = product._replace(output=adding.output[0], bias=others[0])
                gone.add(adding.output[0])
        first.setdefault(source, output)
        by_source[source].append(product)
    return {first[source]: group for source, group in by_source.items()}, gone


def _largest_table(graph: "GraphProto") -> str:
    """The output of the node that looks words up; empty if there is none."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    tables = [node for node in graph.node if node.op_type == "Gather" and node.input[0] in weights]
    largest = max(tables, key=lambda node: weights[node.input[0]].ByteSize(), default=None)
    return largest.output[0] if largest else ""


def _looking_up(table: str, places: str, output: str) -> "list[NodeProto]":
    """Nodes that take rows of bytes out of a table, and give each its scale."""
    from onnx import TensorProto, helper

    return [
        helper.make_node("Gather", [f"{table}/w8", places], [f"{output}/row"]),
        helper.make_node("Gather", [f"{table}/w8_scales", places], [f"{output}/row_scale"]),
        helper.make_node("Cast", [f"{output}/row"], [f"{output}/row_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}/row_float", f"{output}/row_scale"], [output]),
    ]
