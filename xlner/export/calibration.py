"""How large the numbers get that flow into a graph's products by weights, on real sentences."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xlner.backends.onnx_backend import open_session
from xlner.data.alignment import WordEncoder

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
    from onnx import TensorProto, helper

    model = onnx.load(path, load_external_data=False)  # weights above 2 GB stay where they are, beside both graphs
    graph = model.graph
    sizes = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    flowing = {node.input[0]: sizes[node.input[1]] for node in weighted_products(graph)}
    for name, size in flowing.items():
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
    measuring = path.with_name("measuring.onnx")
    try:
        onnx.save(model, measuring)
        session = open_session(measuring)
    finally:
        with suppress(OSError):  # the disk must not speak over the reason
            measuring.unlink(missing_ok=True)
    found = {name: np.zeros(size, dtype=np.float32) for name, size in flowing.items()}
    for window in encoder.encode(sentences):
        pieces = np.array([window.piece_ids], dtype=np.int64)
        inputs = {"input_ids": pieces, "attention_mask": np.ones(pieces.shape, dtype=np.bool_)}
        for name, reach in zip(found, session.run([f"{name}/reach" for name in found], inputs), strict=True):
            np.maximum(found[name], reach, out=found[name])
    return found
