"""Who tags the shards of a corpus: processes that start together, parts that start one by one, or actors of Ray.

All make the same files. Whatever the end of a run, what it has published stays, and the next one makes the rest.
"""

import os
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from xlner import __version__
from xlner.backends import n_cores
from xlner.config.schema import TagRecipe
from xlner.errors import CorpusError, RunError, XlnerError, first_line, sigterm_as_ctrl_c
from xlner.files import remove_unfinished, write_text
from xlner.tag_files.job import file_marks, model_fingerprint
from xlner.tag_files.output import BadRecords
from xlner.tag_files.shards import (
    STATE_FOLDER,
    Shard,
    Work,
    claimed,
    hold,
    prepare,
    tag_shard,
    tell,
    tell_end,
)
from xlner.tagger import Tagger, load_tagger

# Longer than the first process may take to look at the input while the others wait.
WAIT = timedelta(days=7)
# Of Ray, in seconds: until an address has answered, between two looks at idle workers, and until the first one works.
ANSWER_SECONDS, LOOK_SECONDS, START_SECONDS = 60.0, 30.0, 900.0
DEATHS = 3  # how many workers may die over one shard, or in one place while they open the model
OBJECT_STORE_BYTES = 80 << 20  # hardly more than Ray's least: shards and counts are all that travels


def tag_corpus(recipe: TagRecipe) -> Path:
    """Tag what is left of a corpus; the output folder.

    Raises:
        RunError: If the folder is in use, holds something else than the beginning of this, the disk refuses, or Ray
            does not answer or has no worker that can do it.
        CorpusError: If the input cannot be read.
        ModelError: If the model cannot be loaded.
    """
    folder = Path(recipe.output)
    with ExitStack() as held:
        if recipe.engine == "ray":
            work = _tag_by_ray(recipe, folder, held)
        elif recipe.part:
            work = prepare(recipe, held)
            tell(f"{folder}: part {recipe.part}: {len(work.left):,} of {len(work.shards):,} shards to tag")
            _use_threads(recipe.threads)
            _tag_shards(recipe, work.left, "cpu" if recipe.cpu else "auto")
        else:
            work = _tag_by_processes(recipe, folder, held)
        tell_end(folder, work.shards, recipe.part and f"part {recipe.part}")
    return folder


def _tag_by_processes(recipe: TagRecipe, folder: Path, held: ExitStack) -> Work:
    """One process, or those that `accelerate launch` has started.

    The first looks at input and output and tells the others what is left; from then on each takes one shard after
    the other, and waits for nobody.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    uses_cpu = recipe.cpu or not torch.cuda.is_available()
    processes = PartialState(cpu=uses_cpu, timeout=WAIT)
    if uses_cpu:
        _use_threads(recipe.threads)
    announced: list[Any] = [_announcement(recipe, held) if processes.is_main_process else None]
    if processes.num_processes > 1:
        broadcast_object_list(announced)
    work: Work | str = announced[0]
    if isinstance(work, str):
        raise RunError(work)
    todo: Iterable[Shard] = work.left
    if processes.num_processes > 1:
        if not processes.is_main_process:
            hold(folder, f"lock-{processes.process_index}", held)
        processes.wait_for_everyone()
        processes.destroy_process_group()
        todo = claimed(folder, work.left)
    if processes.is_main_process:
        where = f"{processes.num_processes} process(es) on {processes.device}"
        tell(f"{folder}: {len(work.left):,} of {len(work.shards):,} shards to tag; {where}")
    _tag_shards(recipe, todo, str(processes.device), shows_progress=processes.is_main_process)
    return work


def _announcement(recipe: TagRecipe, held: ExitStack) -> Work | str:
    """What the first process tells the others: the work, or why there is none."""
    try:
        return prepare(recipe, held)
    except XlnerError as problem:
        return str(problem)


def _tag_shards(recipe: TagRecipe, shards: Iterable[Shard], device: str, *, shows_progress: bool = True) -> None:
    from tqdm import tqdm

    with tqdm(unit=" words", unit_scale=True, disable=None if shows_progress else True, dynamic_ncols=True) as bar:
        bad_records = BadRecords(stops=recipe.on_error == "stop", tell=tell, way_out="on_error=skip")
        tagger: Tagger | None = None
        for shard in shards:
            tagger = tagger or load_tagger(recipe.model, device=device, batch_pieces=recipe.batch_pieces or None)
            tag_shard(tagger, shard, Path(recipe.output), bad_records, bar.update)


def _use_threads(number: int) -> None:
    """Compute with so many threads; 0: with this process' share of the cores."""
    import torch

    from xlner.models.inference import share_of_cores

    torch.set_num_threads(number or share_of_cores())


# Ray. This process plans, holds the lock of the folder, and gives each idle worker a shard.


