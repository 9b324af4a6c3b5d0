"""A whole small training run in which one file-system call goes wrong, once for each call and each kind of fault.

    python tests/fault_runs.py [--every 1] [--processes 2]

Every case is two starts: the first trains until the fault ends it, the second goes on without a fault. It must end
with the weights, the metrics and the optimizer of a run that never had one, or refuse by naming a file. Prints a line
of JSON: how many calls a run makes, how many cases were tried, and what became of those that failed.
"""

import argparse
import errno
import io
import itertools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from xlner.cli import show_messages
from xlner.config.schema import CheckpointRecipe, HardwareRecipe, OptimizationRecipe, TeacherRecipe
from xlner.errors import XlnerError
from xlner.models.folder import replaced_folder
from xlner.models.inference import TokenBatch
from xlner.train import checkpoint
from xlner.train.batches import Plan
from xlner.train.loop import Validation, fit
from xlner.train.objectives import Objective
from xlner.train.run import RunFolder, open_run, start_run

N_WINDOWS, N_WORDS, N_TAGS = 24, 5, 3
FAULTS = {"no space": errno.ENOSPC, "input/output": errno.EIO, "permission": errno.EACCES, "death": 0}
DEATH, REFUSED = 9, 2
LONGEST_RUN = 120  # seconds
# Where calls are caught: the module and name, and whether something can be left half done.
CALLS = [
    (os, "mkdir", False),
    (os, "rename", True),
    (os, "replace", True),
    (os, "chmod", False),
    (os, "fsync", False),
    (os, "unlink", False),
    (os, "rmdir", False),
    (shutil, "rmtree", True),
    (io, "open", True),
    (checkpoint, "save_model", True),
    (torch, "save", True),
]


class Batch(NamedTuple):
    tokens: TokenBatch
    tag_ids: torch.Tensor


class Fault(NamedTuple):
    """What goes wrong: which call (from 0), how, and whether it was half done before."""

    call: int
    kind: str
    half: bool


