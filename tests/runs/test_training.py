"""Whole runs through the launch scripts, with a tiny encoder and 60 sentences."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from runs import (
    DISTILL,
    REPOSITORY,
    STEPS_PER_EPOCH,
    TEACHER,
    are_equal,
    brief,
    lines_with,
    metrics,
    report_of,
    run_script,
    run_well,
    sentences,
    stop_at,
    weights_of,
    write_conll,
)
from safetensors.torch import load_file, save_file

from xlner import load_tagger
from xlner.compare import f1_of, read_run
from xlner.config.load import load_recipe
from xlner.soft_labels.store import SoftLabels
from xlner.train.checkpoint import checkpoints

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def student(learning, tiny_encoder, tmp_path_factory):
    """The folder of a finished student that started from the raw encoder; not to be changed."""
    place = tmp_path_factory.mktemp("student")
    run_well(DISTILL, *learning, f"encoder={tiny_encoder}", "run=first", cwd=place)
    return place / "runs" / "first"


@pytest.fixture(scope="module")
def stopped(teaching, tmp_path_factory):
    """A teacher's run, stopped by Ctrl-C in its second epoch; not to be changed."""
    place = tmp_path_factory.mktemp("stopped")
    stop = stop_at(STEPS_PER_EPOCH + 3, place / "runs" / "first", signal.SIGINT)
    finished = run_script(TEACHER, *teaching, "run=first", cwd=place, meanwhile=stop)
    return place, finished


@pytest.fixture
def stopped_copy(stopped, tmp_path):
    """A copy of its working directory that may be changed."""
    return Path(shutil.copytree(stopped[0], tmp_path / "copy"))


def test_a_finished_teacher_leaves_a_recipe_metrics_a_model_predictions_and_a_report(teacher):
    assert sorted(path.name for path in teacher.iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "model",
        "predictions-dev.conll",
        "predictions-test.conll",
        "recipe.yaml",
        "report.json",
        "status.json",
    ]


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_the_kept_predictions_have_the_scores_of_the_report(request, kind):
    run = read_run(request.getfixturevalue(kind))

    scores = report_of(run.path)["scores"]["test" if kind == "teacher" else "student"]
    assert run.f1 == pytest.approx(scores["overall"]["f1"])
    by_type = {name: f1_of(counts.sum(axis=0)) for name, counts in run.counts.items()}
    assert by_type == pytest.approx({name: score["f1"] for name, score in scores["types"].items()})


def test_a_finished_student_leaves_a_recipe_metrics_a_model_predictions_and_a_report(student):
    assert sorted(path.name for path in student.iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "model",
        "predictions-test.conll",
        "recipe.yaml",
        "report.json",
        "status.json",
    ]
    report = report_of(student)
    for corpus in (report["text"], report["corpora"]["test"]):
        assert len(corpus["fingerprint"]) == 12
        assert corpus["corpus_name"] is None


def test_the_recipe_beside_a_result_is_that_of_the_run(teacher, teaching):
    recipe = load_recipe("teacher", [f"recipe={teacher / 'recipe.yaml'}"])

    assert recipe == load_recipe("teacher", [*teaching, "run=first"])


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_the_loss_falls(request, kind):
    losses = [line["loss"] for line in lines_with(request.getfixturevalue(kind), "loss")]

    assert len(losses) == 5 * STEPS_PER_EPOCH
    assert sum(losses[-STEPS_PER_EPOCH:]) < 0.7 * sum(losses[:STEPS_PER_EPOCH])


@pytest.mark.parametrize(
    ("kind", "shares"),
    [
        ("teacher", {"recognizer": 1.0, "similarity": 1.0}),
        ("student", {"similarity": 1.0, "recognizer_first": 0.5, "recognizer_second": 0.5}),
    ],
)
def test_the_loss_is_the_sum_of_its_terms_with_their_shares(request, kind, shares):
    for line in lines_with(request.getfixturevalue(kind), "loss"):
        assert line["loss"] == pytest.approx(
            sum(share * line[f"loss_{name}"] for name, share in shares.items()), abs=1e-5
        )


