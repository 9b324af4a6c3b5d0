import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPOSITORY
from runs import DISTILL, ENVIRONMENT, TEACHER, metrics, run_script

from xlner import load_tagger
from xlner.config.load import load_recipe, recipe_text
from xlner.config.schema import CorpusRecipe
from xlner.corpora.source import read_corpus
from xlner.corpora.splits import sentence_stream
from xlner.errors import CorpusError, RunError
from xlner.tags import spans_of

DEMO = REPOSITORY / "recipes" / "demo"
TRAINING = ("en/train.conll", "de/train.txt", "es/train.txt")
TESTS = ("en/test.conll", "de/test.conll", "es/test.conll")
SIZES = {
    "en/train.conll": 420,
    "en/dev.conll": 80,
    "en/test.conll": 80,
    "de/train.txt": 450,
    "de/test.conll": 150,
    "es/train.txt": 450,
    "es/test.conll": 150,
}
# Enough to go through every line of the scripts, not enough to learn anything.
QUICK = ("hardware.cpu=true", "hardware.threads=1", "optimization.epochs=1", "corpus.max_length=64")


def sentences(name):
    return list(sentence_stream(DEMO / name, CorpusRecipe()))


def test_the_corpus_has_its_files_and_their_sentences():
    found = {str(path.relative_to(DEMO)) for path in DEMO.glob("*/*") if path.suffix in (".conll", ".txt")}

    assert found == SIZES.keys()
    assert {name: len(sentences(name)) for name in SIZES} == SIZES


@pytest.mark.parametrize("name", [name for name in SIZES if name.endswith(".conll")])
def test_labelled_files_have_clean_tags_and_all_four_types(name):
    corpus = list(read_corpus(DEMO / name, scheme="strict"))

    counts = Counter(span.label for sentence in corpus for span in spans_of(sentence.tags))

    assert counts.keys() == {"LOC", "MISC", "ORG", "PER"}
    assert min(counts.values()) >= 20


@pytest.mark.parametrize("name", [name for name in SIZES if name.endswith(".txt")])
def test_raw_files_hold_running_text_without_labels(name):
    lines = (DEMO / name).read_text(encoding="utf-8").splitlines()

    assert all(sentence.tags is None for sentence in sentences(name))
    assert not [line for line in lines if "\t" in line or "B-" in line or line != line.strip() or not line]


@pytest.mark.parametrize("name", [*TESTS, "en/dev.conll"])
def test_no_sentence_to_score_on_is_seen_in_training(name):
    seen = {"".join(sentence.words).casefold() for text in TRAINING for sentence in sentences(text)}

    scored = ["".join(sentence.words).casefold() for sentence in sentences(name)]

    assert not seen & set(scored)
    assert len(scored) == len(set(scored))


def test_the_recipes_fit_together():
    recipes = REPOSITORY / "recipes"
    teacher = load_recipe("teacher", ["recipe=demo"], recipes)
    students = [load_recipe("distill", [f"target=demo-{target}"], recipes) for target in ("de", "es")]

    assert {student.teacher for student in students} == {f"{teacher.run}/model"}
    assert [student.run for student in students] == ["runs/demo/seed-0/de", "runs/demo/seed-0/es"]
    assert {recipe.data for recipe in (teacher, *students)} == {"recipes/demo"}


@pytest.fixture(scope="module")
def demo_runs(tiny_encoder, tmp_path_factory) -> Path:
    """The folder of a teacher and a student made by the launch scripts with the demo's own recipes and corpus."""
    folder = tmp_path_factory.mktemp("demo")
    data, student = f"data={DEMO}", (f"run={folder}/de", f"teacher={folder}/teacher/model", "soft_labels=soft-labels")
    teacher = (f"run={folder}/teacher", f"encoder={tiny_encoder}", "corpus.max_sentences=64")

    for script, arguments in ((TEACHER, ("recipe=demo", *teacher)), (DISTILL, ("target=demo-de", *student))):
        outcome = run_script(script, data, *arguments, *QUICK, cwd=folder)
        assert outcome.status == 0, outcome.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["teacher", "de"])
def test_the_scripts_leave_a_whole_run(demo_runs, name):
    run = demo_runs / name
    content = {path.name for path in run.iterdir()}

    assert {"recipe.yaml", "metrics.jsonl", "report.json", "model"} <= content
    assert metrics(run)[-1]["epoch"] == 1


@pytest.mark.slow
def test_the_student_tags_and_its_offsets_are_right(demo_runs):
    text = "Elena Rossi flog am Montag von Oslo nach Lima."
    tagger = load_tagger(demo_runs / "de" / "model")

    assert tagger.types == ("LOC", "MISC", "ORG", "PER")
    assert all(text[entity.start : entity.end] == entity.text for entity in tagger.tag(text))


@pytest.mark.slow
def test_the_table_shows_direct_transfer_and_student_of_each_language(demo_runs):
    demo = runpy.run_path(str(DEMO / "run.py"))
    scores = json.loads((demo_runs / "de" / "report.json").read_text(encoding="utf-8"))["scores"]

    lines = demo["table"]({"German": demo["read_scores"](demo_runs / "de")}).splitlines()

    numbers = [scores[system]["overall"][name] for system in ("teacher", "student") for name in ("precision", "recall")]
    assert [float(lines[2].split()[column]) for column in (1, 2, 4, 5)] == pytest.approx(numbers, abs=0.006)


MAKE_SMALL_ENCODER = """import shutil, sys
out = sys.argv[sys.argv.index("--out") + 1]
print("encoder of", *sys.argv[sys.argv.index("--text") + 1 :])
shutil.copytree({encoder!r}, out)
"""


