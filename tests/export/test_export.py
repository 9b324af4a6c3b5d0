"""`xlner export`: what is written, what is refused, and that nothing is left half."""

import errno
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SENTENCES
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import safe_open
from test_architectures import saved
from typer.testing import CliRunner

from xlner.backends import write_manifest
from xlner.cli import app
from xlner.errors import LabelError, ModelError, RunError
from xlner.export import int8 as rounding
from xlner.export import onnx as export_folder
from xlner.export.int8 import SCHEMES, quantize, round_weights
from xlner.export.onnx import export_model
from xlner.export.parity import Parity, Reference, built_in_sentences
from xlner.tagger import load_tagger

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'xlner[onnx]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'xlner[onnx]'")

WORDS = [sentence.split() for sentence in SENTENCES]
LABELLED = "Angela B-PER\nMerkel I-PER\nbesuchte O\nKiel B-LOC\n. O\n\nDie O\nSiemens B-ORG\nAG I-ORG\n"


def parity(**changed):
    values = {
        "n_sentences": 2,
        "n_words": 200,
        "highest_difference": 0.1,
        "equal_tags": 100.0,
        "f1_before": None,
        "f1_after": None,
    }
    return Parity(**(values | changed))


@pytest.fixture(scope="module")
def exported(bert_folder, tmp_path_factory) -> Path:
    """An exported folder; not to be changed."""
    place = tmp_path_factory.mktemp("exported") / "onnx"
    export_model(bert_folder, place, WORDS)
    return place


@pytest.fixture
def graph_at_hand(exported, monkeypatch):
    """The model's graph from its earlier export, since torch needs seconds to make the same one again."""

    def copy_graph(recognizer, path, *, max_length):
        for name in ("model.onnx", "model.onnx.data"):
            shutil.copy(exported / name, path.with_name(name))

    monkeypatch.setattr(export_folder, "write_graph", copy_graph)


@pytest.mark.slow
def test_the_folder_holds_what_tagging_needs_and_the_comparison(exported):
    names = sorted(path.name for path in exported.iterdir())

    content = json.loads((exported / "parity.json").read_text())
    read = ["config.json", "model.onnx", "model.onnx.data", "tokenizer.json", "xlner.json"]
    assert names == sorted([*read, "manifest.json", "parity.json"])
    assert sorted(json.loads((exported / "manifest.json").read_text())["files"]) == read
    assert (content["precision"], content["published"]) == ("fp32", "float32")
    assert content["attempts"][0]["highest_difference"] < 1e-4
    assert content["attempts"][0]["equal_tags"] == 100.0
    assert [path.name for path in exported.parent.iterdir()] == ["onnx"]


@pytest.mark.usefixtures("graph_at_hand")
def test_the_comparison_of_labelled_sentences_has_both_scores(bert_folder, tmp_path):
    tags = load_tagger(bert_folder).tag_sentences(WORDS)

    attempt = export_model(bert_folder, tmp_path / "onnx", WORDS, tags)

    assert (attempt.parity.f1_before, attempt.parity.f1_after) == (100.0, 100.0)
    assert attempt.parity.n_words == sum(map(len, WORDS))


def test_labels_of_which_nothing_is_found_tell_nothing(bert_folder):
    tagger = load_tagger(bert_folder)
    words = [["der", "die", "das"]]
    never = next(kind for kind in tagger.types if all(kind not in tag for tag in tagger.tag_sentences(words)[0]))

    nothing = Reference(tagger, words, [["O", "O", "O"]]).compare(tagger)
    missed = Reference(tagger, words, [[f"B-{never}", "O", "O"]]).compare(tagger)

    assert (nothing.f1_before, missed.f1_before) == (None, None)
    assert nothing.acceptable
    assert not replace(missed, equal_tags=99.0).acceptable
    with pytest.raises(LabelError, match="no type in common"):
        Reference(tagger, words, [["B-PERSON", "O", "O"]])


