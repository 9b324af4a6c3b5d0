"""What checkpoints cost: seconds of a save, and its share of the wall time of a real run at the default interval.

    python benchmarks/checkpoints.py runs/de [--saves 7]

Takes model, steps and seconds from a finished run, gives the model an optimizer with moments, and saves it again and
again as a run does: written, flushed to the disk, described, renamed, read back, older ones removed.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from xlner.config.schema import CheckpointRecipe, OptimizationRecipe
from xlner.models.folder import load_joint_model
from xlner.train.checkpoint import Measured, Progress, save_checkpoint
from xlner.train.loop import make_optimizer, make_schedule


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--saves", type=int, default=7)
    parser.add_argument("--folder", default=None, help="where to save; default: the folder for temporary files")
    options = parser.parse_args()
    training = json.loads((options.run / "report.json").read_text(encoding="utf-8"))["training"]
    model = load_joint_model(str(options.run / "model"))
    optimizer = make_optimizer(model, OptimizationRecipe())
    schedule = make_schedule(optimizer, OptimizationRecipe(), 1000)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    accelerator, measured = Accelerator(cpu=True), Measured(torch.zeros(2), 0)
    seconds = []
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        for number in range(options.saves):
            start = time.perf_counter()
            path = save_checkpoint(
                Path(made), accelerator, model, None, optimizer, schedule, Progress(step=number), measured
            )
            seconds.append(time.perf_counter() - start)
        size = sum(file.stat().st_size for file in path.iterdir())
    per_step = training["seconds"] / training["steps"]
    interval = CheckpointRecipe().steps
    save = statistics.median(seconds)
    print(
        f"a save of {size / 1e6:,.0f} MB: median {save:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}); a step: "
        f"{per_step:.3f} s; share of the wall time at an interval of {interval} steps: "
        f"{100 * save / (save + interval * per_step):.2f} %"
    )


if __name__ == "__main__":
    main()
