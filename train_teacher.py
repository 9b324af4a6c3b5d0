"""Train a teacher on labelled source text: `accelerate launch train_teacher.py recipe=en`; `--help` lists the keys."""

import sys
from pathlib import Path

from xlner.launcher import end_with_the_launcher

if __name__ == "__main__":
    end_with_the_launcher()  # before the imports below, which take seconds
    from xlner.training.session import launch
    from xlner.training.teacher import train_teacher

    sys.exit(launch("teacher", train_teacher, Path(__file__).parent / "recipes"))
