"""Adapt an encoder to a language by raw text, as `xlner adapt`: `accelerate launch adapt_encoder.py target=de`."""

import sys

from xlner.cli import main

if __name__ == "__main__":
    main(["adapt", *sys.argv[1:]])
