"""Whole runs through the launch scripts: a tiny encoder, small corpora, and processes that start at once.

A script needs seconds to import its libraries. `run_script` therefore forks each process off a server that has
imported them already; what runs in it is the script itself, with its own arguments, streams and exit status.
"""

import json
import multiprocessing
import os
import random
import re
import runpy
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch import Tensor

REPOSITORY = Path(__file__).parent.parent
TEACHER, DISTILL, ADAPT, TAG_CORPUS = "train_teacher.py", "distill.py", "adapt_encoder.py", "tag_corpus.py"
# No network, and one thread: tiny networks are slower on more, and sums come in one order.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
LONGEST_RUN = 180.0  # seconds, after which a process is killed
PRELOADED = [
    "xlner.jobs.adapt",
    "xlner.tag_files.engines",
    "xlner.jobs.teacher",
    "xlner.jobs.distill",
    "xlner.train.run",
    "transformers.models.bert.modeling_bert",
]
# What a tiny network needs to learn something in a second.
TINY = (
    "hardware.cpu=true",
    "hardware.precision=fp32",
    "hardware.threads=1",
    "optimization.batch_size=8",
    "optimization.learning_rate=1e-2",
    "optimization.head_learning_rate=1e-2",
    "optimization.epochs=5",
    "optimization.clip_norm=5",
    "optimization.log_steps=1",
    "pairs.per_sentence=8",
)
STEPS_PER_EPOCH = 8  # 60 sentences in batches of 8
PEOPLE = ("Anna", "Boris", "Clara", "Dora", "Emil", "Abel Braun", "Dora Curie", "Emil von Ast")
PLACES = ("Kiel", "Ulm", "Wien", "Graz", "Nord Kap", "Sankt Polten")
PATTERNS = (
    "PER lebt in LOC .",
    "PER und PER sind heute in LOC .",
    "der alte mann geht durch LOC",
    "gestern war PER bei uns , nicht in LOC .",
    "es regnet .",
    "in LOC ist es kalt und es regnet wieder , sagt PER .",
)


class Finished(NamedTuple):
    """What a process left: its exit status and its two streams."""

    status: int
    stdout: str
    stderr: str

    @property
    def messages(self) -> list[str]:
        """The lines of stderr, without progress bars."""
        lines = re.split(r"[\r\n]+", self.stderr)
        return [line for line in lines if line.strip() and not re.search(r"\[\d\d:\d\d", line)]


def run_script(
    script: str, *arguments: str, cwd: Path, meanwhile: Callable[[BaseProcess], None] | None = None
) -> Finished:
    """Run a launch script of the repository in a process of its own and wait for its end.

    Args:
        script: `TEACHER`, `DISTILL` or `ADAPT`.
        arguments: Of the command line.
        cwd: Working directory.
        meanwhile: Called with the process once it has started.
    """
    return run_ranks([{}], script, *arguments, cwd=cwd, meanwhile=meanwhile)[0]


def run_on_two(
    script: str, *arguments: str, cwd: Path, meanwhile: Callable[[BaseProcess], None] | None = None
) -> list[Finished]:
    """As `run_script`, on two processes that know of each other by the variables that torchrun sets.

    `meanwhile` gets the first of them. The results stand in the order of the ranks.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    return run_ranks(ranks, script, *arguments, cwd=cwd, meanwhile=meanwhile)


def run_well(script: str, *arguments: str, cwd: Path) -> Finished:
    """Run a script that shall do its work without a word of complaint."""
    finished = run_script(script, *arguments, cwd=cwd)
    assert (finished.status, finished.messages) == (0, []), (finished.status, finished.messages)
    return finished


def run_ranks(
    environments: Sequence[Mapping[str, str]],
    script: str,
    *arguments: str,
    cwd: Path,
    meanwhile: Callable[[BaseProcess], None] | None,
) -> list[Finished]:
    """Run a script once with each set of environment variables, all at the same time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with patch.dict(os.environ, ENVIRONMENT):
        forkserver.ensure_running()
    started = []
    for rank, environment in enumerate(environments):
        streams = [cwd / f".{name}-{rank}.log" for name in ("stdout", "stderr")]
        job = (str(REPOSITORY / script), arguments, str(cwd), [str(path) for path in streams], environment)
        process = context.Process(target=_run, args=job)
        process.start()
        started.append((process, streams))
    if meanwhile is not None:
        meanwhile(started[0][0])
    return [_finished(process, streams) for process, streams in started]