class Calls:
    """Counts the file-system calls below a folder, and has one of them fail."""

    def __init__(self, folder: Path, fault: Fault | None) -> None:
        self.n_seen = 0
        self._folder = str(folder)
        self._fault = fault

    def watch(self) -> None:
        """Stand in for the calls, for the rest of the process."""
        for module, name, can_be_half in CALLS:
            setattr(module, name, self._watched(getattr(module, name), can_be_half))

    def _watched(self, real: Callable[..., Any], can_be_half: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            place = next((str(one) for one in arguments if self._folder in str(one)), "")
            reads = real is REAL_OPEN and not set("wax+") & set(named.get("mode") or "".join(map(str, arguments[1:2])))
            if (not place and not isinstance(arguments[0], int)) or reads:
                return real(*arguments, **named)
            self.n_seen += 1
            if self._fault is None or self._fault.call != self.n_seen - 1:
                return real(*arguments, **named)
            if self._fault.half and can_be_half:
                _do_half(real, place, arguments, named)
            if self._fault.kind == "death":
                os._exit(DEATH)
            raise OSError(FAULTS[self._fault.kind], os.strerror(FAULTS[self._fault.kind]), place)

        return call


REAL_OPEN, REAL_RMTREE, REAL_RENAMES = io.open, shutil.rmtree, (os.rename, os.replace)


def _do_half(real: Callable[..., Any], place: str, arguments: Any, named: Any) -> None:
    """Leave a file of half its content, an empty new one, half a line, or a folder of which some files are gone.

    A file or folder may have its new name all the same, as where a file server's answer is lost.
    """
    if real is REAL_RMTREE:
        for path in sorted(Path(place).iterdir())[::2]:
            path.unlink()
    elif real is REAL_OPEN and "a" in "".join(map(str, [*arguments[1:2], named.get("mode", "")])):
        with real(place, "ab") as file:
            file.write(b'{"step": 1, "lo')
    elif real is REAL_OPEN:
        real(*arguments, **named).close()
    elif real in REAL_RENAMES:
        real(*arguments, **named)
    else:
        real(*arguments, **named)
        os.truncate(place, os.path.getsize(place) // 2)


def train(folder: Path, fault: Fault | None = None, **checkpoints: Any) -> int:
    """Train to the end, or to the fault; how many calls were seen."""
    torch.set_num_threads(1)
    recipe = TeacherRecipe(
        encoder="none",
        data=".",
        run="case",
        optimization=OptimizationRecipe(epochs=2, batch_size=4, head_learning_rate=0.05, evaluations=2, log_steps=3),
        checkpoint=CheckpointRecipe(**{"steps": 2, **checkpoints}),
        hardware=HardwareRecipe(cpu=True, precision="fp32"),
    )
    calls = Calls(folder, fault)
    calls.watch()
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(10, 6), nn.Dropout(0.2), nn.Linear(6, N_TAGS))
    with open_run(folder, recipe, writes=accelerator.is_main_process) as run:
        start_run(run, recipe)
        objective = Tags()
        keys = replace(recipe, seed=3)
        progress = fit(accelerator, network, objective, Right(objective, run), run, keys, {"text": "the same"})
        run.finish({"best_step": progress.best_step, "best_score": progress.best_score})
    return calls.n_seen


class Tags(Objective[Batch]):
    """Tags of random words, which a small network learns a little."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self.pieces = torch.from_numpy(draw.integers(0, 10, (N_WINDOWS, N_WORDS)))
        self.tag_ids = self.pieces % N_TAGS
        self.lengths, self.terms = np.full(N_WINDOWS, N_WORDS), {"tags": 1.0}

    def batch(self, plan: Plan) -> Batch:
        """See `Objective.batch`."""
        rows = torch.from_numpy(plan.windows)
        mask = torch.ones(len(rows), N_WORDS, dtype=torch.bool)
        return Batch(TokenBatch(self.pieces[rows], mask, torch.arange(mask.numel())), self.tag_ids[rows])

    def counts(self, batch: Batch) -> dict[str, int]:
        """Words."""
        return {"tags": batch.tag_ids.numel()}

    def loss_sums(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """See `Objective.loss_sums`."""
        logits = network(batch.tokens.input_ids).flatten(0, 1)
        return {"tags": nn.functional.cross_entropy(logits, batch.tag_ids.flatten(), reduction="sum")}


class Right(Validation):
    """The share of words that are told right."""

    score_name = "score"

    def __init__(self, objective: Tags, run: RunFolder) -> None:
        self._objective, self._run = objective, run

    def score(self, network: nn.Module) -> tuple[float, dict[str, Any]]:
        """See `Validation.score`."""
        with torch.no_grad():
            right = network(self._objective.pieces).argmax(-1) == self._objective.tag_ids
            return 100.0 * right.float().mean().item(), {}

    def keep(self, network: nn.Module) -> None:
        """See `Validation.keep`."""
        with replaced_folder(self._run.model) as unfinished:
            save_file(network.state_dict(), unfinished / "model.safetensors")


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on a fault: the weights kept, the last checkpoint, the metrics without their speeds."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    newest = checkpoint.checkpoints(folder / "checkpoints")[-1]
    state = torch.load(newest / "state.pt", weights_only=True)
    return {
        "model": _plain(load_file(folder / "model" / "model.safetensors")),
        "checkpoint": (newest.name, _plain(load_file(newest / "model.safetensors"))),
        "optimizer": {key: _plain(moments) for key, moments in state["optimizer"]["state"].items()},
        "processes": [(one["cpu"].tolist(), one["losses"].tolist(), one["steps"]) for one in state["processes"]],
        "metrics": [{key: value for key, value in line.items() if key != "words_per_second"} for line in lines],
        "report": (folder / "report.json").read_text(encoding="utf-8"),
    }


def _plain(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in sorted(tensors.items())}


def in_a_process(job: Callable[[], object], log: Path) -> int:
    """Run a job in a copy of this process; its exit status, 0 if it came to its end."""
    return os.waitstatus_to_exitcode(os.waitpid(_copy(job, log, {}), 0)[1])


def in_processes(job: Callable[[], object], log: Path, n_processes: int) -> int:
    """The same in several that know of each other; the exit status of the first, which alone writes.

    Raises:
        AssertionError: If one of the others does not end.
    """
    if n_processes == 1:
        return in_a_process(job, log)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {
        "WORLD_SIZE": n_processes,
        "LOCAL_WORLD_SIZE": n_processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    ranks = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in range(n_processes)]
    logs = [log, *(log.with_name(f"{log.name}-{rank}") for rank in range(1, n_processes))]
    children = [_copy(job, *one) for one in zip(logs, ranks, strict=True)]
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert -signal.SIGALRM not in statuses, f"a process did not end: {statuses}"
    return statuses[0]


def _copy(job: Callable[[], object], log: Path, environment: dict[str, Any]) -> int:
    """Start a copy of this process that runs a job, and ends; the number of the copy."""
    child = os.fork()
    if child:
        return child
    signal.alarm(LONGEST_RUN)
    os.environ.update({name: str(value) for name, value in environment.items()})
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    show_messages()
    status = 0
    try:
        job()
    except XlnerError as problem:
        print(problem)  # noqa: T201
        status = REFUSED
    except BaseException as problem:  # noqa: BLE001 - the process ends here, whatever it was
        print(repr(problem))  # noqa: T201
        status = 1
    os._exit(status)


def try_case(fault: Fault, expected: dict[str, Any], place: Path, n_processes: int = 1) -> str:
    """What is wrong with how a fault was survived; empty if nothing is."""
    folder, log = place / "run", place / "log.txt"
    status = in_processes(lambda: train(folder, fault), log, n_processes)
    first = log.read_text(errors="replace").strip().splitlines()[-1:]
    if fault.kind == "death" and status != DEATH:
        return f"the process did not die: {status} {first}"
    if (folder / "report.json").is_file():
        return "" if outcome(folder) == expected else f"a finished run differs ({first})"
    status = in_processes(lambda: train(folder), log, n_processes)
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    if status == REFUSED and str(folder) in str(last):
        return f"refused: {last}"
    if status:
        return f"could not go on: {status} {last}, after {first}"
    return "" if outcome(folder) == expected else f"went on to something else, after {first}"


def cases(n_calls: int) -> Iterator[Fault]:
    """Every call, every kind, before it was done and when it was half done."""
    return (Fault(*case) for case in itertools.product(range(n_calls), FAULTS, (False, True)))


def main() -> int:
    """Try the cases; 0 if all of them were survived."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="try the first of every N cases alone")
    parser.add_argument("--processes", type=int, default=1, help="of the run")
    every, n_processes = (given := parser.parse_args()).every, given.processes
    with tempfile.TemporaryDirectory() as made:
        whole = Path(made, "whole")
        assert in_processes(lambda: train(whole), Path(made, "log"), n_processes) == 0, Path(made, "log").read_text()
        expected = outcome(whole)

        def count() -> None:
            n_seen = train(Path(made, "counted"))
            if os.environ.get("RANK", "0") == "0":
                Path(made, "count").write_text(str(n_seen))

        assert in_processes(count, Path(made, "log"), n_processes) == 0
        n_calls = int(Path(made, "count").read_text())
        chosen = list(itertools.islice(cases(n_calls), 0, None, every))
        failures, kinds = [], Counter()
        for number, fault in enumerate(chosen):
            place = Path(made, f"case-{number}")
            place.mkdir()
            problem = try_case(fault, expected, place, n_processes)
            kinds["refused" if problem.startswith("refused") else "failed" if problem else "survived"] += 1
            if problem and not problem.startswith("refused"):
                failures.append({**fault._asdict(), "problem": problem})
            shutil.rmtree(place)
    told = {"processes": n_processes, "calls": n_calls, "cases": len(chosen), **kinds, "failures": failures[:20]}
    print(json.dumps(told))  # noqa: T201
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
