"""Taggers in other processes: pickled to them, and forked with them."""

import json
import os
import pickle
import subprocess
import sys

import pytest
from conftest import REPOSITORY, SENTENCES
from test_students import make_student

from xlner.export.onnx import export_model
from xlner.tagger import load_tagger

WORDS = [sentence.split() for sentence in SENTENCES]


def folder_of(kind, bert_folder, tmp_path):
    """A model of each kind that `load_tagger` opens."""
    if kind == "torch":
        return bert_folder
    if kind in ("onnx", "int8"):
        pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'xlner[onnx]'")
        pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'xlner[onnx]'")
        precision = "fp32" if kind == "onnx" else "int8"
        export_model(bert_folder, tmp_path / kind, WORDS, precision=precision, force=True)
    else:
        make_student(tmp_path / kind, kind)
    return str(tmp_path / kind)


KINDS = ("torch", "onnx", "int8", "bilstm", "linear")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_tagger_of_any_kind_can_be_pickled(kind, bert_folder, tmp_path):
    tagger = load_tagger(folder_of(kind, bert_folder, tmp_path))
    expected = tagger.tag_batch(SENTENCES)

    again = pickle.loads(pickle.dumps(tagger))

    assert again.tag_batch(SENTENCES) == expected
    assert repr(again) == repr(tagger)


# Every thread that computed before the fork is missing behind it: without precautions this waits for ever.
FORKED = """
import json, multiprocessing, os, sys
from xlner import load_tagger

tagger = load_tagger(sys.argv[1])
texts = json.loads(sys.argv[2])
expected = tagger.tag_batch(texts)
with multiprocessing.get_context("fork").Pool(1) as pool:
    found = pool.map_async(tagger.tag_batch, [texts]).get(60)
process = os.fork()  # a child that uses what it inherits, rather than what it is sent
if not process:
    os._exit(0 if tagger.tag_batch(texts) == expected else 1)
assert found == [expected], "pickled"
assert os.waitpid(process, 0)[1] == 0, "forked"
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_tagger_that_has_computed_works_in_a_forked_process(kind, bert_folder, tmp_path):
    folder, texts = folder_of(kind, bert_folder, tmp_path), [" ".join(SENTENCES)] * 40
    command = [sys.executable, "-c", FORKED, folder, json.dumps(texts)]

    done = subprocess.run(command, env=threads(2), cwd=REPOSITORY, capture_output=True, text=True, timeout=170)

    assert done.returncode == 0, done.stderr[-2000:]


MAPPED = """
import sys
import datasets
from xlner import load_tagger

datasets.disable_progress_bars()
tagger = load_tagger(sys.argv[1])
texts = ["Angela Merkel besuchte Kiel .", "Die Siemens AG sitzt in München ."] * 8
expected = [len(found) for found in tagger.tag_batch(texts)]
rows = datasets.Dataset.from_dict({"text": texts})
found = rows.map(lambda row: {"n": len(tagger.tag(row["text"]))}, num_proc=2)
assert found["n"][:] == expected
"""


@pytest.mark.slow
def test_a_tagger_maps_a_data_set_on_two_processes(bert_folder, tmp_path):
    command = [sys.executable, "-c", MAPPED, bert_folder]
    environment = threads(2) | {"HF_HOME": str(tmp_path)}

    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=170)

    assert done.returncode == 0, done.stderr[-2000:]


def threads(number):
    """The environment of this process, with a number of threads that compute."""
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return own | {"OMP_NUM_THREADS": str(number), "PYTHONPATH": str(REPOSITORY)}