@settings(max_examples=50)
@given(
    weights=arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1000, 1000, width=32)
    )
)
def test_rounded_weights_are_within_half_a_step(weights):
    values, scales = round_weights(weights)

    assert values.dtype == np.int8
    assert np.abs(values.astype(int)).max() <= 127
    assert np.all(np.abs(values * scales - weights) <= 0.5001 * scales + 1e-6)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_every_scheme_leaves_products_of_the_network_out_by_number(scheme):
    left_out = list(SCHEMES[scheme].in_float32(13, 2))

    assert len(set(left_out)) == len(left_out)
    assert set(left_out) <= set(range(13))
    assert len(left_out) < 13 or scheme == "int8 but classifier, first and last layer"


def test_schemes_leave_out_more_and_more():
    sizes = [(scheme.fixed, len(set(scheme.in_float32(37, 6)))) for scheme in SCHEMES.values()]

    assert sizes == [(True, 1), (False, 0), (False, 1), (False, 7), (False, 13)]


@pytest.mark.parametrize(
    ("changed", "acceptable"),
    [
        ({"f1_before": 80.0, "f1_after": 79.5, "equal_tags": 90.0}, True),
        ({"f1_before": 80.0, "f1_after": 79.4}, False),
        ({"f1_before": 80.0, "f1_after": 81.0}, True),
        ({"equal_tags": 99.5}, True),
        ({"equal_tags": 99.4}, False),
    ],
)
def test_what_an_export_may_cost(changed, acceptable):
    assert parity(**changed).acceptable == acceptable


def poor_int8(monkeypatch, good_from):
    """Quantisation that is bad before the scheme of this number: its weights come out as zeros."""
    names = list(SCHEMES)

    def spoiled(source, target, scheme, *others):
        with monkeypatch.context() as patch:
            if names.index(scheme) < good_from:
                patch.setattr(rounding, "round_weights", lambda weights: [part * 0 for part in round_weights(weights)])
            quantize(source, target, scheme, *others)

    monkeypatch.setattr(export_folder, "quantize", spoiled)


@pytest.mark.usefixtures("graph_at_hand")
def test_a_better_scheme_is_tried_where_one_costs_too_much(bert_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("xlner.export.parity.LOWEST_EQUAL_TAGS", 80.0)
    poor_int8(monkeypatch, good_from=2)
    told = []

    attempt = export_model(bert_folder, tmp_path / "onnx", WORDS, precision="int8", report=told.append)

    names = list(SCHEMES)
    assert attempt.scheme == names[2]
    assert [one.scheme for one in told] == names[:3]
    content = json.loads((tmp_path / "onnx" / "parity.json").read_text())
    assert [one["scheme"] for one in content["attempts"]] == names[:3]


@pytest.mark.usefixtures("graph_at_hand")
def test_an_export_that_costs_too_much_is_refused_unless_forced(bert_folder, tmp_path, monkeypatch):
    poor_int8(monkeypatch, good_from=9)

    with pytest.raises(
        ModelError,
        match=r"differs too much from the original; nothing is written. Tried int8 in fixed ranges: .*last layer",
    ):
        export_model(bert_folder, tmp_path / "onnx", WORDS, precision="int8")
    assert list(tmp_path.iterdir()) == []

    attempt = export_model(bert_folder, tmp_path / "onnx", WORDS, precision="int8", force=True)
    assert not attempt.parity.acceptable
    assert load_tagger(tmp_path / "onnx").tag_sentences(WORDS)


@pytest.mark.usefixtures("graph_at_hand")
@pytest.mark.parametrize("step", ["write_graph", "quantize", "write_manifest"])
def test_a_full_disk_leaves_nothing_half_and_an_earlier_export_as_it_was(bert_folder, tmp_path, monkeypatch, step):
    target = tmp_path / "onnx"
    export_model(bert_folder, target, WORDS)
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_folder, step, full)

    with pytest.raises(RunError, match=r"onnx: cannot be written: No space left on device"):
        export_model(bert_folder, target, WORDS, precision="int8", force=True)

    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