def test_a_teacher_learns_what_there_is_to_learn(teacher):
    tagger = load_tagger(teacher / "model")

    tags = tagger.tag_words(["gestern", "war", "Anna", "in", "Kiel", "."])

    assert report_of(teacher)["scores"]["test"]["overall"]["f1"] > 60
    assert tags == ["O", "O", "B-PER", "O", "B-LOC", "O"]


def test_a_student_learns_from_soft_labels_alone(student):
    scores = report_of(student)["scores"]

    assert scores["teacher"]["overall"]["f1"] > 60
    assert scores["student"]["overall"]["f1"] > 40


def test_the_model_is_the_one_with_the_best_score_on_dev(teacher):
    scores = {line["step"]: line["dev_f1"] for line in lines_with(teacher, "dev_f1")}

    report = report_of(teacher)

    assert list(scores) == [STEPS_PER_EPOCH * epoch for epoch in (1, 2, 3, 4, 5)]
    assert scores[report["training"]["best_step"]] == max(scores.values())
    assert report["scores"]["dev"]["overall"]["f1"] == pytest.approx(max(scores.values()), abs=1e-3)


# The dev set calls entities what the training calls none: all scores are 0, and so the first one stays the best.
def test_a_later_model_that_is_no_better_on_dev_is_not_taken(teaching, small_data, tmp_path):
    data = Path(shutil.copytree(small_data, tmp_path / "data"))
    write_conll(data / "en" / "dev.conll", [[("es", "B-PER"), ("regnet", "B-LOC"), (".", "O")]])
    run = tmp_path / "runs" / "first"

    arguments = (*(argument for argument in teaching if not argument.startswith("data=")), f"data={data}", "run=first")
    run_well(TEACHER, *brief(arguments, 2), "checkpoint.steps=8", cwd=tmp_path)

    first, last = (load_file(run / "checkpoints" / f"step-{step}" / "model.safetensors") for step in (8, 16))
    kept = load_file(run / "model" / "model.safetensors")
    assert [line["dev_f1"] for line in lines_with(run, "dev_f1")] == [0.0, 0.0]
    assert all(torch.equal(tensor, first[f"recognizer.{name}"]) for name, tensor in kept.items())
    assert not all(torch.equal(tensor, last[f"recognizer.{name}"]) for name, tensor in kept.items())


def test_the_same_seed_gives_the_same_weights_bit_by_bit(teacher, teaching, tmp_path):
    run_well(TEACHER, *teaching, "run=again", cwd=tmp_path)

    assert are_equal(weights_of(tmp_path / "runs" / "again"), weights_of(teacher))


def test_another_seed_gives_another_run(teacher, teaching, tmp_path):
    run_well(TEACHER, *brief(teaching), "run=other", "seed=1", cwd=tmp_path)

    losses = [line["loss"] for line in lines_with(tmp_path / "runs" / "other", "loss")]
    assert losses[0] != lines_with(teacher, "loss")[0]["loss"]


def test_dropout_is_at_work_from_the_first_step_on(teacher, teaching, still_encoder, tmp_path):
    run_well(TEACHER, *brief(teaching[1:]), f"encoder={still_encoder}", "run=still", cwd=tmp_path)

    # The two encoders differ in nothing but their dropout.
    assert metrics(tmp_path / "runs" / "still")[0]["loss"] != metrics(teacher)[0]["loss"]


def test_layers_that_are_computed_twice_give_the_same_teacher(teaching, tmp_path):
    run_well(TEACHER, *brief(teaching), "run=kept", cwd=tmp_path)
    run_well(TEACHER, *brief(teaching), "optimization.gradient_checkpointing=true", "run=twice", cwd=tmp_path)

    assert are_equal(weights_of(tmp_path / "runs" / "kept"), weights_of(tmp_path / "runs" / "twice"))


def test_frozen_layers_stay_as_they_were_and_the_others_do_not(teaching, tiny_encoder, tmp_path):
    run_well(TEACHER, *brief(teaching), "optimization.freeze=embeddings+1", "run=frozen", cwd=tmp_path)

    before = load_file(Path(tiny_encoder) / "model.safetensors")
    after = weights_of(tmp_path / "runs" / "frozen")
    kept = {name for name, tensor in before.items() if torch.equal(tensor, after[f"bert.{name}"])}
    assert kept == {name for name in before if name.startswith(("embeddings.", "encoder.layer.0."))}


