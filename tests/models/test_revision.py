"""An encoder of the hub can be pinned to a revision: all that is read of it is of that one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, save_tiny_encoder
from runs import ADAPT, DISTILL, TEACHER, TINY, run_script
from safetensors.torch import load_file, save_file

from xlner.config.schema import AdaptRecipe, DistillRecipe, TeacherRecipe
from xlner.errors import RecipeError

PINNED = """
import json, sys
from pathlib import Path
from xlner.config.load import load_recipe
from xlner.jobs.adapt import adapt_encoder
from xlner.jobs.distill import distill
from xlner.jobs.teacher import train_teacher
data, tiny, commit = sys.argv[1], sys.argv[3:], sys.argv[2]
common = [f"data={data}", "encoder=someone/encoder", "optimization.freeze=embeddings", "optimization.epochs=1", *tiny]
train_teacher(load_recipe("teacher", [*common, "run=pinned", f"encoder_revision={commit}", "pairs.per_sentence=8"]))
adapt_encoder(load_recipe("adapt", [*common, "target=de", "run=adapted", "encoder_revision=v1"]))
own = ["target=de", "run=student", "teacher=runs/pinned/model", f"encoder_revision={commit}", "denoising=none"]
distill(load_recipe("distill", [*common, *own]))
"""


def changed(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def publish(folder, home, commit, *refs):
    """Lay an encoder into a cache as if this commit had been fetched from the hub."""
    model = home / "hub" / "models--someone--encoder"
    shutil.copytree(folder, model / "snapshots" / commit)
    (model / "refs").mkdir(exist_ok=True)
    for ref in refs:
        (model / "refs" / ref).write_text(commit)


@pytest.mark.slow
def test_configuration_weights_and_tokenizer_are_of_the_revision_that_a_recipe_names(small_data, tmp_path):
    save_tiny_encoder(tmp_path / "old", dropout=0.1)
    newest = Path(shutil.copytree(tmp_path / "old", tmp_path / "new"))
    # What would be refused: neither of these two files may be read.
    changed(newest / "config.json", hidden_dropout_prob=0.5, auto_map={"AutoModel": "evil.Model"})
    (newest / "adapter_config.json").write_text("{}")
    changed(newest / "tokenizer_config.json", model_max_length=32)
    weights = load_file(newest / "model.safetensors")
    save_file({name: 2 * values for name, values in weights.items()}, newest / "model.safetensors", {"format": "pt"})
    home, old, new = tmp_path / "home", "a" * 40, "b" * 40
    publish(tmp_path / "old", home, old, "v1")
    publish(newest, home, new, "main")
    tiny = [argument for argument in TINY if not argument.startswith(("optimization.epochs", "pairs."))]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_CACHE"}

    done = subprocess.run(
        [sys.executable, "-c", PINNED, str(small_data), old, *tiny],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )

    assert done.returncode == 0, done.stderr
    for run in ("pinned", "adapted", "student"):
        result = tmp_path / "runs" / run / "model"
        found = load_file(result / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
        assert json.loads((result / "config.json").read_text())["hidden_dropout_prob"] == 0.1
        assert json.loads((result / "tokenizer_config.json").read_text())["model_max_length"] == 64
        torch.testing.assert_close(found, weights["embeddings.word_embeddings.weight"], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "language"), [(TEACHER, "language=en"), (ADAPT, "target=de"), (DISTILL, "target=de")]
)
def test_a_folder_has_no_revision(tiny_encoder, small_data, tmp_path, script, language):
    arguments = (language, f"data={small_data}", f"encoder={tiny_encoder}", "encoder_revision=v1", "run=first")

    finished = run_script(script, *arguments, "hardware.cpu=true", cwd=tmp_path)

    assert finished.status == 2
    assert finished.messages[-1].startswith(f"encoder_revision=v1: {tiny_encoder} is a folder here, which has no rev")
    assert not (tmp_path / "runs" / "first").exists()


@pytest.mark.parametrize("schema", [TeacherRecipe, AdaptRecipe, DistillRecipe])
@pytest.mark.parametrize("revision", ["../../x", "/x", "a/../b", "a b", "-x", ".x", "a\n"])
def test_what_is_no_name_of_a_revision_is_refused(schema, revision):
    target = {} if schema is TeacherRecipe else {"target": "de"}

    with pytest.raises(RecipeError, match="must be a commit, a tag or a branch"):
        schema(encoder_revision=revision, **target)


def test_a_student_that_starts_from_its_teacher_has_no_revision():
    with pytest.raises(RecipeError, match="encoder_revision=v1 is that of an encoder of the hub"):
        DistillRecipe(target="de", encoder_revision="v1")
