import json
import runpy
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from runs import DISTILL, TEACHER, metrics, run_script

from xlner import load_tagger
from xlner.data.corpus import read_corpus
from xlner.errors import RunError
from xlner.labels import spans_of
from xlner.recipe import load_recipe
from xlner.sections import CorpusRecipe
from xlner.training.corpora import sentence_stream

DEMO = REPOSITORY / "recipes" / "demo"
TRAINING = ("en/train.conll", "en/raw.txt", "de/train.txt", "es/train.txt")
TESTS = ("en/test.conll", "de/test.conll", "es/test.conll")
SIZES = {
    "en/train.conll": 420,
    "en/dev.conll": 80,
    "en/test.conll": 80,
    "en/raw.txt": 250,
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
    assert [student.run for student in students] == ["runs/demo/de", "runs/demo/es"]
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


@pytest.mark.parametrize("name", ["teacher", "de"])
def test_the_scripts_leave_a_whole_run(demo_runs, name):
    run = demo_runs / name
    content = {path.name for path in run.iterdir()}

    assert {"recipe.yaml", "metrics.jsonl", "report.json", "model"} <= content
    assert metrics(run)[-1]["epoch"] == 1


def test_the_student_tags_and_its_offsets_are_right(demo_runs):
    text = "Elena Rossi flog am Montag von Oslo nach Lima."
    tagger = load_tagger(demo_runs / "de" / "model")

    assert tagger.types == ("LOC", "MISC", "ORG", "PER")
    assert all(text[entity.start : entity.end] == entity.text for entity in tagger.tag(text))


def test_the_table_shows_direct_transfer_and_student_of_each_language(demo_runs):
    demo = runpy.run_path(str(DEMO / "run.py"))
    scores = json.loads((demo_runs / "de" / "report.json").read_text(encoding="utf-8"))["scores"]

    lines = demo["table"]({"German": demo["read_scores"](demo_runs / "de")}).splitlines()

    numbers = [scores[system]["overall"][name] for system in ("teacher", "student") for name in ("precision", "recall")]
    assert [float(lines[2].split()[column]) for column in (1, 2, 4, 5)] == pytest.approx(numbers, abs=0.006)


def test_a_demo_removes_only_what_a_demo_made(tmp_path):
    remove_run = runpy.run_path(str(DEMO / "run.py"))["remove_run"]
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    for folder, data in ((own, "recipes/demo"), (foreign, "data")):
        folder.mkdir()
        (folder / "recipe.yaml").write_text(f"data: {data}\nrun: {folder}\n")

    remove_run(own)
    remove_run(tmp_path / "none")

    assert not own.exists()
    with pytest.raises(RunError, match="something else"):
        remove_run(foreign)
    assert (foreign / "recipe.yaml").exists()


def test_the_encoder_of_the_demo_is_the_same_each_time(tmp_path, monkeypatch):
    demo = runpy.run_path(str(DEMO / "make_encoder.py"))
    monkeypatch.setitem(demo["make_encoder"].__globals__, "TEXTS", ("en/raw.txt",))

    for name in ("first", "second"):
        demo["make_encoder"](tmp_path / name, seed=3, epochs=1)

    for file in ("tokenizer.json", "model.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_the_encoder_guesses_text_only_and_sees_most_of_it_masked():
    demo = runpy.run_path(str(DEMO / "make_encoder.py"))
    pieces = torch.tensor([[2, *range(5, 2005), 3, 0, 0]])

    shown, chosen = demo["mask"](pieces, 3000, torch.Generator().manual_seed(0))

    assert not chosen[pieces < demo["FIRST_PIECE"]].any()
    assert torch.equal(shown[~chosen], pieces[~chosen])
    assert chosen.float().mean() == pytest.approx(demo["MASK_RATIO"], abs=0.03)
    assert (shown[chosen] == demo["MASK"]).float().mean() == pytest.approx(0.8, abs=0.06)
