"""Train a teacher on labelled source text, as `xlner train-teacher`: `accelerate launch train_teacher.py recipe=en`."""

import sys

from xlner.launcher import launch

if __name__ == "__main__":
    sys.exit(launch("teacher"))
