"""Distil a student on unlabelled target text: `accelerate launch distill.py target=de`; `--help` lists the keys."""

import sys
from pathlib import Path

from xlner.launcher import end_with_the_launcher

if __name__ == "__main__":
    end_with_the_launcher()  # before the imports below, which take seconds
    from xlner.training.distillation import distill
    from xlner.training.session import launch

    sys.exit(launch("distill", distill, Path(__file__).parent / "recipes"))