def test_ctrl_c_ends_with_status_130_one_message_and_a_checkpoint(stopped):
    place, finished = stopped

    (checkpoint,) = (place / "runs" / "first" / "checkpoints").iterdir()
    assert finished.status == 130
    assert finished.messages == [
        f"stopped; saved to {checkpoint.relative_to(place)}: the same command goes on from there"
    ]
    assert not (place / "runs" / "first" / "report.json").exists()


def test_a_stopped_teacher_goes_on_as_if_it_had_never_been_stopped(stopped_copy, teacher, teaching):
    finished = run_script(TEACHER, *teaching, "run=first", cwd=stopped_copy)

    run = stopped_copy / "runs" / "first"
    assert finished.status == 0
    assert "going on from runs/first/checkpoints/step-" in finished.stdout
    assert are_equal(weights_of(run), weights_of(teacher))
    assert [line["step"] for line in metrics(run)] == [line["step"] for line in metrics(teacher)]
    assert [line["dev_f1"] for line in lines_with(run, "dev_f1")] == [
        line["dev_f1"] for line in lines_with(teacher, "dev_f1")
    ]


def test_a_terminated_student_goes_on_as_if_it_had_never_been_stopped(student, learning, tiny_encoder, tmp_path):
    arguments = (*learning, f"encoder={tiny_encoder}", "run=first")
    run = tmp_path / "runs" / "first"

    first = run_script(DISTILL, *arguments, cwd=tmp_path, meanwhile=stop_at(20, run, signal.SIGTERM))
    second = run_script(DISTILL, *arguments, cwd=tmp_path)

    assert (first.status, len(first.messages), second.status) == (143, 1, 0)
    assert are_equal(weights_of(run), weights_of(student))


def test_a_run_whose_process_was_killed_goes_on_from_its_last_checkpoint(teacher, teaching, tmp_path):
    # The name of the run is the same, so that only the interval of checkpoints tells this recipe from the teacher's.
    arguments = (*teaching, "run=first", "checkpoint.steps=7")
    run = tmp_path / "runs" / "first"

    run_script(TEACHER, *arguments, cwd=tmp_path, meanwhile=stop_at(30, run, signal.SIGKILL))
    run_well(TEACHER, *arguments, cwd=tmp_path)

    assert are_equal(weights_of(run), weights_of(teacher))
    assert [line["step"] for line in metrics(run)] == [line["step"] for line in metrics(teacher)]


def test_the_newest_two_checkpoints_are_kept(teaching, tmp_path):
    run_well(TEACHER, *brief(teaching), "checkpoint.steps=2", "run=first", cwd=tmp_path)

    kept = {path.name for path in (tmp_path / "runs" / "first" / "checkpoints").iterdir()}
    assert kept == {"step-6", "step-8"}


def test_whoever_goes_back_to_a_checkpoint_leaves_those_behind_it(teaching, tmp_path):
    run, arguments = tmp_path / "runs" / "first", (*teaching, "run=first", "checkpoint.steps=5")
    run_script(TEACHER, *arguments, cwd=tmp_path, meanwhile=stop_at(30, run, signal.SIGKILL))
    older, newer = checkpoints(run / "checkpoints")
    step = int(older.name[5:])
    back = [f"checkpoint.resume={older}", "checkpoint.allow_changes=optimization.learning_rate"]
    other = [one for one in arguments if not one.startswith("optimization.learning_rate=")]
    other += [*back, "optimization.learning_rate=1e-5"]
    (run / "metrics.jsonl").unlink()  # by which `stop_at` tells how far it is

    stopped = run_script(TEACHER, *other, cwd=tmp_path, meanwhile=stop_at(step + 2, run, signal.SIGTERM))

    kept = [path.name for path in checkpoints(run / "checkpoints")]
    assert older.name in kept
    assert newer.name not in kept or f"{newer}: of the attempt before, removed" in stopped.stdout
    assert "with checkpoint.resume=auto the same command goes on from there" in stopped.messages[-1]
    other[other.index(back[0])] = "checkpoint.resume=auto"
    run_well(TEACHER, *other, cwd=tmp_path)
    assert max(line["learning_rate"] for line in lines_with(run, "loss") if line["step"] > step) <= 1e-5


