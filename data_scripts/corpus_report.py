"""What the scripts of this folder share: writing the splits of a corpus, and telling what was written."""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from xlner.data.fingerprints import fingerprint
from xlner.data.writing import write_corpus
from xlner.errors import CorpusError, XlnerError
from xlner.labels import spans_of
from xlner.text import Sentence

Splits = Mapping[str, Sequence[Sentence]]


def folder_arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every script takes: where from, where to."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--source", type=Path, required=True, metavar="FOLDER", help="the corpus as downloaded")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets a folder for each language")
    return parser


def chosen(wanted: str, found: Sequence[str], source: Path, layout: str) -> list[str]:
    """The names of a comma-separated list, or all that were found if it is empty.

    Raises:
        CorpusError: If nothing was found, or a name is not among them.
    """
    if not found:
        raise CorpusError(f"{source}: no corpus there; expected files {layout}")
    names = [name.strip() for name in wanted.split(",") if name.strip()] or list(found)
    unknown = [name for name in names if name not in found]
    if unknown:
        raise CorpusError(f"{source}: no {', '.join(unknown)} there; found {', '.join(found)}")
    return names


def write_splits(folder: Path, splits: Splits) -> None:
    """Write `SPLIT.conll` for each split; all files are complete before the first one appears in the folder.

    Raises:
        CorpusError: If a file cannot be written; then the folder is as it was.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as unfinished:
            for split, sentences in splits.items():
                write_corpus(sentences, Path(unfinished, f"{split}.conll"))
            folder.mkdir(exist_ok=True)
            for split in splits:
                Path(unfinished, f"{split}.conll").replace(folder / f"{split}.conll")
    except OSError as problem:
        raise CorpusError(f"{folder}: cannot be written: {problem.strerror}") from problem


def print_report(name: str, splits: Splits) -> None:
    """A line for each split: what it holds, its fingerprint, and how many sentences stand in train too."""
    trained = {sentence.words for sentence in splits.get("train", ())}
    for split, sentences in splits.items():
        types = Counter(span.label for sentence in sentences for span in spans_of(sentence.tags or ()))
        entities = ", ".join(f"{label} {count:,}" for label, count in sorted(types.items()))
        known = sum(sentence.words in trained for sentence in sentences)
        overlap = f"; also in train: {known:,}" if known and split != "train" else ""
        n_words = sum(len(sentence.words) for sentence in sentences)
        print(
            f"{name:<10} {split:<5} {len(sentences):>9,} sentences {n_words:>11,} words  "
            f"{fingerprint(sentences)}  {entities}{overlap}"
        )


def run(script: Callable[[], None]) -> int:
    """Run a script; what the user can mend is told on stderr, and the status is 2."""
    try:
        script()
    except XlnerError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0
