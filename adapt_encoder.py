"""Adapt an encoder to a language by raw text, as `xlner adapt`: `accelerate launch adapt_encoder.py target=de`."""

import sys

from xlner.launcher import launch

if __name__ == "__main__":
    sys.exit(launch("adapt"))
