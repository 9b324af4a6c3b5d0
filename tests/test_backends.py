"""The tagger by every backend: the same pieces, the same entities, and none of torch where it is not needed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import LABELS, REPOSITORY, SENTENCES, TOKENIZERS, tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from xlner.backends import OnnxBackend
from xlner.encode import PaddedWindows, WordEncoder, load_tokenizer, read_tokenizer
from xlner.errors import ModelError
from xlner.export.onnx import export_model
from xlner.models.folder import save_model
from xlner.models.inference import TorchBackend, predicting, round_weights, weights_dtype
from xlner.models.settings import ModelSettings
from xlner.tagger import load_tagger

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'xlner[onnx]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'xlner[onnx]'")

CPU = torch.device("cpu")
WORDS = [sentence.split() for sentence in SENTENCES]
PRECISIONS = ("fp32", "int8")
TEXT = st.lists(
    st.text(max_size=5) | st.sampled_from(["\u200b", "e\u0301", "北京", "Angela Merkel ", "Kiel. ", "x" * 90, " "]),
    max_size=12,
).map("".join)
lasting = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)


@pytest.fixture(scope="module")
def exported(bert_folder, tmp_path_factory) -> dict[str, Path]:
    """The exported folders of one model, by precision; not to be changed."""
    place = tmp_path_factory.mktemp("exported")
    for precision in PRECISIONS:
        export_model(bert_folder, place / precision, WORDS, precision=precision, force=True)
    return {precision: place / precision for precision in PRECISIONS}


@pytest.fixture(scope="module")
def original(bert_folder):
    return load_tagger(bert_folder)


@pytest.fixture(scope="module", params=PRECISIONS)
def export(request, exported):
    return load_tagger(exported[request.param])


@pytest.fixture(scope="module")
def exported_fp32(exported):
    return load_tagger(exported["fp32"])


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    """A copy of an exported folder, to be damaged."""
    shutil.copytree(exported["fp32"], tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
@settings(max_examples=50)
@given(sentences=st.lists(st.lists(st.text(max_size=8) | st.sampled_from(["Angela", "", "\u200b"]), max_size=30)))
def test_a_stored_tokenizer_gives_the_windows_of_the_original(name, tmp_path_factory, sentences):
    folder = tmp_path_factory.mktemp("tokenizer")
    TOKENIZERS[name]().save_pretrained(folder)
    before = WordEncoder(load_tokenizer(str(folder)), 24)
    before.tokenizer.backend_tokenizer.save(str(folder / "stored.json"))

    after = WordEncoder(read_tokenizer(folder / "stored.json", max_length=24, pad_id=before.pad_id))

    assert (after.prefix, after.suffix, after.fingerprint) == (before.prefix, before.suffix, before.fingerprint)
    windows = zip(before.encode(sentences), after.encode(sentences), strict=True)
    for one, other in windows:
        assert [np.asarray(part).tolist() for part in one] == [np.asarray(part).tolist() for part in other]


@pytest.mark.slow
@lasting
@given(rows=st.lists(st.lists(st.integers(5, 60), min_size=1, max_size=30), min_size=1, max_size=5))
def test_onnx_runtime_gives_the_logits_of_torch(original, exported_fp32, rows):
    width = max(map(len, rows))
    input_ids = np.array([row + [0] * (width - len(row)) for row in rows], dtype=np.int64)
    mask = np.array([[True] * len(row) + [False] * (width - len(row)) for row in rows])

    batch = PaddedWindows(input_ids, mask, np.flatnonzero(mask))

    found, expected = (next(tagger.backend.logits([batch])) for tagger in (exported_fp32, original))

    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape == (mask.sum(), len(original.labels.tags))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@lasting
@given(texts=st.lists(TEXT, max_size=4), data=st.data())
def test_a_text_has_the_same_entities_whatever_stands_beside_it(export, texts, data):
    alone = [export.tag(text) for text in texts]
    order = data.draw(st.permutations(range(len(texts))))
    export.batch_pieces = data.draw(st.sampled_from([1, 70, 500, 4096]))

    together = export.tag_batch([texts[number] for number in order])

    for number, entities in zip(order, together, strict=True):
        assert [entity[:4] for entity in entities] == [entity[:4] for entity in alone[number]]
        scores = [entity.score for entity in alone[number]]
        assert [entity.score for entity in entities] == pytest.approx(scores, abs=1e-3)


def test_an_export_finds_the_entities_of_the_original(original, exported):
    text = " ".join(SENTENCES * 5)

    found = load_tagger(exported["fp32"]).tag(text)

    expected = original.tag(text)
    assert [entity[:4] for entity in found] == [entity[:4] for entity in expected]
    assert len(found) > 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_every_kind_of_tokenizer_and_network_can_be_exported(kind, tmp_path):
    tokenizer = TOKENIZERS[kind]()
    network = tiny_model(tokenizer, kind="bert" if kind == "word_piece" else "xlm-roberta")
    save_model(tmp_path / "model", network, tokenizer, ModelSettings(word_splitter="whitespace", max_length=32))

    export_model(str(tmp_path / "model"), tmp_path / "onnx", WORDS)

    before, after = load_tagger(tmp_path / "model"), load_tagger(tmp_path / "onnx")
    assert after.tag_sentences(WORDS) == before.tag_sentences(WORDS)
    assert (after.word_splitter, after.encoder.max_length, after.labels) == ("whitespace", 32, LABELS)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_exported_folder_is_tagged_without_torch_and_transformers(exported, precision):
    # None in sys.modules makes an import fail as if nothing were installed.
    script = (
        "import sys; gone = ('torch', 'transformers', 'safetensors', 'huggingface_hub', 'onnx', 'omegaconf', 'typer');"
        "sys.modules.update(dict.fromkeys(gone));"
        "from xlner import load_tagger;"
        f"print(load_tagger({str(exported[precision])!r}).tag({SENTENCES[0]!r})[0].text)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=False)

    assert done.stdout.strip() == load_tagger(exported[precision]).tag(SENTENCES[0])[0].text, done.stderr


@pytest.mark.slow
def test_without_torch_a_model_folder_says_what_is_missing(bert_folder):
    script = (
        "import sys; sys.modules['torch'] = None;"
        "from xlner import load_tagger; from xlner.errors import ModelError\n"
        f"try: load_tagger({bert_folder!r})\nexcept ModelError as problem: print(problem)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=False)

    assert "no exported model (no model.onnx), and torch is not installed" in done.stdout, done.stderr


def test_bf16_finds_nearly_the_probabilities_of_fp32(bert_folder, original):
    quick = load_tagger(bert_folder, precision="bf16")

    probs = [np.concatenate(tagger.probs(WORDS)) for tagger in (original, quick)]

    assert quick.model.recognizer.dtype == torch.bfloat16
    np.testing.assert_allclose(probs[0], probs[1], atol=0.25)
    assert np.mean(probs[0].argmax(axis=1) == probs[1].argmax(axis=1)) > 0.9


def test_weights_of_a_file_that_are_rounded_one_by_one_are_those_rounded_at_once(tmp_path):
    values = {"table.weight": torch.randn(5000, 64), "layer.weight": torch.randn(64, 64), "layer.bias": torch.randn(64)}
    save_file(values, tmp_path / "weights")
    network = nn.Module()
    network.table, network.layer, network.tied = nn.Embedding(5000, 64), nn.Linear(64, 64), nn.Linear(64, 5000, False)
    network.register_buffer("places", torch.arange(10))
    network.load_state_dict(load_file(tmp_path / "weights"), strict=False, assign=True)
    network.tied.weight = network.table.weight
    network.register_buffer("inv_freq", torch.tensor([0.1, 0.01]))
    network.register_buffer("scale", torch.tensor([0.1]))

    round_weights(network, torch.bfloat16)

    for name, expected in values.items():
        assert network.get_parameter(name).equal(expected.bfloat16())
    assert network.tied.weight is network.table.weight
    assert network.places.dtype == torch.int64
    # Frequencies of rotary positions stay, as in transformers.
    assert (network.inv_freq.dtype, network.scale.dtype) == (torch.float32, torch.bfloat16)
    # What was let go is read from the file again.
    assert load_file(tmp_path / "weights")["table.weight"].equal(values["table.weight"])


def test_auto_is_bf16_only_where_the_hardware_is_made_for_it():
    has_tiles = bool(torch.cpu.get_capabilities().get("amx_tile", False))

    assert weights_dtype("auto", CPU) == (torch.bfloat16 if has_tiles else torch.float32)
    assert weights_dtype("fp32", CPU) == torch.float32


@pytest.mark.parametrize("training", [False, True])
def test_a_backend_predicts_without_dropout_and_leaves_the_mode_as_it_was(training):
    model = tiny_model(TOKENIZERS["word_piece"]()).train(training)
    backend = TorchBackend(model, CPU)
    pieces = np.full((1, 9), 5, dtype=np.int64)

    first, second = backend.logits([PaddedWindows(pieces, pieces > 0, np.arange(9))] * 2)

    np.testing.assert_array_equal(first, second)
    assert model.training == training
    with predicting(model, CPU, None):
        assert not model.training


def test_an_unknown_precision_is_refused(bert_folder):
    with pytest.raises(ModelError, match="precision is 'fp8'; expected one of fp32, bf16, auto"):
        load_tagger(bert_folder, precision="fp8")


def test_an_exported_folder_has_its_own_precision_device_and_no_network(exported):
    with pytest.raises(ModelError, match="exported as int8; bf16 needs the original folder"):
        load_tagger(exported["int8"], precision="bf16")
    with pytest.raises(ModelError, match="an exported model runs on the CPU; device 'cuda' needs the original"):
        load_tagger(exported["int8"], device="cuda")
    with pytest.raises(ModelError, match="no network of torch"):
        _ = load_tagger(exported["int8"], precision="auto").model


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json", "config.json", "xlner.json"])
def test_a_file_that_was_cut_short_is_refused_by_its_name(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])

    with pytest.raises(ModelError, match=rf"{name}: found [\d,]+ bytes, the manifest says [\d,]+"):
        load_tagger(copy)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json", "config.json", "xlner.json"])
def test_a_file_that_is_missing_is_refused_by_its_name(copy, name):
    (copy / name).unlink()

    with pytest.raises(ModelError, match=f"{name}: missing; copy the folder again"):
        load_tagger(copy)


def test_a_graph_with_a_flipped_bit_or_of_another_export_is_refused(copy, exported):
    content = bytearray((copy / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"model.onnx: not the file that was written, its SHA-256 differs"):
        load_tagger(copy)

    shutil.copy(exported["int8"] / "model.onnx", copy)
    with pytest.raises(ModelError, match=r"model.onnx: found [\d,]+ bytes"):
        load_tagger(copy)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells mappings on Linux alone")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_weights_are_mapped_from_the_disk(exported, precision):
    session = OnnxBackend(exported[precision] / "model.onnx")

    assert str(exported[precision] / "model.onnx.data") in Path("/proc/self/maps").read_text()
    del session


def test_a_folder_of_older_exports_has_its_weights_in_the_graph(copy):
    expected = load_tagger(copy).tag_batch(SENTENCES)
    model = onnx.load(copy / "model.onnx")
    onnx.save(model, copy / "model.onnx")
    (copy / "model.onnx.data").unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["files"]["model.onnx.data"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    sign_again(copy)

    assert load_tagger(copy).tag_batch(SENTENCES) == expected


def test_a_folder_of_links_opens_as_in_the_cache_of_the_hub(copy, tmp_path):
    (tmp_path / "snapshot").mkdir()
    for number, path in enumerate(sorted(copy.iterdir())):
        path.rename(copy / f"blob-{number}")
        (tmp_path / "snapshot" / path.name).symlink_to(copy / f"blob-{number}")

    assert load_tagger(tmp_path / "snapshot").tag_batch(SENTENCES) is not None


def test_half_an_exported_folder_is_refused(copy):
    (copy / "manifest.json").unlink()

    with pytest.raises(ModelError, match=r"no manifest.json beside model.onnx; expected a folder that `xlner export`"):
        load_tagger(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected the manifest of an exported model, found"),
        ("[]", "expected the manifest of an exported model, found"),
        ('{"format": 2}', "found format 2, expected 1; export the model again"),
        ('{"format": 1, "precision": "fp32"}', "expected the manifest of an exported model, found"),
        ('{"format": 1, "precision": "fp32", "max_length": 9, "pad_id": 0, "files": {}}', "lists no model.onnx"),
        (
            '{"format": 1, "precision": "fp32", "max_length": 9, "pad_id": 0, "files": {"model.onnx": [1, "a"],'
            ' "../secret": [1, "a"]}}',
            "model.onnx: found",
        ),
    ],
)
def test_a_damaged_manifest_is_refused(copy, content, message):
    (copy / "manifest.json").write_text(content)

    with pytest.raises(ModelError, match=message):
        load_tagger(copy)


def test_a_manifest_cannot_point_out_of_its_folder(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["../secret"] = [1, "a"]
    (copy / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(ModelError, match=r"lists '../secret'; expected plain file names"):
        load_tagger(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"auto_map": {"AutoModel": "code.Model"}}, "asks for code of its own"),
        ({"_attn_implementation": "someone/kernel"}, "asks for an attention kernel from the hub"),
    ],
)
def test_a_configuration_that_asks_for_code_is_refused_in_both_kinds_of_folder(copy, bert_folder, change, message):
    original = copy.with_name("original")
    shutil.copytree(bert_folder, original)
    for folder in (copy, original):
        config = json.loads((folder / "config.json").read_text()) | change
        (folder / "config.json").write_text(json.dumps(config))
    sign_again(copy)

    for folder in (copy, original):
        with pytest.raises(ModelError, match=message):
            load_tagger(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"id2label": 3}'])
def test_a_configuration_without_labels_is_refused(copy, content):
    (copy / "config.json").write_text(content)
    sign_again(copy)

    with pytest.raises(ModelError, match=r"config.json: expected a configuration with id2label"):
        load_tagger(copy)


@pytest.mark.parametrize("content", [b"", b"no graph", bytes(1000)])
def test_what_is_no_graph_is_refused_also_where_the_manifest_agrees(copy, content):
    (copy / "model.onnx").write_bytes(content)
    sign_again(copy)

    with pytest.raises(ModelError, match=r"model.onnx: ONNX Runtime cannot load this graph"):
        load_tagger(copy)


def test_without_onnx_runtime_the_message_says_how_to_install_it(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(ModelError, match="needs ONNX Runtime: pip install onnxruntime"):
        OnnxBackend(exported["fp32"] / "model.onnx")


def sign_again(folder: Path) -> None:
    """Write the manifest of a folder anew, as someone would who changes a file on purpose."""
    from xlner.backends import read_manifest, write_manifest

    manifest = json.loads((folder / "manifest.json").read_text())
    values = {name: manifest[name] for name in ("precision", "max_length", "pad_id")}
    write_manifest(folder, manifest["files"], **values)
    assert read_manifest(folder).precision == manifest["precision"]


@pytest.mark.parametrize("n_batches", [0, 1, 2, 3, 20])
def test_batches_that_are_computed_side_by_side_come_in_order(exported, monkeypatch, n_batches):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    draw = np.random.default_rng(0)
    shapes = [(draw.integers(1, 9), draw.integers(3, 40)) for _ in range(n_batches)]
    batches = [
        PaddedWindows(draw.integers(5, 60, shape), np.ones(shape, dtype=bool), np.arange(np.prod(shape)))
        for shape in shapes
    ]
    taken = []

    def watched():
        for number, batch in enumerate(batches):
            taken.append(number)
            yield batch

    found = []
    for logits in OnnxBackend(exported["int8"] / "model.onnx", side_by_side=True).logits(watched()):
        found.append(logits)
        assert len(taken) - len(found) <= 6  # no more than that wait in memory

    expected = list(OnnxBackend(exported["int8"] / "model.onnx").logits(batches))
    assert len(found) == n_batches
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_batch_that_fails_side_by_side_is_told_and_the_backend_goes_on(exported, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    backend = OnnxBackend(exported["int8"] / "model.onnx", side_by_side=True)
    good, bad = (
        PaddedWindows(np.full((1, 4), piece), np.ones((1, 4), dtype=bool), np.arange(4)) for piece in (5, 10**9)
    )

    with pytest.raises(Exception, match="out of"):
        list(backend.logits([good, bad, good, good]))

    assert len(list(backend.logits([good] * 4))) == 4
