"""Distil a student on unlabelled target text, as `xlner distill`: `accelerate launch distill.py target=de`."""

import sys

from xlner.cli import main

if __name__ == "__main__":
    main(["distill", *sys.argv[1:]])
