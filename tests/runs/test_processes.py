"""Two processes do what one process does: same global batch, same gradients, same weights."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from runs import (
    DISTILL,
    ENVIRONMENT,
    REPOSITORY,
    TEACHER,
    TINY,
    are_equal,
    metrics,
    run_on_two,
    run_script,
    sentences,
    stop_at,
    weights_of,
    write_conll,
)
from safetensors.torch import load_file

from xlner.config.schema import HardwareRecipe, OptimizationRecipe
from xlner.errors import RecipeError
from xlner.soft_labels.store import part_path
from xlner.train import run as session
from xlner.train.batches import plan_epoch
from xlner.train.loop import make_optimizer, step_batches
from xlner.train.run import is_lost_process

pytestmark = pytest.mark.slow

# 54 sentences, of which a student holds out 3, in batches of 8 make 7 batches, the last one smaller: in the last of 4
# steps one of two processes has nothing to do. A checkpoint after each of the 2 epochs.
SMALL = (*(argument for argument in TINY if "epochs" not in argument), "optimization.epochs=2", "run=first")
UNEVEN = ("corpus.max_sentences=54", "checkpoint.steps=4")
# What makes one global batch of 16 on one process and on two.
ONE, TWO = "optimization.accumulation=2", "optimization.accumulation=1"


@pytest.fixture(scope="module")
def data(small_data, tmp_path_factory):
    """Corpora with a dev set of one sentence: fewer than there are processes."""
    folder = Path(shutil.copytree(small_data, tmp_path_factory.mktemp("data") / "data"))
    write_conll(folder / "en" / "dev.conll", [next(row for row in sentences(20, seed=2) if len(row) > 6)])
    return folder


@pytest.fixture(scope="module")
def teachers(still_encoder, data, tmp_path_factory):
    """The run folders of one teacher, trained by one process and by two that torchrun starts."""
    arguments = (f"encoder={still_encoder}", f"data={data}", "similarity_weight=1", *SMALL, *UNEVEN)
    places = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

    assert run_script(TEACHER, *arguments, ONE, cwd=places[0]).status == 0
    finished = subprocess.run(
        [*torchrun, str(REPOSITORY / TEACHER), *arguments, TWO],
        cwd=places[1],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return [place / "runs" / "first" for place in places]


@pytest.fixture(scope="module")
def students(teachers, still_encoder, data, tmp_path_factory):
    """The run folders of one student, trained by one process and by two; each makes its own soft labels."""
    teacher = teachers[0] / "model"
    arguments = (f"encoder={still_encoder}", f"data={data}", f"teacher={teacher}", "target=de", *SMALL, *UNEVEN)
    places = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    assert run_script(DISTILL, *arguments, ONE, cwd=places[0]).status == 0
    assert [finished.status for finished in run_on_two(DISTILL, *arguments, TWO, cwd=places[1])] == [0, 0]
    return [place / "runs" / "first" for place in places]


def weights_at(run, step):
    return load_file(run / "checkpoints" / f"step-{step}" / "model.safetensors")


@pytest.mark.parametrize("kind", ["teachers", "students"])
def test_the_runs_that_are_compared_had_one_and_two_processes(request, kind):
    reports = [json.loads((run / "report.json").read_text()) for run in request.getfixturevalue(kind)]

    assert [report["training"]["processes"] for report in reports] == [1, 2]


@pytest.mark.parametrize("step", [4, 8])
@pytest.mark.parametrize("kind", ["teachers", "students"])
def test_two_processes_make_the_weights_of_one(request, kind, step):
    one, two = (weights_at(run, step) for run in request.getfixturevalue(kind))

    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("kind", ["teachers", "students"])
def test_two_processes_report_the_losses_and_scores_of_one(request, kind):
    one, two = (metrics(run) for run in request.getfixturevalue(kind))

    assert [line.keys() for line in one] == [line.keys() for line in two]
    for mine, theirs in zip(one, two, strict=True):
        for name in mine.keys() - {"words_per_second", "types"}:
            assert theirs[name] == pytest.approx(mine[name], rel=1e-5, abs=1e-5)


# Nothing is learnt, so that the loss of a step tells which batches it was made of: of 7, the last one comes alone.
def test_a_batch_that_stands_in_where_there_is_none_counts_for_nothing(still_encoder, small_data, tmp_path):
    rates = ("optimization.learning_rate=0", "optimization.head_learning_rate=0", "optimization.epochs=1")
    shared = [argument for argument in SMALL if not any(name in argument for name in ("rate=", "epochs=", "run="))]
    arguments = (f"encoder={still_encoder}", f"data={small_data}", *shared, *rates, UNEVEN[0])

    losses = []
    for accumulation in (1, 2):
        run_script(
            TEACHER, *arguments, f"optimization.accumulation={accumulation}", f"run=by-{accumulation}", cwd=tmp_path
        )
        losses.append([line["loss"] for line in metrics(tmp_path / "runs" / f"by-{accumulation}") if "loss" in line])

    single, double = losses
    assert (len(single), len(double)) == (7, 4)
    assert double[-1] == pytest.approx(single[-1], abs=1e-5)
    assert min(single[:2]) < double[0] < max(single[:2])


def accelerate(*arguments, cwd, settings=REPOSITORY / "docs" / "fsdp.yaml"):
    """A teacher on two processes that share out its weights, by the launcher."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", str(port)]
    return subprocess.run(
        [*launch, "--config_file", str(settings), str(REPOSITORY / TEACHER), *arguments],
        cwd=cwd,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_processes_with_a_shard_of_the_weights_each_train_as_with_all_of_them(still_encoder, data, tmp_path):
    # In parts of 40 pieces processes have unlike numbers of passes.
    arguments = (f"encoder={still_encoder}", f"data={data}", *SMALL, *UNEVEN, "optimization.batch_pieces=40")
    assert [done.status for done in run_on_two(TEACHER, *arguments, cwd=tmp_path)] == [0, 0]
    whole = (tmp_path / "runs" / "first").rename(tmp_path / "whole")

    done = accelerate(*arguments, cwd=tmp_path)

    run = tmp_path / "runs" / "first"
    assert done.returncode == 0, done.stdout
    assert "in shards (FSDP)" in done.stdout
    assert are_close(weights_of(run), weights_of(whole))
    for step in (4, 8):
        assert are_close(weights_at(run, step), weights_at(whole, step))
    assert [line.get("dev_f1") for line in metrics(run)] == [line.get("dev_f1") for line in metrics(whole)]

    # Stopped after the first epoch, it goes on to the same weights.
    for path in (run / "report.json", run / "status.json"):
        path.unlink()
    shutil.rmtree(run / "checkpoints" / "step-8")
    done = accelerate(*arguments, cwd=tmp_path)
    assert "going on from runs/first/checkpoints/step-4" in done.stdout
    assert are_close(weights_of(run), weights_of(whole))


def are_close(found, expected):
    return found.keys() == expected.keys() and all(
        torch.allclose(found[name], values, atol=1e-6, rtol=1e-5) for name, values in expected.items()
    )


@pytest.mark.parametrize(
    ("before", "after", "extra", "message"),
    [
        ("fsdp_version: 2", "fsdp_version: 1", (), "FSDP: fsdp_version is 1"),
        ("loading: false", "loading: true", (), "FSDP: fsdp_cpu_ram_efficient_loading is true"),
        ("", "", ("similarity_weight=1",), "is a single number, which has no shards; set similarity_weight=0"),
    ],
)
def test_what_cannot_be_trained_in_shards_is_refused(still_encoder, data, tmp_path, before, after, extra, message):
    settings = tmp_path / "fsdp.yaml"
    settings.write_text((REPOSITORY / "docs" / "fsdp.yaml").read_text().replace(before, after))

    done = accelerate(f"encoder={still_encoder}", f"data={data}", *SMALL, *extra, cwd=tmp_path, settings=settings)

    assert done.returncode != 0
    assert message in done.stdout


def test_moments_of_eight_bits_want_their_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)

    with pytest.raises(RecipeError, match=r"optimizer=adamw_8bit: needs the package bitsandbytes; pip install"):
        make_optimizer(torch.nn.Linear(2, 2), OptimizationRecipe(optimizer="adamw_8bit"))


