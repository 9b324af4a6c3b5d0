"""Train a teacher on labelled source text, as `xlner train-teacher`: `accelerate launch train_teacher.py recipe=en`."""

import sys

from xlner.cli import main

if __name__ == "__main__":
    main(["train-teacher", *sys.argv[1:]])
