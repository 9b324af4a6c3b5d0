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
