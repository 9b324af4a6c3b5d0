"""Nothing that a model folder or a data set brings along is run; `docs/security.md` has the list of promises."""

import ast
import json
import os
import pickle
import shutil
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file, save_file

from xlner.backends import OnnxBackend
from xlner.corpora.source import read_corpus
from xlner.encode import load_tokenizer
from xlner.errors import CorpusError, ModelError
from xlner.models.folder import load_joint_model
from xlner.models.token_classifier import load_recognizer

MODULES = sorted([*REPOSITORY.glob("*.py"), *REPOSITORY.glob("xlner/**/*.py"), *REPOSITORY.glob("data_scripts/*.py")])


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def trace(tmp_path):
    """What stands there once code of others was run."""
    return tmp_path / "trace"


@pytest.fixture
def model(bert_folder, tmp_path):
    """A model folder that may be spoilt."""
    return Path(shutil.copytree(bert_folder, tmp_path / "model"))


def changed(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def calls(path):
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def unsafe(call):
    """Whether a call could run what a file holds."""
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name.endswith(".from_pretrained"):
        return given.get("trust_remote_code") != "False" or None in given
    if name == "kind.from_pretrained":
        return given.get("use_safetensors") != "True"
    if (name in ("torch.load", "load") and "map_location" in given) or name == "torch.load":
        return given.get("weights_only") != "True"
    if name == "yaml.load":
        loaders = {*map(ast.unparse, call.args[1:]), given.get("Loader")} - {None}
        return not loaders <= {"_TextLoader", "yaml.BaseLoader"}
    if given.get("shell", "False") != "False" or given.get("allow_pickle", "False") != "False":
        return True
    return name in {"eval", "exec", "os.system", "torch.hub.load", "evaluate.load"} or name.endswith(
        (".extractall", ".unpack_archive")
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_module_calls_what_could_run_the_content_of_a_file(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))

    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)])
    }

    assert imported & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} == set()
    assert [ast.unparse(call) for call in calls(path) if unsafe(call)] == []


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_model_folder_is_not_run(model, trace, file):
    (model / "evil.py").write_text(
        f"import os\nos.mkdir({str(trace)!r})\n"
        "from transformers import BertConfig, BertForTokenClassification, BertTokenizer\n"
        "class Config(BertConfig): pass\nclass Model(BertForTokenClassification): pass\n"
        "class Pieces(BertTokenizer): pass\n"
    )
    own = {"AutoConfig": "evil.Config", "AutoModelForTokenClassification": "evil.Model"}
    own["AutoTokenizer"] = ["evil.Pieces", "evil.Pieces"]
    changed(model / file, auto_map=own, tokenizer_class="Pieces")

    for load in (load_recognizer, load_tokenizer):
        with suppress(ModelError):  # a tokenizer that has its own `tokenizer.json` needs none of the code
            load(str(model))

    assert not trace.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "similarity.safetensors"])
def test_pickle_in_a_model_folder_is_not_read(model, trace, name):
    if name == "pytorch_model.bin":
        (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Evil(trace)))

    with pytest.raises(ModelError):
        load_joint_model(str(model))

    assert not trace.exists()


@pytest.mark.parametrize(
    "shard", ["weights.bin", "../weights.safetensors", "sub/weights.safetensors", "/w.safetensors"]
)
def test_an_index_of_weights_lists_safetensors_files_of_its_folder_and_nothing_else(model, shard):
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    (model / "sub").mkdir()
    for place in (model.parent / "w.safetensors", model / "sub" / "w.safetensors"):
        save_file(weights, place, {"format": "pt"})
    torch.save(weights, model / "weights.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ModelError, match=r"index\.json lists .*; expected safetensors files in the same folder"):
        load_recognizer(str(model))


def test_weights_in_shards_of_the_same_folder_are_read(model):
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))

    loaded, *_ = load_recognizer(str(model))

    torch.testing.assert_close(dict(loaded.named_parameters())["classifier.weight"].data, weights["classifier.weight"])


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_of_weights_is_refused(model, content):
    (model / "model.safetensors.index.json").write_text(content)

    with pytest.raises(ModelError, match="is no list of weights"):
        load_recognizer(str(model))


def test_an_adapter_which_names_another_model_is_refused(model):
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')

    with pytest.raises(ModelError, match="is an adapter"):
        load_recognizer(str(model))


def test_a_graph_reads_no_weights_from_outside_its_folder(tmp_path):
    (tmp_path / "elsewhere.bin").write_bytes(bytes(16))
    (tmp_path / "onnx").mkdir()
    weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4])
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../elsewhere.bin")
    output = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [4])
    step = onnx.helper.make_node("Identity", ["w"], ["logits"])
    graph = onnx.helper.make_graph([step], "graph", [], [output], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "onnx" / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(ModelError, match="escapes model directory"):
        OnnxBackend(tmp_path / "onnx" / "model.onnx")


def test_a_data_set_that_is_a_script_is_not_run(trace, tmp_path, monkeypatch):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "corpus.py").write_text(f"import os\nos.mkdir({str(trace)!r})\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(CorpusError, match="is a Python script, which is not run"):
        read_corpus("hub:corpus:train")

    assert not trace.exists()
