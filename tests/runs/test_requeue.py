"""docs/requeue.sh, with stand-ins for the cluster: a job that is told to end saves its run and queues itself again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from runs import ENVIRONMENT, REPOSITORY, TEACHER

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def cluster(tmp_path):
    """A folder of commands: the launcher starts the script itself, `scontrol` writes down what it is asked."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, content in {
        "accelerate": f'shift; exec "{sys.executable}" "$@"',
        "python": f'exec "{sys.executable}" "$@"',
        "scontrol": 'echo "$@" >> "$ASKED"',
    }.items():
        (commands / name).write_text(f"#!/bin/bash\n{content}\n")
        (commands / name).chmod(0o755)
    return commands


def start(cluster, tmp_path, *arguments):
    environment = os.environ | ENVIRONMENT
    environment |= {
        "PATH": f"{cluster}:{environment['PATH']}",
        "ASKED": str(tmp_path / "asked"),
        "SLURM_JOB_ID": "17",
    }
    script = ["bash", str(REPOSITORY / "docs" / "requeue.sh"), "runs/job", str(REPOSITORY / TEACHER), *arguments]
    return subprocess.Popen([*script, "run=job"], cwd=tmp_path, env=environment)


@pytest.mark.slow
def test_a_job_that_is_told_to_end_queues_itself_again_and_the_next_one_ends_the_run(cluster, teaching, tmp_path):
    metrics = tmp_path / "runs" / "job" / "metrics.jsonl"
    arguments = [argument for argument in teaching if "epochs" not in argument]

    job = start(cluster, tmp_path, *arguments, "optimization.epochs=20")
    while not metrics.is_file():
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    first = job.wait(120)
    status = json.loads((tmp_path / "runs" / "job" / "status.json").read_text())
    second = start(cluster, tmp_path, *arguments, "optimization.epochs=20").wait(300)

    assert (first, second) == (0, 0)
    assert status["state"] == "stopped"
    assert (tmp_path / "asked").read_text() == "requeue 17\n"  # the second one ended by itself
    assert (tmp_path / "runs" / "job" / "report.json").is_file()


@pytest.mark.slow
def test_a_job_that_fails_is_not_queued_again(cluster, tmp_path):
    assert start(cluster, tmp_path, "encoder=nowhere", "data=nowhere").wait(120) == 2
    assert not (tmp_path / "asked").exists()
