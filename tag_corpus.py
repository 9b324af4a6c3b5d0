"""Tag a corpus by many processes: `accelerate launch tag_corpus.py model=... input=... output=...`; `--help`."""

import sys
from pathlib import Path

from xlner.launcher import end_with_the_launcher

if __name__ == "__main__":
    end_with_the_launcher()  # before the imports below, which take seconds
    from xlner.tagging.corpus import tag_corpus
    from xlner.training.session import launch

    sys.exit(launch("tag", tag_corpus, Path(__file__).parent / "recipes"))
