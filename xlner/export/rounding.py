"""The two ways to turn what flows through a graph into bytes, and to multiply it by weights in bytes.

New names are those of the graph with an ending: `/w8...` for weights, `/sums...` for what a product gives, others for
what flows into one. What one product gives may flow into the next, so no ending serves for two of these.

Neither depends on the batch, so a text's entities do not depend on the texts beside it, as they would with ONNX
Runtime's own dynamic quantiser: that takes one scale for a whole batch. Sums are exact integers. What flows is made
unsigned, with 128 for 0: processors multiply unsigned bytes by signed ones.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlner.export.calibration import Reaches

if TYPE_CHECKING:
    from onnx import NodeProto

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
        bytes_ = f"{source}/int8"
        found = [
            helper.make_node("Mul", [source, f"{source}/factors"], [f"{source}/smooth"]),
            helper.make_node(
                "QuantizeLinear", [f"{source}/smooth", f"{source}/scale", "int8_zero"], [f"{source}/int8"]
            ),
        ]
        for product in products:
            # Named by the output: weights that two products share are smoothed by what each of them reads.
            name = product.output
            values, scales = round_weights(product.values * divisors[:, None])
            self.constants |= {f"{name}/w8": values, f"{name}/w8_scales": scales}
            inputs = [bytes_, f"{name}/w8", f"{source}/scale", f"{name}/w8_scales", "int8_zero"]
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