def test_a_recipe_of_an_unfinished_run_that_is_no_yaml_is_told(stopped_copy, teaching):
    with (stopped_copy / "runs" / "first" / "recipe.yaml").open("a", encoding="utf-8") as file:
        file.write("foo: [\n")

    finished = run_script(TEACHER, *teaching, "run=first", cwd=stopped_copy)

    assert finished.status == 2
    assert "recipe.yaml: no valid YAML" in finished.messages[-1]


def test_the_format_of_a_text_is_that_of_the_text_alone(learning, small_data, tmp_path):
    text = (small_data / "de" / "train.txt").read_text(encoding="utf-8")
    (tmp_path / "letters.raw").write_text(text, encoding="utf-8")

    run_well(DISTILL, *brief(learning), "text=letters.raw", "corpus.format=text", "run=first", cwd=tmp_path)

    assert report_of(tmp_path / "runs" / "first")["scores"]["student"]


def test_a_run_killed_before_its_first_checkpoint_begins_anew_without_old_lines(teaching, tmp_path):
    arguments = (*brief(teaching, 3), "run=first")
    run = tmp_path / "runs" / "first"

    run_script(TEACHER, *arguments, cwd=tmp_path, meanwhile=stop_at(3, run, signal.SIGKILL))
    run_well(TEACHER, *arguments, cwd=tmp_path)

    assert [line["step"] for line in lines_with(run, "loss")] == list(range(1, 3 * STEPS_PER_EPOCH + 1))


def test_a_finished_run_is_not_done_again(teacher, teaching):
    before = (teacher / "report.json").read_text()

    finished = run_script(TEACHER, *teaching, "run=first", cwd=teacher.parent.parent)

    assert finished.status == 2
    assert finished.messages == [
        "runs/first: holds a finished run (report.json); give another run=, or remove the folder"
    ]
    assert (teacher / "report.json").read_text() == before


def test_an_unfinished_run_does_not_go_on_with_another_recipe(stopped_copy, teaching):
    finished = run_script(TEACHER, *teaching, "run=first", "seed=9", cwd=stopped_copy)

    (message,) = finished.messages
    assert finished.status == 2
    assert "holds an unfinished run of another recipe (now different: seed: 9)" in message


def test_an_unfinished_run_does_not_go_on_with_another_corpus(stopped_copy, teaching, small_data):
    train = small_data / "en" / "train.conll"
    before = train.read_text()
    train.write_text(before.replace("O\n", "B-PER\n", 1))

    try:
        finished = run_script(TEACHER, *teaching, "run=first", cwd=stopped_copy)
    finally:
        train.write_text(before)

    assert finished.status == 2
    assert "the run was begun with another training corpus (then " in finished.messages[-1]


def test_a_changed_corpus_is_taken_where_that_is_allowed_and_told_in_the_report(stopped_copy, teaching, small_data):
    other = Path(shutil.copytree(small_data, stopped_copy / "data"))
    write_conll(other / "en" / "train.conll", sentences(60, seed=17))
    arguments = [argument for argument in teaching if not argument.startswith("data=")]

    run_well(
        TEACHER, *arguments, f"data={other}", "run=first", "checkpoint.allow_changes=corpus,data", cwd=stopped_copy
    )

    changes = report_of(stopped_copy / "runs" / "first")["changes"]
    assert [change["name"] for change in changes] == ["data", "training corpus"]
    assert all(change["then"] != change["now"] for change in changes)


