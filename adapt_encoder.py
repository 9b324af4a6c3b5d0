"""Adapt an encoder to a language by raw text: `accelerate launch adapt_encoder.py target=de`; `--help` lists keys."""

import sys
from pathlib import Path

from xlner.launcher import end_with_the_launcher

if __name__ == "__main__":
    end_with_the_launcher()  # before the imports below, which take seconds
    from xlner.training.adaptation import adapt_encoder
    from xlner.training.session import launch

    sys.exit(launch("adapt", adapt_encoder, Path(__file__).parent / "recipes"))
