"""Graphs in int8, on networks small enough to look at: what is replaced, how near it comes, and what it is near to."""

import numpy as np
import pytest
from conftest import SENTENCES

from xlner.encode import PaddedWindows, WordEncoder, load_tokenizer

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'xlner[onnx]'")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'xlner[onnx]'")

from xlner.backends import (  # noqa: E402
    OnnxBackend,
    open_session,
)
from xlner.export.int8 import (  # noqa: E402
    SCHEMES,
    channel_reaches,
    quantize,
)

WORDS = [sentence.split() for sentence in SENTENCES]
WIDTH, N_TAGS = 16, 5
FIXED = "int8 in fixed ranges"
MANY = 1000  # pieces of the tokenizer are fewer


@pytest.fixture
def encoder(bert_folder):
    return WordEncoder(load_tokenizer(bert_folder))


def write_network(path, *, outlier=1.0, chained=False):
    """Embeddings, one channel larger, two products that read the same, one of them with a bias, and a classifier.

    Chained, the second product reads the first one, as where embeddings are narrower than layers (ALBERT, ELECTRA).
    """
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    table = draw.normal(size=(MANY, WIDTH)).astype(np.float32)
    stretch = np.where(np.arange(WIDTH) == 3, outlier, 1).astype(np.float32)
    constants = {
        "table": table,
        "stretch": stretch,
        "one": draw.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "other": draw.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "bias": draw.normal(size=WIDTH).astype(np.float32),
        "tags": draw.normal(size=(WIDTH, N_TAGS)).astype(np.float32),
        "tag_bias": draw.normal(size=N_TAGS).astype(np.float32),
    }
    constants["one"][3] /= outlier
    constants["other"][3] /= outlier
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["looked_up"]),
        helper.make_node("Mul", ["looked_up", "stretch"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "one"], ["first"]),
        helper.make_node("Add", ["bias", "first"], ["first_sum"]),
        helper.make_node("MatMul", ["first" if chained else "embedded", "other"], ["second"]),
        helper.make_node("Mul", ["first_sum", "second"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "tags"], ["scores"]),
        helper.make_node("Add", ["scores", "tag_bias"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["windows", "pieces"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.BOOL, ["windows", "pieces"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["windows", "pieces", N_TAGS])]
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "network", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return constants


def logits(path, encoder):
    """Of every window, and the same in one padded batch."""
    backend = OnnxBackend(path)
    windows = [window.piece_ids.astype(np.int64) for window in encoder.encode(WORDS)]
    one_by_one = (pieces[None] for pieces in windows)
    alone = list(backend.logits(PaddedWindows(ids, ids >= 0, np.arange(ids.size)) for ids in one_by_one))
    longest = max(map(len, windows))
    ids = np.array([np.pad(pieces, (0, longest - len(pieces)), constant_values=MANY - 1) for pieces in windows])
    (together,) = backend.logits([PaddedWindows(ids, ids != MANY - 1, np.arange(ids.size))])
    together = together.reshape(len(windows), longest, -1)
    return alone, [rows[: len(one)] for rows, one in zip(together, alone, strict=True)]


def error(path, other, encoder):
    """The largest difference of two graphs' logits, in deviations of the first's."""
    ours, theirs = (np.concatenate(logits(place, encoder)[0]) for place in (path, other))
    return float(np.abs(ours - theirs).max() / theirs.std())


def test_reaches_are_the_largest_values_of_each_channel_over_all_sentences(tmp_path, encoder):
    constants = write_network(tmp_path / "network.onnx", outlier=50.0)

    found = channel_reaches(tmp_path / "network.onnx", encoder, WORDS)

    pieces = np.unique(np.concatenate([window.piece_ids for window in encoder.encode(WORDS)]))
    assert sorted(found) == ["embedded", "mixed"]
    assert np.allclose(found["embedded"], np.abs(constants["table"][pieces] * constants["stretch"]).max(axis=0))
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


@pytest.mark.parametrize("scheme", ["int8", FIXED])
def test_products_in_int8_come_near_those_in_float32_alone_and_in_a_batch(tmp_path, encoder, scheme):
    whole, small = tmp_path / "network.onnx", tmp_path / "small.onnx"
    write_network(whole)

    quantize(whole, small, scheme, 1, channel_reaches(whole, encoder, WORDS))

    alone, together = logits(small, encoder)
    assert error(small, whole, encoder) < 0.12
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_fixed_ranges_bear_a_channel_that_is_larger_than_the_others(tmp_path, encoder):
    whole, small, rough = (tmp_path / f"{name}.onnx" for name in ("network", "small", "rough"))
    write_network(whole, outlier=50.0)
    reaches = channel_reaches(whole, encoder, WORDS)

    quantize(whole, small, FIXED, 1, reaches)
    quantize(whole, rough, FIXED, 1, {name: np.full_like(reach, reach.max()) for name, reach in reaches.items()})

    assert error(small, whole, encoder) < 0.12
    assert error(rough, whole, encoder) > 5 * error(small, whole, encoder)


def test_fixed_ranges_cut_off_what_was_never_measured(tmp_path, encoder):
    whole, small = tmp_path / "network.onnx", tmp_path / "small.onnx"
    write_network(whole)
    reaches = channel_reaches(whole, encoder, WORDS)

    quantize(whole, small, FIXED, 1, {name: reach / 10 for name, reach in reaches.items()})

    cut = np.abs(np.concatenate(logits(small, encoder)[0])).max()
    assert 0 < cut < np.abs(np.concatenate(logits(whole, encoder)[0])).max() / 5


def test_fixed_ranges_read_what_flows_once_and_take_in_the_bias(tmp_path, encoder):
    whole, small = tmp_path / "network.onnx", tmp_path / "small.onnx"
    write_network(whole)

    quantize(whole, small, FIXED, 1, channel_reaches(whole, encoder, WORDS))

    graph = onnx.load(small).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert (kinds.count("MatMul"), kinds.count("Add")) == (1, 1)  # the classifier
    assert {"one", "other", "table"}.isdisjoint(tensor.name for tensor in graph.initializer)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_every_scheme_gives_a_graph_that_runs(tmp_path, encoder, scheme):
    whole, small = tmp_path / "network.onnx", tmp_path / "small.onnx"
    write_network(whole)

    quantize(whole, small, scheme, 1, channel_reaches(whole, encoder, WORDS))

    open_session(small)
    assert error(small, whole, encoder) < 0.12


def test_channels_that_were_never_used_do_no_harm(tmp_path, encoder):
    whole, small = tmp_path / "network.onnx", tmp_path / "small.onnx"
    write_network(whole)
    reaches = channel_reaches(whole, encoder, WORDS)

    quantize(
        whole, small, FIXED, 1, {name: np.where(np.arange(WIDTH) == 5, 0, reach) for name, reach in reaches.items()}
    )

    assert np.isfinite(np.concatenate(logits(small, encoder)[0])).all()


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_what_one_product_gives_may_flow_into_the_next(tmp_path, encoder, scheme):
    whole, small = tmp_path / "network.onnx", tmp_path / "small.onnx"
    write_network(whole, chained=True)

    quantize(whole, small, scheme, 1, channel_reaches(whole, encoder, WORDS))

    assert error(small, whole, encoder) < 0.2
