"""Train a teacher on labelled source text: `accelerate launch train_teacher.py recipe=en`; `--help` lists the keys."""

import sys
from pathlib import Path

from xlner.training.session import launch
from xlner.training.teacher import train_teacher

if __name__ == "__main__":
    sys.exit(launch("teacher", train_teacher, Path(__file__).parent / "recipes"))