@pytest.mark.usefixtures("graph_at_hand")
def test_an_earlier_export_is_replaced_and_nothing_else_is(bert_folder, tmp_path):
    target = tmp_path / "onnx"
    for _ in range(2):
        export_model(bert_folder, target, WORDS)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one.txt").write_text("dear")
    (tmp_path / "file").write_text("")

    with pytest.raises(ModelError, match="holds other things than an exported model"):
        export_model(bert_folder, tmp_path / "letters", WORDS)
    with pytest.raises(ModelError, match="is a file; expected a folder to write"):
        export_model(bert_folder, tmp_path / "file", WORDS)

    assert (tmp_path / "letters" / "one.txt").read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "letters", "onnx"]


def test_an_export_is_not_exported_again(exported, tmp_path):
    with pytest.raises(ModelError, match="is an exported model; export the folder that it was made of"):
        export_model(str(exported), tmp_path / "again", WORDS)


def test_words_that_no_window_decides_are_compared_too(bert_folder):
    tagger = load_tagger(bert_folder)
    sentences = [["\u200b"], [], ["Kiel", "\ufeff"]]

    found = Reference(tagger, sentences, None).compare(tagger)

    assert (found.n_sentences, found.n_words, found.equal_tags, found.highest_difference) == (3, 3, 100.0, 0.0)


def test_built_in_sentences_are_of_three_languages():
    assert len(built_in_sentences()) > 60
    assert all(len(words) > 2 for words in built_in_sentences())


@pytest.mark.usefixtures("graph_at_hand")
@pytest.mark.parametrize(
    ("options", "expected"),
    [((), "float32"), (("--corpus", "corpus.conll"), "F1"), (("--corpus", "text.txt"), "5 sentences")],
)
def test_the_command_writes_the_folder_and_prints_the_comparison(bert_folder, tmp_path, monkeypatch, options, expected):
    monkeypatch.chdir(tmp_path)
    Path("corpus.conll").write_text(LABELLED)
    Path("text.txt").write_text("\n".join(SENTENCES))

    outcome = CliRunner().invoke(app, ["export", bert_folder, "--onnx", "out", *options])

    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.startswith("out: float32, ")
    assert expected in outcome.stdout
    assert load_tagger("out").tag(SENTENCES[0])


