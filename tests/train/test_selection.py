"""Which student is kept: the measures, where their corpora come from, and how results tell of target labels."""

import shutil
from pathlib import Path
from typing import get_type_hints

import pytest
from runs import DISTILL, TINY, brief, lines_with, report_of, run_script, run_well, sentences, write_conll

from xlner.compare import markdown, read_run, settings_of
from xlner.config.schema import DistillRecipe
from xlner.jobs.student import SELECTIONS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(small_data, tmp_path_factory):
    """Corpora with a labelled dev set of the target."""
    folder = Path(shutil.copytree(small_data, tmp_path_factory.mktemp("labelled") / "data"))
    write_conll(folder / "de" / "dev.conll", sentences(20, seed=6))
    return folder


@pytest.fixture(scope="module")
def arguments(learning, data, tiny_encoder):
    """A student that has to learn everything, so that later ones are better."""
    kept = [argument for argument in learning if not argument.startswith("data=")]
    return [*brief(kept, 3), f"data={data}", f"encoder={tiny_encoder}", "run=first", "holdout_ratio=0.2"]


def test_each_selection_of_the_recipe_has_its_measures():
    choices = DistillRecipe.__dataclass_fields__["selection"].metadata["choices"]

    assert set(choices) == {*SELECTIONS, "auto"}
    assert get_type_hints(DistillRecipe)["selection"] is str


@pytest.mark.parametrize(
    ("selection", "named"),
    [("last", "agreement_f1"), ("source", "source_f1"), ("target", "target_f1"), ("score", "selection_score")],
)
def test_the_best_by_the_score_of_the_selection_is_kept(arguments, selection, named, tmp_path):
    run_well(DISTILL, *arguments, f"selection={selection}", cwd=tmp_path)

    run = tmp_path / "runs" / "first"
    scores = {line["step"]: line[named] for line in lines_with(run, named)}
    report = report_of(run)
    assert len(scores) == 3
    assert scores[report["training"]["best_step"]] == max(scores.values())
    assert report["selection"] == selection


def test_the_score_of_both_is_the_mean_of_agreement_and_source_dev(arguments, tmp_path):
    run_well(DISTILL, *arguments, "selection=score", cwd=tmp_path)

    for line in lines_with(tmp_path / "runs" / "first", "selection_score"):
        assert line["selection_score"] == pytest.approx((line["agreement_f1"] + line["source_f1"]) / 2, abs=1e-3)


def test_results_tell_that_target_labels_were_used(arguments, tmp_path):
    finished = run_well(DISTILL, *arguments, "selection=target", cwd=tmp_path)

    run = read_run(tmp_path / "runs" / "first")
    lines = markdown(settings_of([run]), [run], ["de"], "variant=calibrated")
    assert "target labels used: 20 of the dev set chosen by" in finished.stdout
    assert report_of(tmp_path / "runs" / "first")["target_labels"]["dev"] == 20
    card = (tmp_path / "runs" / "first" / "model" / "README.md").read_text(encoding="utf-8")
    assert "Labels of its own language: 20 of the dev set chosen by" in card
    assert any(line.startswith("Chosen by labels of the target language (selection=target)") for line in lines)


def test_other_results_do_not_tell_of_target_labels(arguments, tmp_path):
    finished = run_well(DISTILL, *arguments, "selection=score", cwd=tmp_path)

    run = read_run(tmp_path / "runs" / "first")
    lines = markdown(settings_of([run]), [run], ["de"], "variant=calibrated")
    assert "target labels used" not in finished.stdout
    assert not any("Chosen by labels" in line for line in lines)


def test_a_dev_set_that_is_not_there_is_named(learning, tmp_path):
    finished = run_script(DISTILL, *learning, "selection=target", "run=first", cwd=tmp_path)

    (message,) = finished.messages
    assert finished.status == 2
    assert "dev" in message
    assert "de" in message
    assert not (tmp_path / "runs" / "soft-labels").exists()  # told before a teacher labels anything


def test_a_teacher_that_is_not_there_is_named_before_its_dev_set_is_asked_for(small_data, tmp_path):
    given = ("target=de", "teacher=nosuch", f"data={small_data}", "selection=source")

    finished = run_script(DISTILL, *given, cwd=tmp_path)

    (message,) = finished.messages
    assert finished.status == 2
    assert message.startswith("teacher=nosuch: no such folder; train one with train_teacher.py")


def test_a_teacher_that_does_not_say_its_language_cannot_be_asked_for_its_dev_set(bert_folder, small_data, tmp_path):
    plain = Path(shutil.copytree(bert_folder, tmp_path / "plain"))
    (plain / "xlner.json").unlink()
    (plain / "similarity.safetensors").unlink()
    given = ("target=de", f"teacher={plain}", f"data={small_data}", *TINY, "run=first", "selection=source")

    finished = run_script(DISTILL, *given, cwd=tmp_path)

    (message,) = finished.messages
    assert finished.status == 2
    assert "does not say which" in message
    assert "source.language" in message