def test_a_changed_learning_rate_is_at_work_where_that_is_allowed(stopped_copy, teaching):
    arguments = [argument for argument in teaching if not argument.startswith("optimization.learning_rate=")]
    run = stopped_copy / "runs" / "first"
    (step,) = [int(path.name[5:]) for path in (run / "checkpoints").iterdir()]
    before = next(line["learning_rate"] for line in lines_with(run, "loss") if line["step"] == step)

    run_well(
        TEACHER,
        *arguments,
        "optimization.learning_rate=1e-5",
        "run=first",
        "checkpoint.allow_changes=optimization.learning_rate",
        cwd=stopped_copy,
    )

    after = [line["learning_rate"] for line in lines_with(run, "loss") if line["step"] > step]
    assert before > 1e-3
    assert 0 < max(after) <= 1e-5


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        ("labels", "labels cannot change within a run: the outputs of the network are theirs"),
        ("optimization.batch_size", "cannot change within a run: the steps so far were made of other batches"),
        (
            "optimization.acumulation",
            "unknown name 'optimization.acumulation'; expected corpus, teacher, processes, or",
        ),
    ],
)
def test_what_can_never_change_and_unknown_names_are_refused(teaching, tmp_path, allowed, message):
    refused = run_script(TEACHER, *teaching, "run=first", f"checkpoint.allow_changes={allowed}", cwd=tmp_path)

    assert refused.status == 2
    assert message in refused.messages[-1]


def test_a_full_disk_is_told_by_the_file_and_the_run_goes_on_once_there_is_room(stopped_copy, teacher, teaching):
    lines = stopped_copy / "runs" / "first" / "metrics.jsonl"
    kept = lines.rename(stopped_copy / "kept.jsonl")
    lines.symlink_to("/dev/full")

    refused = run_script(TEACHER, *teaching, "run=first", cwd=stopped_copy)
    lines.unlink()
    kept.rename(lines)
    run_well(TEACHER, *teaching, "run=first", cwd=stopped_copy)

    assert refused.status == 2
    assert refused.messages[-1] == (
        "runs/first/metrics.jsonl: cannot be written: No space left on device; the same command goes on from what has "
        "been saved"
    )
    assert are_equal(weights_of(stopped_copy / "runs" / "first"), weights_of(teacher))


def test_a_stopped_run_says_so_beside_its_checkpoints(stopped):
    status = json.loads((stopped[0] / "runs" / "first" / "status.json").read_text())

    assert (status["state"], status["exit_status"]) == ("stopped", 130)
    assert "the same command goes on from there" in status["message"]


def test_where_the_launcher_dies_the_run_saves_its_state_and_ends(teaching, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "accelerate.commands.launch", REPOSITORY / TEACHER, *teaching, "run=first"]
    run = tmp_path / "runs" / "first"
    launcher = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    try:
        wait_until(lambda: (run / "metrics.jsonl").is_file() and metrics(run))
        launcher.kill()
        wait_until(lambda: json.loads((run / "status.json").read_text())["state"] != "running")
    finally:
        os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()

    assert json.loads((run / "status.json").read_text())["exit_status"] == 143
    assert list((run / "checkpoints").glob("step-*"))


def wait_until(happens, seconds=120):
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_an_unfinished_run_does_not_go_on_where_that_is_not_wanted(stopped_copy, teaching):
    finished = run_script(TEACHER, *teaching, "run=first", "checkpoint.resume=never", cwd=stopped_copy)

    (message,) = finished.messages
    assert finished.status == 2
    assert "runs/first: holds an unfinished run" in message


def test_a_folder_in_which_another_run_is_writing_is_left_alone(teaching, tmp_path):
    lock_path = tmp_path / "runs" / "first" / ".lock"
    lock_path.parent.mkdir(parents=True)

    with FileLock(lock_path):
        finished = run_script(TEACHER, *teaching, "run=first", cwd=tmp_path)

    assert finished.status == 2
    assert finished.messages == ["runs/first: another run is writing here at this moment; give another run="]
    assert lock_path.exists()


def test_a_folder_with_other_files_is_left_alone(teaching, tmp_path):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "thesis.tex").write_text("years of work")

    finished = run_script(TEACHER, *teaching, "run=first", cwd=tmp_path)

    assert finished.status == 2
    assert finished.messages == ["runs/first: holds files that are no run of xlner (thesis.tex); give another run="]
    assert (tmp_path / "runs" / "first" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./taken", "taken: expected a folder for the run, found a file; give another run="),
        ("taken/below", "taken/below: cannot be made: Not a directory; give another run="),
        ("..", "run name '..'; expected letters, digits, dots, dashes and underscores, or a path with a slash"),
    ],
)
def test_a_run_cannot_lie_where_no_folder_can_be(teaching, tmp_path, name, message):
    (tmp_path / "taken").write_text("a file")

    finished = run_script(TEACHER, *teaching, f"run={name}", cwd=tmp_path)

    assert (finished.status, finished.messages) == (2, [message])


