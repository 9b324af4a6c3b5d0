"""Distil a student on unlabelled target text: `accelerate launch distill.py target=de`; `--help` lists the keys."""

import sys
from pathlib import Path

from xlner.training.distillation import distill
from xlner.training.session import launch

if __name__ == "__main__":
    sys.exit(launch("distill", distill, Path(__file__).parent / "recipes"))