@pytest.fixture
def small_demo(tiny_encoder, tmp_path):
    """A repository with the demo, whose encoder is tiny and whose recipes are quick."""
    folder = tmp_path / "repository"
    for name in ("xlner", "recipes/demo/de", "recipes/demo/en", "recipes/demo/es", "train_teacher.py", "distill.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(REPOSITORY / name)
    shutil.copy(DEMO / "run.py", folder / "recipes" / "demo")
    for name in ("teacher/demo.yaml", "distill/demo-text.yaml"):
        recipe = (REPOSITORY / "recipes" / name).read_text(encoding="utf-8")
        recipe = recipe.replace("max_length: 128", "max_length: 64\n  max_sentences: 64")
        recipe = re.sub("epochs: .*", "epochs: 1", recipe)
        (folder / "recipes" / name).parent.mkdir()
        (folder / "recipes" / name).write_text(recipe + "hardware: {cpu: true, threads: 1}\n", encoding="utf-8")
    (folder / "data_scripts").mkdir()
    (folder / "data_scripts" / "e5_small.py").write_text(MAKE_SMALL_ENCODER.format(encoder=tiny_encoder))
    return folder


def start_demo(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, str(folder / "recipes" / "demo" / "run.py"), *map(str, arguments)],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_demo(folder, *arguments, status=0):
    process = start_demo(folder, *arguments)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == status, stderr
    return stdout, stderr


@pytest.mark.slow
def test_a_text_of_ones_own_gets_a_student_and_goes_on_where_it_was_stopped(small_demo, tmp_path):
    lines = (DEMO / "de" / "train.txt").read_text(encoding="utf-8").splitlines()[:60]
    text = tmp_path / "my letters.txt"
    text.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    runs = small_demo / "runs" / "demo"

    process = start_demo(small_demo, "--text", text)
    while not list(runs.glob("*/student-0/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    # As a terminal does: the demo and what it runs get the signal.
    for pid in (process.pid, *children(process.pid)):
        os.kill(pid, signal.SIGINT)
    stopped = process.communicate(timeout=60)
    stdout, _ = run_demo(small_demo, "--text", text, "--sentence", "Anna lebt in Kiel.")

    assert process.returncode == 130, stopped
    assert "the same command goes on from here" in stopped[1]
    assert "e5_small.py" not in stdout
    assert "train_teacher.py" not in stdout
    assert "teacher-0: finished before" in stdout
    (folder,) = runs.iterdir()
    assert folder.name.startswith("my-letters-")
    assert f"model: {folder.relative_to(small_demo) / 'student-0' / 'model'}" in stdout
    assert [line for line in stdout.splitlines() if line in lines] == lines[:10]
    assert "Anna lebt in Kiel." in stdout
    assert load_tagger(folder / "student-0" / "model").types == ("LOC", "MISC", "ORG", "PER")


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


BAD_TEXTS = {
    "missing": (None, r"no corpus at .*my\.txt"),
    "empty": (b"", r"my\.txt: 0 sentences; expected 50 or more"),
    "blank": (b"\n \n" * 100, r"my\.txt: 0 sentences"),
    "five sentences": (b"Ein Satz.\n" * 5, r"my\.txt: 5 sentences; expected 50 or more, one a line"),
    "latin-1": (
        "Köln ist schön.\n".encode("latin-1") * 60,
        r"my\.txt:1: byte 0xf6 .* is not utf-8; .*iconv -f latin-1",
    ),
    "folder": ("folder", r"my\.txt is a folder"),
}


@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_a_text_that_no_student_can_learn_from_is_told_at_once(tmp_path, kind):
    content, message = BAD_TEXTS[kind]
    path = tmp_path / "my.txt"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)

    with pytest.raises(CorpusError, match=message):
        runpy.run_path(str(DEMO / "run.py"))["read_sentences"](path)


def test_english_is_told_from_other_languages():
    demo = runpy.run_path(str(DEMO / "run.py"))
    shares = {name: demo["english_share"]([" ".join(s.words) for s in sentences(name)]) for name in TRAINING}

    assert shares["en/train.conll"] > 1.5 * demo["ENGLISH_SHARE"]
    assert max(shares["de/train.txt"], shares["es/train.txt"]) < demo["ENGLISH_SHARE"] / 5


def test_a_run_of_another_recipe_is_known_as_one(tmp_path):
    demo = runpy.run_path(str(DEMO / "run.py"))
    run = tmp_path / "run"
    recipe = load_recipe("teacher", [f"run={run}"])
    run.mkdir()
    (run / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")

    assert not demo["is_of_another_recipe"](run, recipe)
    assert demo["is_of_another_recipe"](run, load_recipe("teacher", [f"run={run}", "seed=1"]))
    assert not demo["is_of_another_recipe"](tmp_path / "none", recipe)


def test_a_demo_removes_only_what_a_demo_made(tmp_path):
    remove_run = runpy.run_path(str(DEMO / "run.py"))["remove_run"]
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    for folder, run in ((own, own), (foreign, tmp_path / "elsewhere")):
        folder.mkdir()
        (folder / "recipe.yaml").write_text(f"data: data\nrun: {run}\n")

    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".lock").touch()

    for name in ("own", "none", "begun"):
        remove_run(tmp_path / name)

    assert not own.exists()
    with pytest.raises(RunError, match="something else"):
        remove_run(foreign)
    assert (foreign / "recipe.yaml").exists()