def test_a_refused_run_leaves_no_folder_behind(tmp_path):
    finished = run_script(TEACHER, "data=nowhere", "run=first", cwd=tmp_path)

    assert finished.status == 2
    assert not (tmp_path / "runs" / "first").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(teaching, tiny_encoder, tmp_path):
    broken = Path(shutil.copytree(tiny_encoder, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"][:] = 1e38  # finite, unlike what is computed with it
    save_file(weights, broken / "model.safetensors", {"format": "pt"})

    finished = run_script(TEACHER, *teaching[1:], f"encoder={broken}", "run=first", cwd=tmp_path)

    (message,) = finished.messages
    assert finished.status == 2
    assert message.startswith("step 1 (epoch 1): the loss of recognizer, similarity is not finite")


# A student must learn from its teacher's soft labels alone, whatever else stands in the target's file.
def test_labels_of_the_target_change_nothing(learning, small_data, tmp_path):
    labelled = Path(shutil.copytree(small_data, tmp_path / "data"))
    (labelled / "de" / "train.txt").unlink()
    write_conll(labelled / "de" / "train.conll", sentences(60, seed=4))
    arguments = brief(argument for argument in learning if not argument.startswith("data="))

    run_well(DISTILL, *arguments, f"data={small_data}", "run=raw", cwd=tmp_path)
    finished = run_script(DISTILL, *arguments, f"data={labelled}", "run=labelled", cwd=tmp_path)

    assert "has labels; they are not used" in finished.stdout
    assert "as stored" in finished.stdout
    assert are_equal(weights_of(tmp_path / "runs" / "raw"), weights_of(tmp_path / "runs" / "labelled"))


def test_a_student_kept_by_agreement_is_the_one_closest_to_its_teacher(learning, tiny_encoder, tmp_path):
    arguments = (*learning, f"encoder={tiny_encoder}", "selection=agreement", "holdout_ratio=0.2", "run=first")
    run = tmp_path / "runs" / "first"

    run_well(DISTILL, *brief(arguments, 4), cwd=tmp_path)

    scores = {line["step"]: line["agreement_f1"] for line in lines_with(run, "agreement_f1")}
    best_step = report_of(run)["training"]["best_step"]
    assert scores[best_step] == max(scores.values()) > 40


def test_a_student_cannot_be_kept_by_agreement_on_nothing(learning, tmp_path):
    finished = run_script(DISTILL, *learning, "selection=agreement", "holdout_ratio=0", "run=first", cwd=tmp_path)

    (message,) = finished.messages
    assert finished.status == 2
    assert message.startswith("selection=agreement needs text that is held out")


def test_the_default_student_learns_from_pooled_soft_labels(learning, teacher, tmp_path):
    arguments = [argument for argument in learning if not argument.startswith("variant=")]

    run_well(DISTILL, *arguments, "run=pooled", cwd=tmp_path)

    (folder,) = (tmp_path / "runs" / "soft-labels").iterdir()
    (pooled,) = folder.glob("pooled-*")
    ours, theirs = SoftLabels(pooled), SoftLabels(folder)
    numbers = range(len(theirs))
    assert [ours.words(number) for number in numbers] == [theirs.words(number) for number in numbers]
    assert not all((ours.probs(number) == theirs.probs(number)).all() for number in numbers)
    assert report_of(tmp_path / "runs" / "pooled")["variant"] == "pooled"


def test_pooled_soft_labels_are_made_once(learning, tmp_path):
    arguments = [*brief([argument for argument in learning if not argument.startswith("variant=")])]
    run_well(DISTILL, *arguments, "run=first", cwd=tmp_path)
    (part,) = (tmp_path / "runs").glob("soft-labels/*/pooled-*/part-0000.arrow")
    written = part.stat().st_mtime_ns

    run_well(DISTILL, *arguments, "run=second", "seed=1", cwd=tmp_path)

    (found,) = (tmp_path / "runs").glob("soft-labels/*/pooled-*/part-0000.arrow")
    assert found.stat().st_mtime_ns == written
