"""Tag a corpus by many processes, as `xlner tag-corpus`: `accelerate launch tag_corpus.py model=... input=...`."""

import sys

from xlner.cli import main

if __name__ == "__main__":
    main(["tag-corpus", *sys.argv[1:]])