def test_moments_are_paged_out_of_a_gpu_alone(still_encoder, data, tmp_path):
    arguments = (f"encoder={still_encoder}", f"data={data}", *SMALL, "optimization.optimizer=paged_adamw_8bit")

    done = run_script(TEACHER, *arguments, cwd=tmp_path)

    assert (done.status, "pages out of a GPU, here is none; set adamw_8bit" in done.stderr) == (2, True)


def test_moments_of_eight_bits_train_and_go_on_from_a_checkpoint():
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    torch.manual_seed(0)
    inputs, twins = torch.randn(8, 64), [torch.nn.Linear(64, 128) for _ in range(2)]
    recipe = OptimizationRecipe(optimizer="adamw_8bit", head_learning_rate=0.01)
    first, second = (make_optimizer(network, recipe) for network in twins)

    def train(network, optimizer):
        for _ in range(5):
            network(inputs).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    train(twins[0], first)
    twins[1].load_state_dict(twins[0].state_dict())
    second.load_state_dict(first.state_dict())
    for network, optimizer in zip(twins, (first, second), strict=True):
        train(network, optimizer)

    assert first.state[twins[0].weight]["state1"].dtype == torch.uint8
    assert twins[0](inputs).square().sum() < 100
    assert torch.equal(twins[0].weight, twins[1].weight)


