"""Where the corpora of this folder come from: their cards, the arguments of the scripts, local copies and downloads."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from download import RemoteFile, fetch_all

from xlner.errors import CorpusError, XlnerError
from xlner.tags import LabelMap
from xlner.words import Sentence

Splits = Mapping[str, Sequence[Sentence]]


class CorpusInfo(NamedTuple):
    """What stands on the card of a corpus, and is told at the end of its script."""

    name: str
    folder: str  # below DATA
    source: str
    paper: str
    licence: str
    labels: str  # gold, silver or none
    note: str = ""

    def citation(self) -> str:
        """Paper, licence and source, for a person."""
        return "\n" + "\n".join(filter(None, [self.paper, f"Licence: {self.licence}", self.note, self.source]))


def corpus_arguments(info: CorpusInfo, description: str, *, downloads: bool = True) -> argparse.ArgumentParser:
    """A parser with the arguments that every script takes: where from, where to."""
    parser = argparse.ArgumentParser(description=f"{description}; writes OUT/{info.folder}/LANG/SPLIT.conll")
    help = "the corpus as published" + ("; without it, the corpus is downloaded" if downloads else "")
    parser.add_argument("--source", type=Path, required=not downloads, metavar="FOLDER", help=help)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder of all corpora, such as data"
    )
    if downloads:
        parser.add_argument("--cache", type=Path, metavar="DIR", help="keeps downloads; default: OUT/downloads")
    return parser


def renamed(sentences: Iterable[Sentence], types: LabelMap) -> list[Sentence]:
    """Labelled sentences with other types."""
    return [Sentence(words, types.apply(tags or ())) for words, tags in sentences]


def add_languages(parser: argparse.ArgumentParser, example: str = "de,en,...") -> None:
    """The choice among the languages, or corpora, of a source."""
    parser.add_argument("--languages", default="", metavar=example, help="default: all that are there")


def downloaded(info: CorpusInfo, arguments: argparse.Namespace, wanted: Iterable[RemoteFile]) -> Path:
    """The folder of the source: the one that was given, or what the downloads make up.

    Args:
        info: Its folder is the first part of the place of each file.
        arguments: Of the script.
        wanted: What to download if no source was given.
    """
    if arguments.source is not None:
        return Path(arguments.source)
    cache = Path(arguments.cache or arguments.out / "downloads")
    fetch_all(list(wanted), cache)
    return cache / info.folder


def chosen(wanted: str, found: Sequence[str], source: object, layout: str) -> list[str]:
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


def run(script: Callable[[], None]) -> int:
    """Run a script; what the user can mend is told on stderr, and the status is 2."""
    # An end by SIGTERM would leave what is half written; as an exception, it is cleared away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        script()
    except XlnerError as problem:
        print(problem.as_text(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing half-written was left", file=sys.stderr)
        return 130
    return 0
