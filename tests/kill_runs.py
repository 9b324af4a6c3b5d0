"""A real run that SIGKILL ends again and again, at random moments, and that goes on each time: nothing may be lost.

    python tests/kill_runs.py --kills 20 --processes 2 -- train_teacher.py recipe=en data=DATA encoder=ENCODER ...

The run is started by `accelerate launch`; each time the launcher or one of its processes is killed. What is
left of the run must end by itself. Weights, metrics and scores are compared with those of a run that nothing happened
to. Prints a line for each kill, and one of JSON at the end.
"""

import argparse
import hashlib
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parent.parent
ORPHANS_END_WITHIN = 60.0  # seconds: a process notices after its step, and may save first
LONGEST_RUN = 3600.0


def launch(place: Path, n_processes: int, script: str, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start the run in a folder; what it prints comes into `log.txt` there."""
    several = ["--multi_gpu", "--num_processes", str(n_processes)] if n_processes > 1 else ["--num_processes", "1"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *several, "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", str(REPOSITORY / script), *arguments]
    with (place / "log.txt").open("ab") as log:
        return subprocess.Popen([*command, "run=killed", "hardware.cpu=true"], cwd=place, stdout=log, stderr=log)


def family(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The launcher and all that it started."""
    try:
        launcher = psutil.Process(process.pid)
        return [launcher, *launcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_one(process: "subprocess.Popen[bytes]", chosen: int) -> str:
    """Kill the launcher (0) or one of its workers; which, and how long the rest took to end."""
    members = family(process)
    workers = [one for one in members[1:] if any("hardware.cpu" in part for part in one.cmdline())]
    victim = workers[chosen - 1] if chosen and len(workers) >= chosen else members[0]
    victim.send_signal(signal.SIGKILL)
    began = time.monotonic()
    process.wait(ORPHANS_END_WITHIN)
    left = psutil.wait_procs(members, timeout=ORPHANS_END_WITHIN)[1]
    if left:
        raise SystemExit(f"still running {ORPHANS_END_WITHIN:.0f} s after the kill: {[one.cmdline() for one in left]}")
    name = "launcher" if victim is members[0] else f"process {chosen - 1}"
    return f"{name}, all gone in {time.monotonic() - began:.1f} s"


def wait_for(place: Path, process: "subprocess.Popen[bytes]", seconds: float, *, from_training: bool) -> bool:
    """Let the run go on for a time, counted from its start, or from its first step; False if it came to its end."""
    metrics = place / "runs" / "killed" / "metrics.jsonl"
    size = metrics.stat().st_size if metrics.is_file() else 0
    while from_training and process.poll() is None and not (metrics.is_file() and metrics.stat().st_size > size):
        time.sleep(0.05)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def outcome(run: Path) -> dict[str, Any]:
    """What must be the same however often the run was killed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    return {
        "weights": {path.name: _hash(path) for path in sorted((run / "model").glob("*.safetensors"))},
        "checkpoint": (newest.name, _hash(newest / "model.safetensors")),
        "metrics": [{key: value for key, value in line.items() if key != "words_per_second"} for line in lines],
        "scores": report["scores"],
    }


def difference(places: tuple[Path, Path]) -> str:
    """What is not the same in the run that was killed, with both values; empty if nothing is."""
    whole, killed = (outcome(place / "runs" / "killed") for place in places)
    told = []
    for name in (name for name in whole if whole[name] != killed[name]):
        if isinstance(whole[name], list):
            pairs = itertools.zip_longest(whole[name], killed[name])
            told.append(f"{name}: {next(pair for pair in pairs if pair[0] != pair[1])}")
        else:
            told.append(f"{name}: {whole[name]} {killed[name]}")
    return "; ".join(told)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Kill a run as often as asked; 0 if it ended as one that was never killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="how often")
    parser.add_argument("--processes", type=int, default=1, help="of the run")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("script", help="train_teacher.py, distill.py or adapt_encoder.py")
    parser.add_argument("arguments", nargs="+", help="key=value; relative paths will not do")
    given = parser.parse_args()
    moments = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as made:
        places = Path(made, "whole"), Path(made, "killed")
        for place in places:
            place.mkdir()
        whole = launch(places[0], given.processes, given.script, given.arguments)
        if whole.wait(LONGEST_RUN):
            print((places[0] / "log.txt").read_text(errors="replace")[-3000:])  # noqa: T201
            return 1
        n_kills = n_ends = 0
        different = ""
        while n_kills < given.kills:
            process = launch(places[1], given.processes, given.script, given.arguments)
            from_training, seconds = moments.random() < 0.5, moments.uniform(0, given.longest)
            if wait_for(places[1], process, seconds, from_training=from_training):
                told = kill_one(process, moments.randrange(given.processes + 1))
                n_kills += 1
                steps = sorted(path.name for path in (places[1] / "runs" / "killed").glob("checkpoints/step-*"))
                print(f"kill {n_kills}: {told}; checkpoints {' '.join(steps) or 'none'}", flush=True)  # noqa: T201
            elif process.returncode:
                break
            run = places[1] / "runs" / "killed"
            if (run / "report.json").is_file():  # it was quicker than the kill: compared, and begun anew
                n_ends += 1
                if different := difference(places):
                    break
                run.rename(run.with_name(f"finished-{n_ends}"))
        if not different:
            last = launch(places[1], given.processes, given.script, given.arguments).wait(LONGEST_RUN)
            if last:
                print((places[1] / "log.txt").read_text(errors="replace")[-3000:])  # noqa: T201
            different = f"ended with {last}" if last else difference(places)
    told = {"processes": given.processes, "kills": n_kills, "ends between": n_ends, "different": different}
    print(json.dumps(told))  # noqa: T201
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
