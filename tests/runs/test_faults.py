"""Runs that lose a file, the disk or their process at any moment: nothing is lost, and nothing damaged is used."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fault_runs
import pytest
import torch
from fault_runs import Fault, in_a_process, outcome, train

from xlner.errors import RunError
from xlner.files import folder_damage, published_folder, remove_folder
from xlner.train.checkpoint import KEPT, check_space, checkpoints

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing ever happened to."""
    place = tmp_path_factory.mktemp("whole")
    assert in_a_process(lambda: train(place / "run"), place / "log") == 0
    return outcome(place / "run")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed late; not to be changed."""
    place = tmp_path_factory.mktemp("killed")
    assert in_a_process(lambda: train(place / "run", Fault(130, "death", half=False)), place / "log") == 9
    assert len(checkpoints(place / "run" / "checkpoints")) == KEPT
    return place / "run"


def go_on(folder, log, **checkpoint):
    """Go on with a run; its exit status, and what it printed."""
    return in_a_process(lambda: train(folder, **checkpoint), log), log.read_text(errors="replace")


def test_a_selection_of_file_system_faults_is_survived():
    found = subprocess.run(
        [sys.executable, HERE / "fault_runs.py", "--every", "31"], capture_output=True, text=True, check=False
    )

    told = json.loads(found.stdout.splitlines()[-1]) if found.stdout else found.stderr
    assert found.returncode == 0, told
    assert told["calls"] > 100
    assert told["survived"] == told["cases"] > 30


def cut(share):
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def flip(place):
    """Flip a bit near the beginning or in the middle."""

    def damage(path):
        content = bytearray(path.read_bytes())
        content[place if place >= 0 else len(content) // 2] ^= 1
        path.write_bytes(content)

    return damage


def shorten(path):
    os.truncate(path, path.stat().st_size - 1)


def swap(path):
    """The file of the older checkpoint in its place."""
    older = checkpoints(path.parents[1])[0]
    shutil.copy(older / path.name, path)


def link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def folder_instead(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "deleted": Path.unlink,
    "empty": cut(0),
    "half": cut(0.5),
    "a byte short": shorten,
    "a bit at the start": flip(2),
    "a bit in the middle": flip(-1),
    "of another step": swap,
    "a link": link,
    "a folder": folder_instead,
}
FILES = ["model.safetensors", "state.pt", "progress.json", "manifest.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(killed, whole, tmp_path, file, damage):
    shutil.copytree(killed, tmp_path / "run")
    older, newest = checkpoints(tmp_path / "run" / "checkpoints")
    DAMAGES[damage](newest / file)

    status, told = go_on(tmp_path / "run", tmp_path / "log")

    assert status == 0, told
    assert "damaged, an older checkpoint is used" in told
    assert str(newest) in told
    assert f"going on from {older}" in told
    assert outcome(tmp_path / "run") == whole


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"\0" * 20])
def test_a_torn_line_of_metrics_does_not_keep_a_run_from_going_on(killed, whole, tmp_path, torn):
    shutil.copytree(killed, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("ab") as file:
        file.write(torn)

    status, told = go_on(tmp_path / "run", tmp_path / "log")

    assert status == 0, told
    assert outcome(tmp_path / "run") == whole


def test_an_empty_report_is_that_of_a_run_that_is_not_finished(killed, whole, tmp_path):
    shutil.copytree(killed, tmp_path / "run")
    (tmp_path / "run" / "report.json").touch()

    status, told = go_on(tmp_path / "run", tmp_path / "log")

    assert status == 0, told
    assert outcome(tmp_path / "run") == whole


def test_what_killed_runs_left_of_checkpoints_goes_when_the_run_goes_on(killed, tmp_path):
    shutil.copytree(killed, tmp_path / "run")
    for name in (".step-2.removed", ".step-9.unfinished"):
        (tmp_path / "run" / "checkpoints" / name).mkdir()

    go_on(tmp_path / "run", tmp_path / "log")

    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_a_file_that_is_not_in_the_manifest_is_named(killed, whole, tmp_path):
    shutil.copytree(killed, tmp_path / "run")
    newest = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    (newest / "more.bin").write_bytes(b"")

    status, told = go_on(tmp_path / "run", tmp_path / "log")

    assert (status, f"{newest / 'more.bin'}: not in the manifest" in told) == (0, True)
    assert outcome(tmp_path / "run") == whole


def test_without_a_whole_checkpoint_the_run_is_refused_by_the_names_of_the_files(killed, tmp_path):
    shutil.copytree(killed, tmp_path / "run")
    found = checkpoints(tmp_path / "run" / "checkpoints")
    for path in found:
        (path / "state.pt").unlink()

    status, told = go_on(tmp_path / "run", tmp_path / "log")

    assert status == 2
    assert all(f"{path / 'state.pt'}: missing" in told for path in found)
    assert "to begin anew" in told


def test_a_run_goes_on_from_the_checkpoint_that_is_named(killed, whole, tmp_path):
    shutil.copytree(killed, tmp_path / "run")
    older = checkpoints(tmp_path / "run" / "checkpoints")[0]

    status, told = go_on(tmp_path / "run", tmp_path / "log", resume=str(older), steps=3)

    assert status == 0, told
    assert f"going on from {older}" in told
    found = outcome(tmp_path / "run")
    assert {name: found[name] for name in ("model", "metrics", "report")} == {
        name: whole[name] for name in ("model", "metrics", "report")
    }


def test_a_checkpoint_that_is_named_must_be_whole_and_of_this_run(killed, tmp_path):
    shutil.copytree(killed, tmp_path / "run")
    older, newest = checkpoints(tmp_path / "run" / "checkpoints")
    (newest / "state.pt").unlink()

    damaged = go_on(tmp_path / "run", tmp_path / "log", resume=str(newest))
    foreign = go_on(tmp_path / "run", tmp_path / "log", resume=str(tmp_path / "step-4"))

    assert (damaged[0], foreign[0]) == (2, 2)
    assert f"checkpoint.resume: {newest / 'state.pt'}: missing" in damaged[1]
    assert f"is no checkpoint of this run; it has {older}, {newest}" in foreign[1]


def test_other_users_can_read_a_checkpoint(killed):
    newest = checkpoints(killed / "checkpoints")[-1]
    umask = os.umask(0)
    os.umask(umask)

    assert {path.stat().st_mode & 0o777 for path in newest.iterdir()} == {0o666 & ~umask}


def test_a_killed_run_tells_that_it_was_running_and_a_finished_one_that_it_is(killed, tmp_path):
    shutil.copytree(killed, tmp_path / "run")
    before = json.loads((killed / "status.json").read_text())

    go_on(tmp_path / "run", tmp_path / "log")

    assert before["state"] == "running"
    after = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (after["state"], after["exit_status"]) == ("finished", 0)


def training_with(folder, loss_sum):
    """A run whose loss is another one."""
    fault_runs.Tags.loss_sums = lambda self, network, batch: {"tags": loss_sum(network, batch)}
    train(folder)


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_update(tmp_path):
    def sums(network, batch):
        logits = network(batch.tokens.input_ids).flatten(0, 1)
        return torch.sqrt(logits.square().sum() * 0)  # 0, and its slope is 0 / 0

    status = in_a_process(lambda: training_with(tmp_path / "run", sums), tmp_path / "log")

    told = (tmp_path / "log").read_text()
    assert status == 2, told
    assert "step 1 (epoch 1): the gradient is not finite at a learning rate of" in told
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_status"]) == ("failed", 2)
    assert "the gradient is not finite" in status["message"]


def test_the_last_checkpoint_stays_where_a_later_loss_is_not_finite(tmp_path):
    n_calls = itertools.count()

    def sums(network, batch):
        logits = network(batch.tokens.input_ids).flatten(0, 1)
        return logits.square().sum() * (float("nan") if next(n_calls) == 5 else 1.0)

    status = in_a_process(lambda: training_with(tmp_path / "run", sums), tmp_path / "log")

    assert (status, "step 6 (epoch 1): the loss of tags is not finite" in (tmp_path / "log").read_text()) == (2, True)
    newest = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert newest.name == "step-4"
    assert folder_damage(newest) == ""


def test_a_disk_without_room_for_the_checkpoints_is_told_before_training(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    network = torch.nn.Linear(100, 100)

    with pytest.raises(RunError, match=r"0\.0 GB are free, and the run needs 0\.0 GB for 3 checkpoint\(s\)"):
        check_space(tmp_path / "run", network, n_checkpoints=3)

    check_space(tmp_path / "run", torch.nn.Linear(1, 1), n_checkpoints=3)


def test_only_what_has_a_manifest_is_removed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with published_folder(tmp_path / "ours") as unfinished:
        (unfinished / "file").write_text("")
    (tmp_path / "link").symlink_to("ours")

    for name in ("mine", "link", "ours"):
        remove_folder(tmp_path / name)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mine"]
