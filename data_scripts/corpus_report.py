"""What the scripts of this folder share: writing the splits of a corpus with its card, and telling what was written."""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from download import RemoteFile, fetch_all

from xlner.data.conll_writer import write_conll
from xlner.data.known_splits import CARD_NAME, known_splits, name_split
from xlner.data.summaries import CorpusSummary, CorpusTally
from xlner.errors import CorpusError, XlnerError
from xlner.text import Sentence

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


def write_corpus(
    info: CorpusInfo,
    arguments: argparse.Namespace,
    language: str,
    splits: Mapping[str, Iterable[Sentence]],
    labels: Mapping[str, str] | None = None,
) -> None:
    """Write `SPLIT.conll` for each split and the card beside them, and print a line for each.

    The splits are taken one after the other, as streams. All files are complete before the first one appears in
    the folder.

    Args:
        info: Of the corpus.
        arguments: Of the script, for the card.
        language: Name of the folder, and part of the splits' names.
        splits: Sentences by the name of the split.
        labels: What a split is called, where this is not the name of its file: `{"test": "Rahimi test"}`.

    Raises:
        CorpusError: If a sentence or a file cannot be written; then the folder is as it was.
    """
    folder = Path(arguments.out, info.folder, language)
    trained: set[int] = set()
    found = {}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as unfinished:
            for split, sentences in splits.items():
                report = _Report(trained, is_train=split == "train")
                write_conll(report.over(sentences), Path(unfinished, f"{split}.conll"))
                summary = report.tally.summary()
                if not summary.sentences:
                    raise CorpusError(f"{info.name} {language}: no sentence in {split}; is the source complete?")
                label = (labels or {}).get(split, split)
                found[split] = (_full_name(f"{info.name} {language}, {label}", summary), summary, report.n_known)
            card = _card(info, arguments, language, found)
            Path(unfinished, CARD_NAME).write_text(card, encoding="utf-8")
            folder.mkdir(exist_ok=True)
            for name in [*(f"{split}.conll" for split in splits), CARD_NAME]:
                Path(unfinished, name).replace(folder / name)
    except OSError as problem:
        raise CorpusError(f"{folder}: cannot be written: {problem.strerror}") from problem
    for split, (name, summary, n_known) in found.items():
        _print_line(language, split, name, summary, n_known)


def run(script: Callable[[], None]) -> int:
    """Run a script; what the user can mend is told on stderr, and the status is 2."""
    # An end by SIGTERM would leave what is half written; as an exception, it is cleared away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        script()
    except XlnerError as problem:
        print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing half-written was left", file=sys.stderr)
        return 130
    return 0


class _Report:
    """Counts a split while it is written, and its sentences that stand in train too."""

    def __init__(self, trained: set[int], *, is_train: bool) -> None:
        self.tally = CorpusTally()
        self.n_known = 0
        self._trained, self._is_train = trained, is_train

    def over(self, sentences: Iterable[Sentence]) -> Iterator[Sentence]:
        for sentence in self.tally.over(sentences):
            # A hash of 64 bits stands for the words, so that large corpora need not be held.
            key = hash(sentence.words)
            if self._is_train:
                self._trained.add(key)
            else:
                self.n_known += key in self._trained
            yield sentence


def _full_name(name: str, summary: CorpusSummary) -> str:
    """The name in the table of known splits, or this name; with a mark where the table has it for other content."""
    known = name_split(summary)
    if known:
        return known
    return f"{name}, other content than published" if name in {split.name for split in known_splits()} else name


def _card(
    info: CorpusInfo, arguments: argparse.Namespace, language: str, found: Mapping[str, tuple[str, CorpusSummary, int]]
) -> str:
    card = {
        "corpus": info.name,
        "language": language,
        "source": info.source,
        "paper": info.paper,
        "licence": info.licence,
        "labels": info.labels,
        "script": Path(sys.argv[0]).name,
        "arguments": {key: _plain(value) for key, value in sorted(vars(arguments).items()) if value not in (None, "")},
        "splits": {split: {"name": name, **summary._asdict()} for split, (name, summary, _) in found.items()},
    }
    return json.dumps(card, indent=2, ensure_ascii=False) + "\n"


def _plain(value: object) -> object:
    """An argument as JSON has it."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value if isinstance(value, bool | int) else str(value)


def _print_line(language: str, split: str, name: str, summary: CorpusSummary, n_known: int) -> None:
    entities = ", ".join(f"{label} {count:,}" for label, count in summary.entities.items())
    overlap = f"; also in train: {n_known:,}" if n_known else ""
    print(
        f"{language:<10} {split:<5} {summary.sentences:>9,} sentences {summary.words:>11,} words  "
        f"{summary.fingerprint}  {name}\n{'':<17}{entities or 'no labels'}{overlap}"
    )
