"""Training as people write it in Python: keywords, texts in memory, and what comes back."""

import doctest
import json
import re
import signal
from pathlib import Path

import datasets
import pandas
import pytest
from conftest import REPOSITORY
from runs import STEPS_PER_EPOCH, report_of, run_script, sentences, stop_at

import xlner.config.load
from xlner.config.load import load_recipe
from xlner.config.schema import DistillRecipe
from xlner.corpora.source import read_corpus
from xlner.corpora.splits import text_file
from xlner.errors import CorpusError, RecipeError, RunError
from xlner.train.run import FinishedRun, TrainedTagger, asked_recipe

TEXT = [" ".join(word for word, _ in row) for row in sentences(60, seed=4)]
SETTINGS = """
import json
from xlner import adapt_encoder, distill, train_teacher

hardware = {"cpu": True, "precision": "fp32", "threads": 1}
rates = {"batch_size": 8, "learning_rate": 1e-2, "head_learning_rate": 1e-2, "clip_norm": 5, "log_steps": 1}
"""
WHOLE_WAY = """
adapted = adapt_encoder(
    target="de", text=TEXT, encoder=ENCODER, optimization={**rates, "epochs": 1}, hardware=hardware
)
teacher = train_teacher(
    language="en", data=DATA, encoder=adapted, optimization={**rates, "epochs": 5}, hardware=hardware
)
student = distill(target="de", teacher=teacher, text=TEXT, optimization={**rates, "epochs": 1}, hardware=hardware)
runs = {"adapted": adapted, "teacher": teacher, "student": student}
found = {name: {"path": str(run), "report": run.report} for name, run in runs.items()}
found["entities"] = [entity.to_dict() for entity in teacher.tagger().tag("Anna lebt in Kiel .")]
with open("found.json", "w") as file:
    json.dump(found, file)
"""
STUDENT = """
distill(
    target="de", teacher=TEACHER, text=TEXT, run="first", optimization={**rates, "epochs": 9}, hardware=hardware
)
"""


def run_python(program: str, cwd: Path, meanwhile=None, **values):
    """Run a program in a process of its own, with some values at its top."""
    path = cwd / "program.py"
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()) + SETTINGS + program)
    return run_script(str(path), cwd=cwd, meanwhile=meanwhile)


@pytest.fixture(scope="module")
def whole_way(tiny_encoder, small_data, tmp_path_factory):
    """The folder in which an encoder, a teacher and a student were trained by keywords."""
    place = tmp_path_factory.mktemp("python")
    finished = run_python(WHOLE_WAY, place, TEXT=TEXT, ENCODER=tiny_encoder, DATA=str(small_data))
    # Who sets up no logging gets warnings on the standard error, as of any library.
    others = [line for line in finished.messages if not line.startswith("warning: ")]
    assert (finished.status, others) == (0, [])
    (place / "stderr").write_text(finished.stderr)
    return place


@pytest.mark.slow
def test_a_run_that_comes_back_is_a_path_with_a_report_and_a_tagger(whole_way):
    found = json.loads((whole_way / "found.json").read_text())

    for name, path in {"adapted": "runs/encoder-de", "teacher": "runs/teacher-en", "student": "runs/de"}.items():
        assert found[name] == {"path": path, "report": report_of(whole_way / path)}
    assert [(one["text"], one["label"]) for one in found["entities"]] == [("Anna", "PER"), ("Kiel", "LOC")]


@pytest.mark.slow
def test_a_run_writes_nothing_but_its_own_messages_and_bars(whole_way):
    lines = [line.strip() for line in re.split(r"[\r\n]+", (whole_way / "stderr").read_text())]

    own_bar = re.compile(r"(soft labels: +)?\d{1,3}%\|.*(step|sentences)/s")
    lines = [line for line in lines if line and not line.startswith("warning: ")]
    assert [line for line in lines if not own_bar.match(line)] == []


@pytest.mark.slow
def test_a_run_among_the_keywords_stands_for_its_model(whole_way):
    assert report_of(whole_way / "runs/de")["teacher"]["folder"] == "runs/teacher-en/model"
    assert "\nencoder: runs/encoder-de/model\n" in (whole_way / "runs/teacher-en/recipe.yaml").read_text()