def test_the_command_refuses_a_corpus_without_sentences(bert_folder, tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")

    outcome = CliRunner().invoke(
        app, ["export", bert_folder, "--onnx", str(tmp_path / "out"), "--corpus", str(tmp_path / "empty.txt")]
    )

    assert "no sentence in it" in str(outcome.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_what_exporting_needs_is_named_where_it_is_missing(bert_folder, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(ModelError, match=f"exporting needs {missing}: pip install 'xlner\\[onnx\\]'"):
        export_model(bert_folder, tmp_path / "out", WORDS)


def test_a_folder_that_is_no_model_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(ModelError, match=r"expected a model folder with config.json"):
        export_model(str(tmp_path / "empty"), tmp_path / "out", WORDS)

    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_export_of_another_scheme_tags_as_the_original(bert_folder, tmp_path, precision):
    folder = Path(shutil.copytree(bert_folder, tmp_path / "bioes"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["id2label"]["1"] = "S-LOC"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    attempt = export_model(str(folder), tmp_path / "out", WORDS, precision=precision)

    before, after = load_tagger(folder), load_tagger(tmp_path / "out")
    assert attempt.parity.acceptable
    assert (after.labels, after.tag_sentences(WORDS)) == (before.labels, before.tag_sentences(WORDS))


@pytest.mark.parametrize("kind", ["fnet", "funnel"])
def test_a_network_in_which_padding_matters_is_not_exported(tmp_path, kind):
    folder = saved(tmp_path / "model", kind)

    with pytest.raises(ModelError, match="cannot be exported: what it says of a text depends on the padding"):
        export_model(folder, tmp_path / "onnx", WORDS)

    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def write_odd_graph(path, *, inputs=("input_ids", "attention_mask"), output="logits", pieces="pieces", n_tags=7):
    """A graph that looks scores up, with other inputs, another output, or for windows of one length alone."""
    from onnx import TensorProto, helper, numpy_helper, save

    table = numpy_helper.from_array(np.zeros((1000, n_tags), dtype=np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", inputs[0]], [output])],
        "odd",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["windows", pieces]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["windows", pieces, n_tags])],
        [table],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"inputs": ("input_ids", "attention_mask", "token_type_ids")}, "the graph takes .*token_type_ids and gives"),
        ({"inputs": ("input_ids",)}, "the graph takes input_ids and gives logits; expected input_ids, attention_mask"),
        ({"output": "last_hidden_state"}, "gives last_hidden_state; expected"),
        ({"pieces": 6}, "the graph takes input_ids of one size alone"),
        ({"n_tags": 5}, "gives scores for 5 tags, and 7 have a name|the graph fails at"),
    ],
)
def test_a_graph_of_another_shape_is_refused_in_a_line(exported, tmp_path, odd, message):
    folder = Path(shutil.copytree(exported, tmp_path / "odd"))
    write_odd_graph(folder / "model.onnx", **odd)
    about = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    write_manifest(folder, about["files"], precision="fp32", max_length=about["max_length"], pad_id=about["pad_id"])

    with pytest.raises(ModelError, match=message) as refusal:
        load_tagger(folder).tag(SENTENCES[0])

    assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("graph_at_hand")
def test_what_cannot_be_cleaned_up_does_not_hide_what_went_wrong(bert_folder, tmp_path, monkeypatch):
    def read_only(*arguments, **named):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(export_folder, "write_manifest", read_only)
    monkeypatch.setattr(shutil.os, "rmdir", read_only)

    with pytest.raises(RunError, match=r"onnx: cannot be written: Read-only file system"):
        export_model(bert_folder, tmp_path / "onnx", WORDS)


@pytest.mark.usefixtures("graph_at_hand")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("n_bytes", [100, 10_000])
def test_a_file_that_cannot_grow_is_told_in_a_line(bert_folder, tmp_path, precision, n_bytes):
    resource = pytest.importorskip("resource", reason="limits of files are POSIX's")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        with pytest.raises((ModelError, RunError), match=r"onnx: cannot be written: "):
            export_model(bert_folder, tmp_path / "onnx", WORDS, precision=precision)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert not (tmp_path / "onnx").exists()


def test_a_model_in_halves_opens_as_before_and_takes_half_the_bytes(bert_folder, tmp_path):
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


def test_card_and_tuned_thresholds_go_along_in_halves(bert_folder, tmp_path):
    model = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    (model / "README.md").write_text("Taught by: runs/en/model")
    (model / "thresholds.json").write_text('{"thresholds": {"PER": 0.7}}')

    export_model(str(model), tmp_path / "half", WORDS, precision="fp16")

    assert (tmp_path / "half" / "README.md").read_text() == "Taught by: runs/en/model"
    assert load_tagger(tmp_path / "half").tuned_thresholds()["PER"] == 0.7
    (tmp_path / "half" / "notes.txt").write_text("keep me")
    with pytest.raises(ModelError, match=r"holds other things than a model in halves \(notes\.txt\)"):
        export_model(str(model), tmp_path / "half", WORDS, precision="fp16")


def test_an_earlier_export_in_halves_is_replaced_and_nothing_else(bert_folder, tmp_path):
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


def test_halves_that_differ_too_much_are_refused_unless_forced(bert_folder, tmp_path, monkeypatch):
    bad = parity(equal_tags=80.0)
    monkeypatch.setattr(Reference, "compare", lambda *arguments: bad)

    with pytest.raises(ModelError, match=r"differs too much after the export: halves: .* equal tags 80\.00 %"):
        export_model(bert_folder, tmp_path / "half", WORDS, precision="fp16")
    assert list(tmp_path.iterdir()) == []
    export_model(bert_folder, tmp_path / "half", WORDS, precision="fp16", force=True)
    assert load_tagger(tmp_path / "half").tag_sentences(WORDS[:1])
