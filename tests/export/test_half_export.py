"""`xlner export --half` of a tagger of pieces: the same kind of folder in half the bytes."""

import json
from pathlib import Path

import pytest
from conftest import SENTENCES
from safetensors import safe_open
from typer.testing import CliRunner

from xlner import load_tagger
from xlner.cli import app
from xlner.errors import ModelError
from xlner.export import onnx as half_folder
from xlner.export.onnx import export_model
from xlner.export.parity import Parity

WORDS = [sentence.split() for sentence in SENTENCES]


def test_it_opens_as_before_and_takes_half_the_bytes(bert_folder, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    corpus = ["--corpus", str(tmp_path / "text.txt")]
    told = CliRunner().invoke(app, ["export", bert_folder, "--onnx", str(tmp_path / "half"), "--half", *corpus])

    assert told.exit_code == 0, told.output
    before, half = load_tagger(bert_folder), load_tagger(tmp_path / "half")
    assert "halves" in told.stdout
    assert half.tag_sentences(WORDS) == before.tag_sentences(WORDS)
    assert {str(values.dtype) for values in half.model.parameters()} == {"torch.float32"}
    sizes = [(Path(place) / "model.safetensors").stat().st_size for place in (tmp_path / "half", bert_folder)]
    assert sizes[0] < 0.6 * sizes[1]
    with safe_open(tmp_path / "half" / "model.safetensors", "np") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118
    content = json.loads((tmp_path / "half" / "parity.json").read_text())
    assert (content["precision"], content["equal_tags"]) == ("fp16", 100.0)
    assert json.loads((tmp_path / "half" / "xlner.json").read_text())["similarity"] == ""


def test_an_earlier_export_is_replaced_and_nothing_else(bert_folder, tmp_path):
    export_model(bert_folder, tmp_path / "half", WORDS, precision="fp16")
    export_model(bert_folder, tmp_path / "half", WORDS, precision="fp16")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("x")

    with pytest.raises(ModelError, match="holds other things than a model in halves"):
        export_model(bert_folder, tmp_path / "other", WORDS, precision="fp16")
    with pytest.raises(ModelError, match="is a file"):
        export_model(bert_folder, tmp_path / "file", WORDS, precision="fp16")
    with pytest.raises(ModelError, match="is the model itself"):
        export_model(bert_folder, Path(bert_folder), WORDS, precision="fp16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "half", "other"]


def test_what_differs_too_much_is_refused_unless_forced(bert_folder, tmp_path, monkeypatch):
    bad = Parity(1, 100, 0.9, 80.0, None, None)
    monkeypatch.setattr(half_folder.Reference, "compare", lambda *arguments: bad)

    with pytest.raises(ModelError, match=r"differs too much after the export: halves: .* equal tags 80\.00 %"):
        export_model(bert_folder, tmp_path / "half", WORDS, precision="fp16")
    assert list(tmp_path.iterdir()) == []
    export_model(bert_folder, tmp_path / "half", WORDS, precision="fp16", force=True)
    assert load_tagger(tmp_path / "half").tag_sentences(WORDS[:1])
