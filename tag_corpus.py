"""Tag a corpus by many processes, as `xlner tag-corpus`: `accelerate launch tag_corpus.py model=... input=...`."""

import sys

from xlner.launcher import launch

if __name__ == "__main__":
    sys.exit(launch("tag"))
