"""One process with two threads against two processes with one thread each, on a CPU: seconds and memory.

    python benchmarks/processes.py --encoder FOLDER --data DIR [--sentences 1000] [--rounds 2]

Each is a real run of train_teacher.py over one epoch, in turns; DIR holds en/{train,dev}.conll. Both see the same
number of sentences per step: 32 in one process, 16 in each of two. Memory is the largest single process's, as the
system accounts for it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "train_teacher.py"


def main() -> None:
    """Run both in turns and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        data = small_data(Path(arguments.data), Path(folder) / "data")
        for number in range(arguments.rounds):
            for n_processes, measured in found.items():
                run = Path(folder) / f"run-{number}-{n_processes}"
                measured.append(train(arguments, data, run, n_processes))
    for n_processes, measured in found.items():
        seconds, memory = ([pair[i] for pair in measured] for i in (0, 1))
        print(
            f"{n_processes} process(es): median {statistics.median(seconds):.1f} s of training "
            f"({min(seconds):.1f} to {max(seconds):.1f}), {max(memory):.2f} GiB in the largest process"
        )
    ratios = [two / one for (one, _), (two, _) in zip(found[1], found[2], strict=True)]
    print(f"two processes / one: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def small_data(source: Path, target: Path) -> Path:
    """The training text, and a dev set of a few sentences: it is training that is measured."""
    (target / "en").mkdir(parents=True)
    (target / "en" / "train.conll").symlink_to((source / "en" / "train.conll").resolve())
    sentences = (source / "en" / "dev.conll").read_text(encoding="utf-8").split("\n\n")[:20]
    (target / "en" / "dev.conll").write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    return target


def train(arguments: argparse.Namespace, data: Path, run: Path, n_processes: int) -> tuple[float, float]:
    """Seconds of training, and GiB of the largest process."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(n_processes), str(SCRIPT)),
        *("recipe=en", f"encoder={arguments.encoder}", f"data={data}", f"run={run}", "hardware.cpu=true"),
        *("optimization.epochs=1", f"optimization.batch_size={32 // n_processes}"),
        *(f"hardware.threads={2 // n_processes}", f"corpus.max_sentences={arguments.sentences}"),
    ]
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
        peak = 0
        while process.poll() is None:
            peak = max(peak, *(resident(pid) for pid in children(process.pid)), 0)
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
    if process.returncode:
        raise SystemExit(f"failed with {process.returncode}: {' '.join(command)}")
    seconds = json.loads((run / "report.json").read_text(encoding="utf-8"))["training"]["seconds"]
    return seconds, peak / 2**20


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def resident(pid: int) -> int:
    """The highest resident memory of a process so far, in KiB; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()