@pytest.mark.slow
def test_a_list_of_sentences_is_learnt_from_as_a_file_of_them_is(whole_way, small_data):
    report = report_of(whole_way / "runs/de")

    (path,) = whole_way.glob("runs/texts/*.jsonl")
    assert f"\ntext: runs/texts/{path.name}\n" in (whole_way / "runs/de/recipe.yaml").read_text()
    assert report["text"]["sentences"] == 60
    assert [one.words for one in read_corpus(path)] == [
        one.words for one in read_corpus(small_data / "de" / "train.txt")
    ]


@pytest.mark.slow
def test_a_run_goes_on_with_its_text_and_is_refused_another_one(teacher, tmp_path):
    values = {"TEACHER": str(teacher / "model"), "TEXT": TEXT}
    stop = stop_at(STEPS_PER_EPOCH, tmp_path / "runs" / "first", signal.SIGINT)
    assert "StoppedError" in run_python(STUDENT, tmp_path, stop, **values).stderr

    refused = run_python(STUDENT, tmp_path, **{**values, "TEXT": TEXT[1:]})
    finished = run_python(STUDENT, tmp_path, **values)

    assert "unfinished run of another recipe (now different: text: runs/texts/" in refused.stderr
    assert finished.status == 0, finished.stderr


TABLES = (datasets.Dataset.from_dict, pandas.DataFrame, dict)


@pytest.mark.parametrize(
    "text",
    [
        ["Anna lebt in Kiel .", "es regnet ."],
        [("Anna", "lebt", "in", "Kiel", "."), ["es", "regnet", "."]],
        (words for words in ("Anna lebt in Kiel .", "es regnet .")),
        *(make({"id": [1, 2], "text": ["Anna lebt in Kiel .", "es regnet ."]}) for make in TABLES),
        *(
            make({"id": [1, 2], "tokens": [["Anna", "lebt", "in", "Kiel", "."], ["es", "regnet", "."]]})
            for make in TABLES
        ),
    ],
)
def test_a_text_in_memory_becomes_a_file_of_its_sentences(text, tmp_path):
    path = text_file(text, tmp_path, "auto")

    read = [one.words for one in read_corpus(path)]
    assert read == [("Anna", "lebt", "in", "Kiel", "."), ("es", "regnet", ".")]


@pytest.mark.parametrize(
    ("text", "format", "message"),
    [
        ([], "auto", "holds no sentence"),
        (["Kiel", 3], "auto", r"text=\[1\] is 3; expected a sentence"),
        (["Kiel"], "conll", "corpus.format is conll"),
    ],
)
def test_what_is_no_text_is_refused_and_not_written(text, format, message, tmp_path):
    with pytest.raises(CorpusError, match=message):
        text_file(text, tmp_path / "texts", format)

    assert not (tmp_path / "texts").exists()


def test_a_table_without_text_is_refused_with_its_columns(tmp_path):
    table = datasets.Dataset.from_dict({"id": [1], "score": [0.5]})

    with pytest.raises(CorpusError, match="has the columns id, score; expected one named text or words"):
        text_file(table, tmp_path, "auto")


def test_several_runs_are_several_teachers():
    first, second = TrainedTagger(Path("runs/en")), TrainedTagger(Path("runs/nl"))

    recipe = asked_recipe(DistillRecipe, None, {"target": "de", "teacher": [first, second]})

    assert recipe.teachers == ("runs/en/model", "runs/nl/model")


def test_a_recipe_and_keywords_are_not_taken_together():
    with pytest.raises(RecipeError, match=r"found a recipe and keyword arguments \(seed\)"):
        asked_recipe(DistillRecipe, DistillRecipe(target="de"), {"seed": 1})


def test_a_run_without_a_report_says_so(tmp_path):
    with pytest.raises(RunError, match=r"report\.json: is not there or damaged"):
        _ = FinishedRun(tmp_path).report


def test_the_examples_of_public_names_do_what_they_show():
    assert doctest.testmod(xlner.config.load) == (0, 1)


def test_the_recipes_of_the_repository_are_found_from_anywhere_and_ones_own_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = load_recipe("teacher", ["recipe=authors"])
    (tmp_path / "recipes" / "teacher").mkdir(parents=True)
    (tmp_path / "recipes" / "teacher" / "authors.yaml").write_text("seed: 5\n")

    assert shipped == load_recipe("teacher", ["recipe=authors"], REPOSITORY / "recipes")
    assert load_recipe("teacher", ["recipe=authors"]).seed == 5
    with pytest.raises(RecipeError, match=r"recipes in these folders: authors, blog, demo, en$"):
        load_recipe("teacher", ["recipe=x.y"])