def _finished(process: BaseProcess, streams: Sequence[Path]) -> Finished:
    process.join(LONGEST_RUN)
    if process.exitcode is None:
        process.kill()
        process.join()
    stdout, stderr = (path.read_text(encoding="utf-8") for path in streams)
    for path in streams:
        path.unlink()
    return Finished(process.exitcode, stdout, stderr)


def _run(
    script: str, arguments: Sequence[str], cwd: str, streams: Sequence[str], environment: Mapping[str, str]
) -> None:
    """What the new process does."""
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    # What was started in the background inherits that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.update(environment)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def sentences(n: int, seed: int) -> list[list[tuple[str, str]]]:
    """Sentences of (word, tag) in which the first letter tells people from places, and both from all else."""
    rng = random.Random(seed)
    made = []
    for _ in range(n):
        sentence: list[tuple[str, str]] = []
        for slot in rng.choice(PATTERNS).split():
            if slot not in ("PER", "LOC"):
                sentence.append((slot, "O"))
                continue
            names = rng.choice(PEOPLE if slot == "PER" else PLACES).split()
            sentence += [(name, f"{'BI'[place > 0]}-{slot}") for place, name in enumerate(names)]
        made.append(sentence)
    return made


def write_conll(path: Path, content: list[list[tuple[str, str]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("".join(f"{word}\t{tag}\n" for word, tag in row) for row in content), encoding="utf-8")


def write_text(path: Path, content: list[list[tuple[str, str]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(" ".join(word for word, _ in row) + "\n" for row in content), encoding="utf-8")


def write_corpora(data: Path) -> None:
    """A labelled source `en` and an unlabelled target `de` with a test set, 60 sentences each to train on."""
    write_conll(data / "en" / "train.conll", sentences(60, seed=1))
    write_conll(data / "en" / "dev.conll", sentences(20, seed=2))
    write_conll(data / "en" / "test.conll", sentences(20, seed=3))
    write_text(data / "de" / "train.txt", sentences(60, seed=4))
    write_conll(data / "de" / "test.conll", sentences(20, seed=5))


def metrics(run: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def stop_at(step: int, run: Path, number: int) -> Callable[[BaseProcess], None]:
    """For `meanwhile`: sends a signal as soon as metrics.jsonl tells of a step."""

    def wait_and_stop(process: BaseProcess) -> None:
        path = run / "metrics.jsonl"
        while not (path.is_file() and f'{{"step": {step},' in path.read_text(encoding="utf-8")):
            assert process.is_alive(), f"ended before step {step}"
            process.join(0.005)
        os.kill(process.pid, number)

    return wait_and_stop


def weights_of(run: Path) -> dict[str, Tensor]:
    """The weights of a result, its similarity head where it has one."""
    model = run / "model"
    return {name: tensor for path in sorted(model.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def are_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two sets of weights are the same, bit by bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def lines_with(run: Path, key: str) -> list[dict[str, float]]:
    """The lines of metrics.jsonl that tell of something."""
    return [line for line in metrics(run) if key in line]


def report_of(run: Path) -> dict[str, Any]:
    """The content of report.json."""
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


def brief(arguments: Sequence[str], epochs: int = 1) -> tuple[str, ...]:
    """The same run with fewer epochs."""
    return (*(argument for argument in arguments if "epochs" not in argument), f"optimization.epochs={epochs}")
