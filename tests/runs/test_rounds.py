"""Rounds of self-training: the student becomes the next teacher."""

import json
import shutil
import signal
from itertools import pairwise

import pytest
from runs import DISTILL, are_equal, brief, report_of, run_script, run_well, stop_at, weights_of

from xlner.config.load import load_recipe

pytestmark = pytest.mark.slow

ROUNDS = ("rounds.count=3", "holdout_ratio=0.2", "run=first")


@pytest.fixture(scope="module")
def arguments(learning, tiny_encoder):
    return (*brief(learning, 2), f"encoder={tiny_encoder}", *ROUNDS)


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    """The folder of a run in rounds; not to be changed."""
    place = tmp_path_factory.mktemp("rounds")
    run_well(DISTILL, *arguments, cwd=place)
    return place / "runs" / "first"


def test_each_round_learns_from_the_student_before(finished, learning):
    recipes = [
        load_recipe("distill", [f"target={folder / 'recipe.yaml'}"]) for folder in sorted(finished.glob("round-*"))
    ]

    teachers = [recipe.teacher for recipe in recipes]
    assert f"teacher={teachers[0]}" in learning
    assert teachers[1:] == [f"runs/first/round-{number}/model" for number in range(1, len(recipes))]
    assert {recipe.rounds.count for recipe in recipes} == {1}


def test_rounds_go_on_while_agreement_rises_and_the_best_student_is_the_result(finished):
    report = report_of(finished)
    agreements = [found["agreement_f1"] for found in report["rounds"]]
    best = max(range(len(agreements)), key=lambda number: (agreements[number], number))

    assert len(agreements) == len(list(finished.glob("round-*")))
    assert all(later > earlier for earlier, later in pairwise(agreements[:-1]))
    assert len(agreements) == 3 or agreements[-1] <= agreements[-2]
    assert are_equal(weights_of(finished), weights_of(finished / f"round-{best + 1}"))
    assert report["agreement_f1"] == agreements[best]


def test_the_report_holds_the_first_teacher_and_the_time_of_all_rounds(finished):
    rounds = [report_of(folder) for folder in sorted(finished.glob("round-*"))]
    report = report_of(finished)

    assert report["scores"]["teacher"] == rounds[0]["scores"]["teacher"]
    assert report["training"]["seconds"] == pytest.approx(sum(one["training"]["seconds"] for one in rounds), abs=0.1)


def test_a_run_that_was_stopped_in_its_second_round_goes_on_there(finished, arguments, tmp_path):
    stop = stop_at(3, tmp_path / "runs" / "first" / "round-2", signal.SIGTERM)

    stopped = run_script(DISTILL, *arguments, cwd=tmp_path, meanwhile=stop)
    first = (tmp_path / "runs" / "first" / "round-1" / "report.json").stat().st_mtime_ns
    run_well(DISTILL, *arguments, cwd=tmp_path)

    assert stopped.status == 143
    assert (tmp_path / "runs" / "first" / "round-1" / "report.json").stat().st_mtime_ns == first
    assert are_equal(weights_of(tmp_path / "runs" / "first"), weights_of(finished))


def test_an_unfinished_run_in_rounds_does_not_go_on_with_another_recipe(finished, arguments, tmp_path):
    shutil.copytree(finished, tmp_path / "runs" / "first")
    (tmp_path / "runs" / "first" / "report.json").unlink()

    again = run_script(DISTILL, *arguments, "seed=5", cwd=tmp_path)

    (message,) = again.messages
    assert again.status == 2
    assert "unfinished run of another recipe" in message


def test_rounds_need_text_that_is_held_out(learning, tmp_path):
    refused = run_script(DISTILL, *learning, "rounds.count=2", "holdout_ratio=0", "run=first", cwd=tmp_path)

    (message,) = refused.messages
    assert refused.status == 2
    assert "holdout_ratio" in message


def test_an_unknown_step_for_later_rounds_is_refused_before_the_first(learning, tmp_path):
    refused = run_script(DISTILL, *learning, "rounds.count=2", "rounds.denoising=polling", "run=first", cwd=tmp_path)

    (message,) = refused.messages
    assert refused.status == 2
    assert "did you mean 'pooling'?" in message
    assert not (tmp_path / "runs").exists()


def test_a_damaged_report_does_not_pass_for_a_round(finished):
    assert json.loads((finished / "report.json").read_text())["rounds"][0]["f1"] >= 0


def test_later_rounds_take_their_source_text_from_the_language_of_the_first_teacher(learning, small_data, tmp_path):
    # The student of the first round says that its language is the target's, whose labels must stay unseen.
    arguments = (*brief(learning), "rounds.count=2", "holdout_ratio=0.2", "source.share=0.3", "run=first")

    run_well(DISTILL, *arguments, cwd=tmp_path)

    second = load_recipe("distill", [f"target={tmp_path / 'runs' / 'first' / 'round-2' / 'recipe.yaml'}"])
    assert second.source.language == "en"


def test_the_target_language_is_no_source(learning, tmp_path):
    refused = run_script(DISTILL, *learning, "source.share=0.3", "source.language=de", "run=first", cwd=tmp_path)

    (message,) = refused.messages
    assert refused.status == 2
    assert "is the target language, whose labels are not to be looked at" in message


@pytest.mark.parametrize("missing", ["teacher=runs/nobody/model", "data=nowhere"])
def test_rounds_without_a_teacher_or_text_leave_no_folder_behind(learning, missing, tmp_path):
    key = missing.partition("=")[0]
    kept = [argument for argument in learning if not argument.startswith(f"{key}=")]

    refused = run_script(DISTILL, *kept, missing, "rounds.count=2", "run=first", cwd=tmp_path)

    (message,) = refused.messages
    assert refused.status == 2
    assert missing.partition("=")[2] in message
    assert not (tmp_path / "runs").exists()