LENGTHS = np.random.default_rng(0).integers(3, 30, size=50)


def windows_of(n_processes, rank, *, batch_pieces, skip=0, in_parts=True):
    """The steps of one process: two micro-batches of eight windows each, told by the plans they are made of."""
    objective = SimpleNamespace(lengths=LENGTHS, batch=lambda plan: plan.windows.tolist(), in_parts=in_parts)
    process = SimpleNamespace(num_processes=n_processes, process_index=rank, device=torch.device("cpu"), is_fsdp2=False)
    return list(step_batches(objective, plan_epoch(LENGTHS, 8, 0, 0), process, 2, skip, batch_pieces, 0))


def real_windows(steps):
    return sorted(chain.from_iterable(windows for step in steps for windows, real in step if real))


@pytest.mark.parametrize("batch_pieces", [0, 40, 100])
def test_processes_take_equally_many_steps_and_together_all_windows_in_parts_or_not(batch_pieces):
    one, two = (windows_of(2, rank, batch_pieces=batch_pieces) for rank in (0, 1))

    assert len(one) == len(two) == 2  # seven micro-batches, two a step on each
    assert sorted(real_windows(one) + real_windows(two)) == list(range(50))
    assert [real for _, real in two[-1]][-1] == 0.0
    passes = [len(step) for step in (*one, *two)]
    assert passes == [2] * 4 if not batch_pieces else max(passes) > 2


def test_a_run_that_goes_on_gets_the_steps_that_are_left():
    assert windows_of(1, 0, batch_pieces=60, skip=2) == windows_of(1, 0, batch_pieces=60)[2:]


def test_a_loss_of_whole_batches_takes_them_whole():
    assert windows_of(1, 0, batch_pieces=40, in_parts=False) == windows_of(1, 0, batch_pieces=0)


# Without dropout and without pairs, which each part draws by itself, nothing but the order of additions is different.
# Of two processes one makes more passes in a step than the other. Losses are compared rather than weights: the biases
# of the keys of attention change nothing, so that their gradients are mere rounding, which Adam makes large.
def test_batches_in_parts_learn_as_whole_ones_do_on_one_process_and_on_two(still_encoder, small_data, tmp_path):
    arguments = (f"encoder={still_encoder}", f"data={small_data}", *SMALL[:-1], *UNEVEN, "similarity_weight=0")
    in_parts = "optimization.batch_pieces=40"

    whole = run_script(TEACHER, *arguments, ONE, "optimization.batch_pieces=0", "run=whole", cwd=tmp_path)
    parts = run_script(TEACHER, *arguments, ONE, in_parts, "run=parts", cwd=tmp_path)
    on_two = run_on_two(TEACHER, *arguments, TWO, in_parts, "run=two", cwd=tmp_path)

    assert [finished.status for finished in (whole, parts, *on_two)] == [0] * 4
    whole_losses, part_losses, two_losses = (
        [line["loss"] for line in metrics(tmp_path / "runs" / name) if "loss" in line]
        for name in ("whole", "parts", "two")
    )
    assert len(whole_losses) == 8
    assert whole_losses[-1] < 0.6 * whole_losses[0]
    assert part_losses == pytest.approx(whole_losses, rel=1e-4)
    assert two_losses == pytest.approx(whole_losses, rel=1e-4)