class Worker:
    """What an actor of Ray does: it opens the model once, and tags one shard after the other."""

    def __init__(self, recipe: TagRecipe, sign: str, depends_on: dict[str, Any], version: str, folder: str) -> None:
        """Remember what all workers must see alike; `folder` is the working directory of the process that plans."""
        self._recipe = recipe
        self._sign = sign
        self._depends_on = depends_on
        self._version = version
        self._marks = {mark["name"]: mark for mark in depends_on["input"]}
        self._node = socket.gethostname()
        with suppress(OSError):  # else relative paths lead nowhere, which is told
            os.chdir(folder)

    def open(self) -> str:
        """Open the model; the name of the node.

        Raises:
            XlnerError: If this node has another version of xlner, disk or model than the process that plans.
        """
        recipe = self._recipe
        if __version__ != self._version:
            raise RunError(
                f"node {self._node} has xlner {__version__}, {self._version} started the run; "
                "install one version on all nodes"
            )
        try:
            seen = Path(recipe.output, STATE_FOLDER, "sign").read_text(encoding="utf-8")
        except OSError:
            seen = ""
        if seen != self._sign:
            raise RunError(
                f"node {self._node} does not see the folder {os.path.abspath(recipe.output)} of the process that "
                "started the run; output= must lie on a disk that all nodes share"
            )
        try:
            found = {"model": model_fingerprint(recipe.model)}
        except XlnerError as problem:
            raise type(problem)(
                f"node {self._node}: {problem}; model= must be on a disk that all nodes share, or a name on the hub"
            ) from problem
        if found["model"] != self._depends_on["model"]:
            raise RunError(
                f"node {self._node} has another model at {recipe.model} ({found['model']}) than the process that "
                f"started the run ({self._depends_on['model']}); model= must be on a disk that all nodes share"
            )
        os.environ["OMP_NUM_THREADS"] = str(
            recipe.threads or 1
        )  # heeded by torch, imported with the model, and by ONNX
        self._told: list[str] = []
        stops = recipe.on_error == "stop"
        self._bad_records = BadRecords(stops=stops, tell=self._told.append, way_out="on_error=skip")
        self._tagger = load_tagger(recipe.model, batch_pieces=recipe.batch_pieces or None)
        return self._node

    def tag(self, shard: Shard) -> tuple[int, list[str]]:
        """Make a shard: how many words it has, and what there is to tell.

        Raises:
            XlnerError: If its input is another file here, or as `tag_shard`.
        """
        try:
            is_same = file_marks([shard.source]) == [self._marks[shard.source]]
        except CorpusError as problem:
            raise CorpusError(
                f"node {self._node}: {problem}; input= must lie on a disk that all nodes share"
            ) from problem
        if not is_same:
            raise CorpusError(
                f"node {self._node}: {shard.source} is another file than where the run was started, or has changed "
                "since; input= must lie on a disk that all nodes share"
            )
        counts = tag_shard(self._tagger, shard, Path(self._recipe.output), self._bad_records, lambda _: None)
        told, self._told[:] = list(self._told), []
        return counts["words"], told


def _tag_by_ray(recipe: TagRecipe, folder: Path, held: ExitStack) -> Work:
    try:
        import ray
    except ImportError:
        raise RunError("engine=ray needs Ray, which is not installed; pip install 'xlner[ray]'") from None
    work = prepare(recipe, held)
    if not work.left:
        return work
    _connect(ray, recipe)
    held.callback(ray.shutdown)
    held.enter_context(sigterm_as_ctrl_c())  # Ray has put a handler of its own there
    sign = f"{socket.gethostname()}@{os.getpid()} {time.time()}"
    write_text(folder / STATE_FOLDER / "sign", sign)
    tell(f"{folder}: {len(work.left):,} of {len(work.shards):,} shards to tag by Ray")
    _Pool(ray, recipe, work, sign).run()
    remove_unfinished(folder / shard.name for shard in work.left)  # of workers that died
    return work


