"""Exported compact students: the graph says what the network says, in float32 and in bytes, without torch."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_students import SENTENCES, TAGS, make_student
from typer.testing import CliRunner

from xlner import load_tagger
from xlner.cli import app
from xlner.errors import ModelError
from xlner.export.compact_graph import GRAPHS
from xlner.export.onnx import export_model
from xlner.models.compact_folder import open_student
from xlner.predict import word_probs

DECODERS = ("softmax", "crf")


def probs_of(folder, sentences):
    backend, encoder, _ = open_student(folder)
    return word_probs(backend, encoder, sentences, n_tags=len(TAGS))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", sorted(GRAPHS))
def test_a_graph_says_what_the_network_says(tmp_path, kind, decoder):
    make_student(tmp_path / "model", kind, decoder)

    attempt = export_model(str(tmp_path / "model"), tmp_path / "onnx", SENTENCES[:3])

    assert attempt.parity.highest_difference < 1e-4
    for one, other in zip(probs_of(tmp_path / "model", SENTENCES), probs_of(tmp_path / "onnx", SENTENCES), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@settings(max_examples=20)
@given(st.lists(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=12), min_size=1, max_size=5))
def test_a_graph_takes_batches_of_any_shape(tmp_path_factory, sentences):
    base = tmp_path_factory.getbasetemp()
    for kind in GRAPHS:
        model, graph = base / f"any-{kind}", base / f"any-{kind}-onnx"
        if not graph.exists():
            make_student(model, kind)
            export_model(str(model), graph, SENTENCES[:1])
        for one, other in zip(probs_of(model, sentences), probs_of(graph, sentences), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("kind", "precision"), [("bilstm", "fp32"), ("linear", "int8")])
def test_tuned_thresholds_go_along(tmp_path, kind, precision):
    make_student(tmp_path / "model", kind)
    (tmp_path / "model/thresholds.json").write_text('{"thresholds": {"LOC": 0.25}}')

    export_model(str(tmp_path / "model"), tmp_path / "small", SENTENCES[:1], precision=precision, force=True)

    assert load_tagger(tmp_path / "small").tuned_thresholds()["LOC"] == 0.25


@pytest.mark.parametrize(("kind", "precision"), [("bilstm", "int8"), ("linear", "int8")])
def test_bytes_say_nearly_the_same(tmp_path, kind, precision):
    make_student(tmp_path / "model", kind)

    attempt = export_model(str(tmp_path / "model"), tmp_path / "small", SENTENCES[:2], precision=precision, force=True)

    assert attempt.parity.highest_difference < 0.15
    assert load_tagger(tmp_path / "small").tag("Anna lebt in Kiel") is not None


@pytest.mark.parametrize("kind", ["bilstm", "linear"])
def test_in_bytes_a_text_has_the_same_scores_alone_and_beside_others(tmp_path, kind):
    make_student(tmp_path / "model", kind)
    export_model(str(tmp_path / "model"), tmp_path / "small", SENTENCES[:1], precision="int8", force=True)

    together = probs_of(tmp_path / "small", SENTENCES)

    for sentence, beside in zip(SENTENCES, together, strict=True):
        np.testing.assert_allclose(probs_of(tmp_path / "small", [sentence])[0], beside, atol=1e-6)


@pytest.mark.parametrize("kind", ["bilstm", "linear"])
def test_halves_take_half_the_bytes_and_are_opened_as_before(tmp_path, kind):
    make_student(tmp_path / "model", kind)

    attempt = export_model(str(tmp_path / "model"), tmp_path / "half", SENTENCES[:3], precision="fp16")

    whole, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("model", "half"))
    assert attempt.parity.highest_difference < 0.01
    assert half < 0.75 * whole  # the header of so small a file counts


@pytest.mark.slow
def test_an_exported_student_is_opened_without_torch(tmp_path):
    make_student(tmp_path / "model", "bilstm", "crf")
    export_model(str(tmp_path / "model"), tmp_path / "onnx", SENTENCES[:1])
    ask = (
        "import sys; from xlner import load_tagger; t = load_tagger(sys.argv[1]); t.tag('Anna lebt in Kiel .');"
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'torch', 'transformers'}))"
    )

    answer = subprocess.run(
        [sys.executable, "-c", ask, str(tmp_path / "onnx")], capture_output=True, text=True, check=True
    )

    assert answer.stdout == "[]\n"


def test_the_command_writes_an_export_and_replaces_only_its_own(tmp_path):
    make_student(tmp_path / "model", "bilstm")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    command = ["export", str(tmp_path / "model"), "--force", "--onnx"]

    for _ in range(2):
        result = CliRunner().invoke(app, [*command, str(tmp_path / "onnx"), "--int8"])
        assert result.exit_code == 0, result.output
    assert "graph in bytes" in result.output
    assert json.loads((tmp_path / "onnx" / "parity.json").read_text())["precision"] == "int8"
    (tmp_path / "onnx" / "app.js").write_text("keep me")
    for place in ("mine", "onnx"):
        refused = CliRunner().invoke(app, [*command, str(tmp_path / place), "--int8"])
        assert refused.exit_code != 0

    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert (tmp_path / "onnx" / "app.js").read_text() == "keep me"
    assert "(app.js)" in str(refused.exception)


@pytest.mark.parametrize(
    ("kind", "source", "precision", "message"),
    [
        ("bilstm", "onnx", "fp32", "is an exported model"),
        ("linear", "model", "fp32", "needs no export"),
        ("bilstm", "model", "into itself", "is the model itself"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, kind, source, precision, message):
    make_student(tmp_path / "model", kind)
    if source == "onnx":
        export_model(str(tmp_path / "model"), tmp_path / "onnx", SENTENCES[:1])
    target = tmp_path / source if precision == "into itself" else tmp_path / "new"
    asked = "fp32" if precision == "into itself" else precision

    with pytest.raises(ModelError, match=message):
        export_model(str(tmp_path / source), target, SENTENCES[:1], precision=asked)

    assert not (tmp_path / "new").exists()