def test_two_processes_write_the_soft_labels_of_one(students):
    one, two = (next((run.parent / "soft-labels").iterdir()) for run in students)

    assert one.name == two.name
    assert [path.name for path in sorted(one.glob("part-*.arrow"))] == ["part-0000.arrow"]
    assert part_path(one, 0).read_bytes() == part_path(two, 0).read_bytes()


# With dropout, so that the random state of each process has to come back too.
def test_two_stopped_processes_go_on_as_if_they_had_never_been_stopped(tiny_encoder, small_data, tmp_path):
    arguments = (f"encoder={tiny_encoder}", f"data={small_data}", *SMALL, "checkpoint.steps=8")
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    # Only the first process gets the signal, yet both must stop after the same step.
    stop = stop_at(2, parted / "runs" / "first", signal.SIGTERM)

    run_on_two(TEACHER, *arguments, cwd=whole)
    stopped = run_on_two(TEACHER, *arguments, cwd=parted, meanwhile=stop)
    run_on_two(TEACHER, *arguments, cwd=parted)

    assert [finished.status for finished in stopped] == [143, 143]
    one, two = (weights_at(place / "runs" / "first", 8) for place in (whole, parted))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_a_run_of_one_process_does_not_go_on_with_two(tiny_encoder, small_data, tmp_path):
    arguments = (f"encoder={tiny_encoder}", f"data={small_data}", *SMALL)
    run_script(TEACHER, *arguments, cwd=tmp_path, meanwhile=stop_at(2, tmp_path / "runs" / "first", signal.SIGTERM))

    finished = run_on_two(TEACHER, *arguments, cwd=tmp_path)

    assert [one.status for one in finished] == [2, 2]
    assert "made by 1 processes, now there are 2; resume with as many as before" in finished[0].messages[-1]


# Without dropout, so that nothing but the order of additions tells one process from two.
def test_where_it_is_allowed_two_processes_go_on_with_the_steps_of_one(teachers, still_encoder, data, tmp_path):
    arguments = (f"encoder={still_encoder}", f"data={data}", "similarity_weight=1", *SMALL, *UNEVEN)
    run, allowed = tmp_path / "runs" / "first", "checkpoint.allow_changes=processes"
    run_script(TEACHER, *arguments, ONE, cwd=tmp_path, meanwhile=stop_at(2, run, signal.SIGTERM))

    refused = run_on_two(TEACHER, *arguments, ONE, allowed, cwd=tmp_path)
    finished = run_on_two(TEACHER, *arguments, TWO, allowed, cwd=tmp_path)

    assert (
        "a step had 2 micro-batches over all processes, now it has 4; set optimization.accumulation=1"
        in (refused[0].messages[-1])
    )
    assert [one.status for one in finished] == [0, 0]
    whole = weights_at(teachers[0], 8)
    for name, tensor in weights_at(run, 8).items():
        torch.testing.assert_close(tensor, whole[name], atol=1e-6, rtol=1e-5)


