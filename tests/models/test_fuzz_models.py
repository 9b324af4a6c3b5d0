"""Model folders that are damaged in any way open, or are refused by name; never is there another exception."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged_bytes, damaged_json, fuzzing

from xlner.errors import LabelError, ModelError
from xlner.tagger import load_tagger

JSON_FILES = ["config.json", "xlner.json", "tokenizer.json", "tokenizer_config.json"]
TEXT = "Angela Merkel besuchte Kiel."


@pytest.fixture(scope="module")
def folder(bert_folder, tmp_path_factory):
    return Path(shutil.copytree(bert_folder, tmp_path_factory.mktemp("fuzz") / "damaged"))


def opened_or_refused(folder, file, content):
    """Open a folder in which one file is another, and tag with it; then put the file back."""
    whole = (folder / file).read_bytes()
    message = ""
    try:
        (folder / file).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for entity in load_tagger(folder).tag(TEXT):
                assert TEXT[entity.start : entity.end] == entity.text
    except (ModelError, LabelError) as problem:
        message = str(problem)
    finally:
        (folder / file).write_bytes(whole)
    assert not message or str(folder) in message, message


@pytest.mark.parametrize("file", JSON_FILES)
@fuzzing
@given(st.data())
def test_settings_of_any_value_open_or_are_refused_by_name(folder, file, data):
    content = data.draw(damaged_json(json.loads((folder / file).read_text(encoding="utf-8"))))

    opened_or_refused(folder, file, json.dumps(content).encode())


@pytest.mark.parametrize("file", [*JSON_FILES, "model.safetensors"])
@fuzzing
@given(st.data())
def test_damaged_files_open_or_are_refused_by_name(folder, file, data):
    opened_or_refused(folder, file, data.draw(damaged_bytes((folder / file).read_bytes())))


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("config.json", "dtype", "float99", "config.json is no model configuration: .*float99"),
        ("config.json", "hidden_size", {"0": "O"}, "config.json is no model configuration: .*hidden_size"),
        ("config.json", "vocab_size", 2**63, "the weights could not be loaded"),
        ("config.json", "num_hidden_layers", 2**63, "num_hidden_layers 9223372036854775808; expected at most 1000"),
        ("config.json", "hidden_dropout_prob", float("nan"), "hidden_dropout_prob nan; expected a finite number"),
        ("config.json", "hidden_dropout_prob", 2, "hidden_dropout_prob 2; expected a probability"),
        ("config.json", "num_attention_heads", -1, "num_attention_heads -1; expected 0 or above"),
        (
            "config.json",
            "id2label",
            {"0": "O", "1": "x"},
            r"its weights have classifier\.\w+ of \(7,.*\), config.json asks for \(2,",
        ),
        ("xlner.json", "max_length", "64", "xlner.json: max_length is '64'; expected a whole number"),
        ("xlner.json", "max_length", -1, "xlner.json: max_length is -1; expected a whole number"),
        ("xlner.json", "max_length", 3, "xlner.json: max_length is 3; a window needs 8 pieces"),
        ("xlner.json", "word_splitter", ["unicode"], r"xlner.json: word_splitter is \['unicode'\]; expected a text"),
        ("xlner.json", "word_splitter", "x", "xlner.json: unknown word splitter 'x'; known: script_runs"),
        ("tokenizer.json", "added_tokens", "", "no tokenizer in this folder: "),
        ("tokenizer_config.json", "sep_token", {"": {}}, "no tokenizer in this folder: Special token sep_token"),
        ("tokenizer_config.json", "tokenizer_class", -1, "no tokenizer in this folder: "),
        ("tokenizer_config.json", "model_max_length", "x", "model_max_length 'x'; expected a number of pieces"),
        ("tokenizer_config.json", "model_max_length", 5, "max_length is 5; it must leave room"),
        (
            "tokenizer_config.json",
            "cls_token",
            "\0",
            "its tokenizer numbers pieces up to 171, and the network knows 171 of",
        ),
    ],
)
def test_values_that_once_ended_in_another_error_are_told_with_their_place(
    bert_folder, tmp_path, file, key, value, message
):
    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps({**content, key: value}), encoding="utf-8")

    with pytest.raises((ModelError, LabelError), match=message) as refusal:
        load_tagger(folder)

    assert str(refusal.value).startswith(str(folder))


def test_a_tokenizer_that_panics_is_told_with_its_folder(bert_folder, tmp_path):
    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    del content["post_processor"]["special_tokens"]["[SEP]"]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")

    with pytest.raises(ModelError, match=r"model: .*tokenizer"):
        load_tagger(folder)