def _connect(ray: Any, recipe: TagRecipe) -> None:
    """Join a cluster, or start Ray on this machine.

    Raises:
        RunError: If the address does not answer in `ANSWER_SECONDS`, or this machine has fewer CPUs than asked for.
    """
    address = recipe.address or os.environ.get("RAY_ADDRESS", "")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        n_cpus, n_asked = n_cores(), recipe.workers * (recipe.threads or 1)
        if n_asked > n_cpus:
            raise RunError(
                f"workers={recipe.workers} of {recipe.threads or 1} thread(s) need {n_asked} CPUs, and there are "
                f"{n_cpus} here; ask for fewer, or give the address= of a cluster"
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = "local"
        options |= {"num_cpus": n_cpus, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    elif address != "auto":
        _refuse_dead_address(address)
    try:
        ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError, SystemExit, ray.exceptions.RayError) as problem:
        raise RunError(f"address={address}: Ray cannot be used there: {first_line(problem)}") from problem


def _refuse_dead_address(address: str) -> None:
    """Refuse an address behind which no Ray is; `ray.init` alone takes six minutes to say so, and ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    place = f"address={address}"
    if not host or not port.isdigit():
        raise RunError(f"{place}: expected auto, host:6379 or ray://host:10001")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        if not address.startswith("ray://"):  # whose own wait is short
            asked = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
            subprocess.run(asked, capture_output=True, timeout=ANSWER_SECONDS, check=True)
    except (OSError, OverflowError, subprocess.SubprocessError) as problem:
        reason = "nothing answers as Ray does" if isinstance(problem, subprocess.SubprocessError) else problem
        raise RunError(
            f"{place}: no Ray cluster there ({reason}); is it running, is the port that of its head?"
        ) from None


class _Task(NamedTuple):
    """What a worker is at: a shard, or None while it opens the model, for which it is the `tries`-th in its place."""

    worker: Any
    shard: Shard | None
    tries: int = 0


class _Pool:
    """The workers, and which shard each of them has.

    A worker that dies is replaced by a new actor, wherever there is a place, and its shard goes to the next idle one.
    Ray's own way, `max_restarts` with `max_task_retries`, has the shard wait for a place for this very actor.
    """

    def __init__(self, ray: Any, recipe: TagRecipe, work: Work, sign: str) -> None:
        self._ray = ray
        self._n_wanted = recipe.workers
        self._threads = recipe.threads or 1
        self._queue = deque(work.left)
        self._n_shards = len(work.left)
        self._actor = ray.remote(Worker).options(num_cpus=self._threads)
        self._arguments = (recipe, sign, work.depends_on, __version__, os.getcwd())
        self._n_started = 0
        self._idle: list[Any] = []
        self._running: dict[Any, _Task] = {}  # by what is to come
        self._deaths: Counter[Shard] = Counter()

    def run(self) -> None:
        """Have all shards made.

        Raises:
            RunError: If there is no worker, or workers die again and again.
            XlnerError: What a worker refuses.
        """
        from tqdm import tqdm

        waited = 0.0
        with tqdm(unit=" words", unit_scale=True, disable=None, dynamic_ncols=True) as bar:
            while self._queue or any(task.shard for task in self._running.values()):
                self._start_workers()
                while self._queue and self._idle:
                    self._give(self._idle.pop(), self._queue.popleft())
                began = time.monotonic()
                done, _ = self._ray.wait(list(self._running), timeout=LOOK_SECONDS)
                for answer in done:
                    bar.update(self._take(answer))
                is_waiting = not done and not any(task.shard for task in self._running.values())
                waited = waited + time.monotonic() - began if is_waiting else 0.0
                if waited:
                    self._tell_that_it_waits(waited)

    def _start_workers(self) -> None:
        """Have as many workers as are wanted; without a number as many as the cluster has places for by now."""
        n_places = int(self._ray.cluster_resources().get("CPU", 0) // self._threads)
        n_wanted = min(self._n_wanted or max(1, n_places), self._n_shards)
        for _ in range(n_wanted - self._n_started):
            self._open()
            self._n_started += 1

    def _open(self, tries: int = 1) -> None:
        worker = self._actor.remote(*self._arguments)
        self._running[worker.open.remote()] = _Task(worker, None, tries)

    def _give(self, worker: Any, shard: Shard) -> None:
        self._running[worker.tag.remote(shard)] = _Task(worker, shard)

    def _take(self, answer: Any) -> int:
        """Take in what a worker has done, or that it has died; the number of words."""
        task = self._running.pop(answer)
        errors = self._ray.exceptions
        try:
            found = self._ray.get(answer)
        except errors.RayTaskError as problem:
            if isinstance(problem.cause, XlnerError):
                raise problem.cause from None
            raise
        except errors.RayError as problem:
            self._lost(task, problem)
            return 0
        self._idle.append(task.worker)
        if task.shard is None:
            return 0
        n_words, told = found
        for line in told:
            tell(line)
        return int(n_words)

    def _lost(self, task: _Task, problem: Exception) -> None:
        """Have another worker for one that has died, and its shard made by the next idle one."""
        why = first_line(problem)
        if task.shard is not None:
            self._deaths[task.shard] += 1
            if self._deaths[task.shard] > DEATHS:
                raise RunError(
                    f"{task.shard.source}: {DEATHS + 1} workers of Ray have died over shard {task.shard.name}: {why}; "
                    "has a node enough memory for a model for each of its CPUs?"
                ) from problem
            tell(f"a worker of Ray was lost; shard {task.shard.name} goes to another one")
            self._queue.appendleft(task.shard)
        elif task.tries > DEATHS:
            if not self._idle and not self._running:
                raise RunError(f"no worker of Ray could open the model; the last one: {why}") from problem
            tell(f"a worker of Ray is given up, since it could not open the model: {why}")
            return
        self._open(task.tries + 1)

    def _tell_that_it_waits(self, seconds: float) -> None:
        resources = self._ray.cluster_resources()
        found = f"the cluster has {resources.get('CPU', 0):g} CPUs, a worker needs {self._threads}"
        if seconds > START_SECONDS:
            raise RunError(f"no worker of Ray has started in {seconds:.0f} s; {found}")
        tell(f"waiting for a worker of Ray; {found}")
