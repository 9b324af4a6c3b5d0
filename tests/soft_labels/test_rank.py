"""Teachers ranked for a language without labels, and `xlner rank-sources`."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import SENTENCES
from runs import sentences, write_conll, write_text

from xlner.soft_labels.rank import SourceRank, View, agreement, in_order, unlike_types
from xlner.tags import Span

KIEL, ANNA, MORE = Span("LOC", 3, 4), Span("PER", 0, 1), Span("MISC", 5, 6)


@pytest.fixture
def teacher(bert_folder, xlmr_folder, tmp_path):
    """A copy of a teacher of one of two architectures that says its language."""

    def make(language, *, xlmr=False):
        copy = tmp_path / f"teacher-{language}"
        shutil.copytree(xlmr_folder if xlmr else bert_folder, copy)
        path = copy / "xlner.json"
        settings = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**settings, "language": language}))
        return str(copy)

    return make


@pytest.fixture
def rank(xlner, tmp_path):
    """Runs `xlner rank-sources` on a few sentences."""
    text = tmp_path / "de.txt"
    write_text(text, [[(word, "O") for word in sentence.split()] for sentence in SENTENCES])
    return partial(xlner, "rank-sources", "--target", text)


def a_rank(model, sureness, agrees):
    return SourceRank(model, "", sureness, agrees, None, 50.0)


def test_agreement_is_the_f1_of_what_two_teachers_find():
    found = [[{KIEL, ANNA}, set()], [{KIEL}, {ANNA}], [set(), set()]]

    table = agreement(found, [["LOC", "PER"]] * 3)

    assert table[0, 1] == table[1, 0] == 50.0
    assert table[0, 2] == 0.0
    assert np.isnan(np.diag(table)).all()


def test_a_type_that_one_teacher_does_not_know_is_no_disagreement():
    table = agreement([[{KIEL, MORE}], [{KIEL}]], [["LOC", "MISC"], ["LOC"]])

    assert table[0, 1] == 100.0


def test_teachers_that_find_nothing_agree_on_nothing():
    assert np.isnan(agreement([[set()], [set()]], [["LOC"], ["LOC"]])).all()


def test_models_in_the_order_and_with_the_figures_of_the_command(rank, teacher):
    models = [teacher("en"), teacher("nl", xlmr=True)]

    status, told, _ = rank(*models, "--json")

    found = json.loads(told)
    assert status == 0
    assert sorted(one["model"] for one in found) == sorted(models)
    assert found[0]["sureness"] >= found[1]["sureness"] > 0
    assert found[0]["agreement"] == found[1]["agreement"]
    assert {one["language"] for one in found} == {"en", "nl"}
    _, table, _ = rank(*models)
    assert [line.split()[0] for line in table.splitlines()[1:]] == [one["model"] for one in found]


def test_likeness_says_whose_language_the_text_is_like(rank, teacher, tmp_path):
    for language, change in (("en", str.lower), ("es", lambda word: f"{word.upper()}9")):
        rows = [[(change(word), tag) for word, tag in row] for row in sentences(60, seed=1)]
        write_conll(tmp_path / "data" / language / "train.conll", rows)
    spanish = [[(f"{word.upper()}9", tag) for word, tag in row] for row in sentences(30, seed=2)]
    write_text(tmp_path / "ca.txt", spanish)

    _, told, _ = rank(
        teacher("en"), teacher("es"), "--data", tmp_path / "data", "--target", tmp_path / "ca.txt", "--json"
    )

    likeness = {one["language"]: one["likeness"] for one in json.loads(told)}
    assert likeness["es"] > likeness["en"]
    assert sum(likeness.values()) == pytest.approx(1.0, abs=1e-3)


def test_a_teacher_alone_is_told_by_its_sureness(rank, teacher):
    status, told, _ = rank(teacher("en"))

    assert status == 0
    assert told.splitlines()[1].split()[3] == "-"  # it has nobody to agree with


def test_what_cannot_be_ranked_is_told(rank, teacher, tmp_path):
    model = teacher("en")

    assert "given twice" in rank(model, model)[2]
    assert f"{model}/: given twice" in rank(model, f"{model}/")[2]  # by another spelling
    assert "no corpus at" in rank(model, "--target", tmp_path / "none.txt")[2]
    assert rank(model, "--target", tmp_path / "none.txt")[0] == 2
    assert "all teachers are of one language" in rank(model, "--data", data_of(tmp_path, "en"))[2]
    assert "needs text of nl" in rank(model, teacher("nl"), "--data", data_of(tmp_path, "en"))[2]
    assert f"{model}-: no such folder" in rank(f"{model}-", model, "--data", tmp_path)[2]


def test_data_is_looked_at_before_a_model_is_opened(rank, teacher, tmp_path):
    models = [teacher("en"), teacher("nl")]
    for model in models:
        Path(model, "config.json").write_text("{}")

    _, _, without_text = rank(*models, "--data", tmp_path / "nowhere")
    Path(models[0], "model.onnx").touch()
    _, _, exported = rank(*models, "--data", tmp_path / "nowhere")

    assert "needs text of en" in without_text
    assert f"{models[0]}: is a compact or exported model" in exported


def test_teachers_of_other_types_are_told_what_their_agreement_is_of():
    views = [
        View("a", "", [], ("LOC", "PER"), 0.9),
        View("b", "", [], ("LOC", "MISC"), 0.9),
        View("c", "", [], ("GPE", "PERSON"), 0.9),
    ]

    assert list(unlike_types(views)) == [
        "a: knows LOC, PER, the others GPE, LOC, MISC, PERSON: agreement is of LOC alone",
        "b: knows LOC, MISC, the others GPE, LOC, PER, PERSON: agreement is of LOC alone",
        "c: knows GPE, PERSON, the others LOC, MISC, PER: it has no agreement with them",
    ]
    assert not list(unlike_types(views[:1] * 2))


def test_a_teacher_whose_types_are_its_own_is_told_and_ranked(rank, teacher):
    models = [teacher("en"), teacher("nl")]
    path = Path(models[1], "config.json")
    path.write_text(path.read_text().replace("-PER", "-PERSON").replace("-LOC", "-GPE").replace("-ORG", "-COMPANY"))

    status, table, told = rank(*models)

    assert status == 0
    assert f"{models[1]}: knows COMPANY, GPE, PERSON, the others LOC, ORG, PER: it has no agreement" in told
    assert {line.split()[3] for line in table.splitlines()[1:]} == {"-"}


def data_of(folder, language):
    write_conll(folder / "data" / language / "train.conll", sentences(30, seed=1))
    return folder / "data"


def test_a_surer_teacher_comes_first_and_among_equals_the_one_that_agrees():
    ranks = [a_rank("a", 0.61, 50.0), a_rank("b", 0.9, 40.0), a_rank("c", 0.63, 45.0), a_rank("d", 0.6, 70.0)]

    assert [one.model for one in in_order(ranks)] == ["b", "d", "a", "c"]
