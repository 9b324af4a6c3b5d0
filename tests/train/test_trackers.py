"""Where the numbers of a run go beside metrics.jsonl."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from runs import TEACHER, brief, lines_with, run_ranks, run_well

from xlner.errors import RecipeError
from xlner.train.run import check_trackers


def teach(environment, teaching, trackers, cwd):
    arguments = (*brief(teaching), "run=first", f"trackers={trackers}")
    return run_ranks([environment], TEACHER, *arguments, cwd=cwd, meanwhile=None)[0]


@pytest.mark.slow
def test_tensorboard_gets_the_numbers_of_the_metrics(teaching, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_well(TEACHER, *brief(teaching), "run=first", "trackers=tensorboard", cwd=tmp_path)

    (events,) = {
        path.parent
        for path in (tmp_path / "runs" / "first").rglob("events.out.tfevents.*")
        if "xlner" in path.parts[-2]
    }
    found = EventAccumulator(str(events)).Reload()
    expected = [(line["step"], line["loss"]) for line in lines_with(tmp_path / "runs" / "first", "loss")]
    assert [(event.step, pytest.approx(event.value)) for event in found.Scalars("loss")] == expected


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_writes_a_run_without_a_network(teaching, tmp_path):
    # Its package prints lines of its own.
    finished = teach({"WANDB_MODE": "offline"}, teaching, "wandb", tmp_path)

    assert finished.status == 0
    assert list(Path(tmp_path).rglob("offline-run-*/*.wandb"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_keeps_the_numbers_in_a_local_folder(teaching, tmp_path):
    # It would rather have a data base.
    environment = {"MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}

    finished = teach(environment, teaching, "mlflow", tmp_path)

    assert finished.status == 0, finished.stderr
    (losses,) = tmp_path.rglob("metrics/loss")
    expected = [(line["step"], line["loss"]) for line in lines_with(tmp_path / "runs" / "first", "loss")]
    found = [line.split() for line in losses.read_text(encoding="utf-8").splitlines()]
    assert [(int(step), pytest.approx(float(value))) for _, value, step in found] == expected


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
def test_a_tracker_that_does_not_start_ends_the_run_with_its_reason(teaching, tmp_path):
    finished = teach({"MLFLOW_TRACKING_URI": "nothing://nowhere"}, teaching, "mlflow", tmp_path)

    assert finished.status == 2
    assert "trackers=mlflow: does not start: " in finished.messages[-1]


def test_a_tracker_that_nobody_knows_is_refused_with_the_near_one():
    with pytest.raises(RecipeError, match=r"unknown tracker 'wandbb'; known: .*did you mean 'wandb'"):
        check_trackers(["wandbb"])


def test_a_tracker_that_is_not_installed_is_told_rather_than_passed_over():
    missing = next(name for name in ("swanlab", "clearml", "aim") if find_spec(name) is None)

    with pytest.raises(RecipeError, match=f"trackers={missing}: its package is not installed; pip install {missing}"):
        check_trackers(["tensorboard", missing])
