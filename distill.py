"""Distil a student on unlabelled target text, as `xlner distill`: `accelerate launch distill.py target=de`."""

import sys

from xlner.launcher import launch

if __name__ == "__main__":
    sys.exit(launch("distill"))
