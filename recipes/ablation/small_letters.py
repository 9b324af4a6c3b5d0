"""A labelled corpus in small letters: what pooling meets in a script that has no capitals.

    python recipes/ablation/small_letters.py data/wikineural/pt/train.conll data/small/pt/train.conll --sentences 3000

Whether pooling helps such a text cannot be tuned on Chinese or Hindi, which are tests; this stands in for them.
"""

import argparse
import sys
from itertools import islice
from pathlib import Path

from xlner.corpora.source import read_corpus
from xlner.corpora.write import write_corpus
from xlner.errors import XlnerError
from xlner.words import Sentence


def main() -> int:
    """Convert one file; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, help="labelled corpus")
    parser.add_argument("out", type=Path, help="file to write, .conll")
    parser.add_argument("--sentences", type=int, help="the first ones; all, if left out")
    arguments = parser.parse_args()
    try:
        sentences = islice(read_corpus(arguments.corpus), arguments.sentences)
        small = (Sentence(tuple([word.lower() for word in one.words]), one.tags) for one in sentences)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_corpus(small, arguments.out)
    except (XlnerError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