# A launch script in which the second process comes to its end in its sixth step.
FAILING = """
import os, runpy, signal, sys
import xlner.train.loop as loop
from xlner.errors import CorpusError

real, calls = loop.step_counts, []

def failing(*arguments):
    calls.append(arguments)
    if os.environ["RANK"] == "1" and len(calls) == 6:
        if {dies}:
            os.kill(os.getpid(), signal.SIGKILL)
        raise CorpusError("the line is broken")
    return real(*arguments)

loop.step_counts = failing
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.parametrize("dies", [False, True])
def test_where_one_process_fails_all_end_and_its_own_message_is_the_one_that_tells_why(
    dies, tiny_encoder, small_data, tmp_path
):
    script = tmp_path / "failing.py"
    script.write_text(FAILING.format(dies=dies, script=str(REPOSITORY / TEACHER)))

    first, second = run_on_two(
        str(script), f"encoder={tiny_encoder}", f"data={small_data}", "recipe=en", *SMALL, cwd=tmp_path
    )

    assert (first.status, first.messages[-1]) == (2, "another process of the run has ended; its own message tells why")
    assert (second.status, second.messages[-1:]) == ((-9, []) if dies else (2, ["the line is broken"]))
    assert "Traceback" not in first.stderr
    status = json.loads((tmp_path / "runs" / "first" / "status.json").read_text())
    assert (status["state"], status["exit_status"], status["message"]) == ("failed", 2, first.messages[-1])


@pytest.mark.parametrize("start", [lambda *given, cwd: [run_script(*given, cwd=cwd)], run_on_two], ids=["one", "two"])
def test_a_run_that_is_stopped_within_an_evaluation_goes_on_as_if_it_had_never_been(
    start, tiny_encoder, small_data, tmp_path
):
    places = [tmp_path / "whole", tmp_path / "parted"]
    for place in places:
        place.mkdir()
    script = tmp_path / "stopping.py"
    script.write_text(STOPPING.format(script=str(REPOSITORY / TEACHER)))
    arguments = (f"encoder={tiny_encoder}", f"data={small_data}", "recipe=en", *SMALL, "checkpoint.steps=8")

    start(TEACHER, *arguments, cwd=places[0])
    stopped = start(str(script), *arguments, cwd=places[1])
    start(TEACHER, *arguments, cwd=places[1])

    one, two = (place / "runs" / "first" for place in places)
    assert {finished.status for finished in stopped} == {143}
    assert are_equal(weights_of(one), weights_of(two))
    assert weights_at(one, 8).keys() == weights_at(two, 8).keys()
    assert all(torch.equal(tensor, weights_at(two, 8)[name]) for name, tensor in weights_at(one, 8).items())
    speeds = {"words_per_second"}
    assert [{key: line[key] for key in line.keys() - speeds} for line in metrics(one)] == [
        {key: line[key] for key in line.keys() - speeds} for line in metrics(two)
    ]


# A launch script in which the first process alone gets SIGTERM, between two batches of the first evaluation.
STOPPING = """
import os, runpy, signal
import xlner.train.report as reporting

real = reporting.word_probs

def stopping(*arguments, **named):
    if os.environ.get("RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return real(*arguments, **named)

reporting.word_probs = stopping
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU two processes find each other")
def test_processes_that_do_not_know_of_each_other_are_refused_before_they_write(teaching, tmp_path):
    arguments = [argument for argument in teaching if not argument.startswith("hardware.cpu")]

    finished = run_on_two(TEACHER, *arguments, "run=first", cwd=tmp_path)

    told = "the launcher started 2 processes, but 1 know of each other: there is no GPU; give accelerate launch "
    told += "--multi_gpu --num_processes 2 SCRIPT ... hardware.cpu=true to use processors"
    assert [(one.status, one.messages) for one in finished] == [(2, [told])] * 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("message", "is_lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4", True),
        ("[../gloo/transport/tcp/pair.cc:547] Read error: Connection reset by peer", True),
        ("[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation", False),
        ("Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3) ran for 600000 milliseconds", False),
        ("gloo: expected a tensor", False),
    ],
)
def test_a_long_wait_is_not_told_as_the_end_of_another_process(monkeypatch, message, is_lost):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)

    assert is_lost_process(RuntimeError(message)) is is_lost


def test_processes_wait_for_days_where_one_of_them_works_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(session, "Accelerator", lambda **named: seen.append(named) or Accelerator(cpu=True))

    session.make_accelerator(HardwareRecipe(), Path("run"), trackers="")

    (handler,) = seen[0]["kwargs_handlers"]
    assert handler.timeout >= timedelta(days=1)
