"""Models of the hub, found in a cache as `huggingface_hub` lays it out; there is no network."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, SENTENCES

from xlner import load_tagger
from xlner.soft_labels.label import teacher_fingerprint

pytestmark = pytest.mark.slow

TEXT = f"{SENTENCES[0]} Kiel, ja. " + " ".join(SENTENCES)
ASK = """
import json, sys
from xlner import load_tagger
from xlner.models.folder import load_joint_model, read_settings
tagger = load_tagger("someone/tagger")
print(json.dumps({
    "splitter": tagger.word_splitter, "length": tagger.encoder.max_length, "words": tagger.words(sys.argv[1]),
    "tags": tagger.tag_words(tagger.words(sys.argv[1])), "language": read_settings("someone/tagger").language,
    "similarity": load_joint_model("someone/tagger").similarity is not None,
}))
"""

ASK_TEACHER = """
from xlner.soft_labels.label import teacher_fingerprint
print(teacher_fingerprint("someone/tagger"))
"""


def publish(folder, home, settings):
    """Lay a model folder into a cache as if it had been fetched from the hub; settings None: no file of xlner."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = home / "hub" / "models--someone--tagger"
    snapshot = model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    for path in Path(folder).iterdir():
        if settings is not None or path.name not in ("xlner.json", "similarity.safetensors"):
            (snapshot / path.name).write_bytes(path.read_bytes())
    if settings is not None:
        (snapshot / "xlner.json").write_text(json.dumps(settings))


ASK_A_TYPO = """
from xlner import load_tagger
from xlner.errors import ModelError
try: load_tagger("someone/tager")
except ModelError as problem: print(problem)
"""


def ask(home, question=ASK, **more):
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", **more}
    environment.pop("HF_HUB_CACHE", None)
    return subprocess.run(
        [sys.executable, "-c", question, TEXT],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment,
        check=False,
    )


def test_a_model_of_the_hub_keeps_its_splitter_its_length_and_its_similarity_head(bert_folder, tmp_path):
    settings = {"word_splitter": "whitespace", "max_length": 32, "language": "de"}
    publish(bert_folder, tmp_path, {**settings, "similarity": "calibrated", "projection_size": 8})

    done = ask(tmp_path)

    answer = json.loads(done.stdout or done.stderr)
    assert (answer["splitter"], answer["length"], answer["language"]) == ("whitespace", 32, "de")
    assert answer["words"] == TEXT.split()
    assert answer["similarity"]


def test_a_model_of_the_hub_that_xlner_did_not_make_opens_with_the_defaults(bert_folder, tmp_path):
    publish(bert_folder, tmp_path, None)

    done = ask(tmp_path)

    answer = json.loads(done.stdout or done.stderr)
    local = load_tagger(bert_folder)
    assert (answer["splitter"], answer["length"], answer["similarity"]) == ("unicode", 64, False)
    assert answer["tags"] == local.tag_words(local.words(TEXT))


@pytest.mark.parametrize("settings", [["no", "settings"], {"word_splitter": "spacy"}, {"splitter": "unicode"}])
def test_settings_of_a_hub_model_that_are_none_are_refused(bert_folder, tmp_path, settings):
    publish(bert_folder, tmp_path, settings)

    done = ask(tmp_path)

    assert "ModelError" in done.stderr
    assert "spacy" in done.stderr or "xlner.json: expected the settings of an xlner model" in done.stderr


def test_a_name_that_the_hub_cannot_be_asked_for_is_told_at_once_and_in_a_line(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    started = time.monotonic()

    done = ask(tmp_path, ASK_A_TYPO, HF_ENDPOINT=nobody, HF_HUB_OFFLINE="0")

    assert time.monotonic() - started < 40  # of which imports take most
    assert done.stdout.strip() == (
        "someone/tager: neither a folder here nor a model that could be fetched (the hub cannot be reached); "
        "check the name and the network, or give a local folder"
    ), done.stderr
    assert done.stderr == ""


def test_a_model_that_was_fetched_before_opens_without_a_network(bert_folder, tmp_path):
    publish(bert_folder, tmp_path, None)

    done = ask(tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")

    assert json.loads(done.stdout or done.stderr)["length"] == 64
    assert done.stderr == ""


def test_a_model_of_the_hub_is_a_teacher_with_the_fingerprint_of_its_folder(bert_folder, tmp_path):
    publish(bert_folder, tmp_path, json.loads((Path(bert_folder) / "xlner.json").read_text()))
    snapshot = next((tmp_path / "hub" / "models--someone--tagger" / "snapshots").iterdir())
    (snapshot / "xlner.json").write_bytes((Path(bert_folder) / "xlner.json").read_bytes())

    done = ask(tmp_path, ASK_TEACHER)

    assert done.stdout.strip() == teacher_fingerprint(bert_folder), done.stderr
