"""Weights of a graph in int8: smaller, and faster where the processor multiplies bytes.

Weights are rounded once, with a scale for each output, and the table of word embeddings with one for each word piece.
What flows through is rounded while the graph runs, in one of two ways (`rounding.py`).
"""

from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xlner.export.calibration import Reaches, weighted_products
from xlner.export.rounding import Constants, FixedRanges, Product, RangeOfEachRow, round_weights

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


class Scheme(NamedTuple):
    """How a graph is rounded.

    `fixed` is for ranges that were measured beforehand. `in_float32`, given the number of products and of layers, has
    the numbers of the products that stay as they are; products are counted in the order of the graph, which is that
    of the layers, and ends with the classifier.
    """

    fixed: bool
    in_float32: Callable[[int, int], Collection[int]]


def quantize(source: Path, target: Path, scheme: str, n_layers: int, reaches: Reaches) -> None:
    """Write a graph again with its products by weights in int8.

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
    fixed, in_float32 = SCHEMES[scheme]
    rounding = FixedRanges(reaches) if fixed else RangeOfEachRow()
    groups, gone = _products(graph, in_float32, n_layers, with_bias=rounding.adds_bias)
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
    _replace(graph, nodes, [*kept, *(numpy_helper.from_array(values, name) for name, values in constants.items())])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, target)


def _products(
    graph: "GraphProto", in_float32: Callable[[int, int], Collection[int]], n_layers: int, *, with_bias: bool
) -> tuple[dict[str, list[Product]], set[str]]:
    """What is to be replaced.

    Returns:
        The products that read the same, under the output of the first of them; and the outputs of all nodes that go.
    """
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    products = weighted_products(graph)
    left_out = set(in_float32(len(products), n_layers))
    by_source: dict[str, list[Product]] = defaultdict(list)
    first: dict[str, str] = {}
    gone: set[str] = set()
    for number, node in enumerate(products):
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


def _replace(graph: "GraphProto", nodes: "list[NodeProto]", constants: list[object]) -> None:
    del graph.node[:]
    del graph.initializer[:]
    del graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _none(n_products: int, n_layers: int) -> Collection[int]:
    return ()


def _classifier(n_products: int, n_layers: int) -> Collection[int]:
    return (n_products - 1,)


def _classifier_and_last_layer(n_products: int, n_layers: int) -> Collection[int]:
    return range(n_products - 1 - (n_products - 1) // max(1, n_layers), n_products)


def _classifier_and_outer_layers(n_products: int, n_layers: int) -> Collection[int]:
    per_layer = (n_products - 1) // max(1, n_layers)
    return {*range(per_layer), *_classifier_and_last_layer(n_products, n_layers)}


# From the fastest to the most careful one: an export takes the first that is good enough.
SCHEMES: dict[str, Scheme] = {
    "int8 in fixed ranges": Scheme(True, _classifier),
    "int8": Scheme(False, _none),
    "int8 but the classifier": Scheme(False, _classifier),
    "int8 but classifier and last layer": Scheme(False, _classifier_and_last_layer),
    "int8 but classifier, first and last layer": Scheme(False, _classifier_and_outer_layers),
}
