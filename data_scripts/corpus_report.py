"""Writing the splits of a corpus with its card beside them, and telling what was written."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sources import CorpusInfo

from xlner.corpora.splits import CARD_NAME, CorpusSummary, CorpusTally, known_splits, name_split
from xlner.corpora.write import write_corpus as write_sentences
from xlner.errors import CorpusError
from xlner.words import Sentence


def write_corpus(
    info: CorpusInfo,
    arguments: argparse.Namespace,
    language: str,
    splits: Mapping[str, Iterable[Sentence]],
    labels: Mapping[str, str] | None = None,
) -> None:
    """Write `SPLIT.conll` for each split and the card beside them, and print a line for each.

    The splits are taken one after the other, as streams. All files are complete before the first one appears in
    the folder. What an earlier run wrote there and this one has not goes: the card is of all that stays.

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
                write_sentences(report.over(sentences), Path(unfinished, f"{split}.conll"))
                summary = report.tally.summary()
                if not summary.sentences:
                    raise CorpusError(f"{info.name} {language}: no sentence in {split}; is the source complete?")
                label = (labels or {}).get(split, split)
                found[split] = (_full_name(f"{info.name} {language}, {label}", summary), summary, report.n_known)
            card = _card(info, arguments, language, found)
            Path(unfinished, CARD_NAME).write_text(card, encoding="utf-8")
            folder.mkdir(exist_ok=True)
            for split in _splits_of_card(folder / CARD_NAME) - {*splits}:
                Path(folder, f"{split}.conll").unlink(missing_ok=True)
            for name in [*(f"{split}.conll" for split in splits), CARD_NAME]:
                Path(unfinished, name).replace(folder / name)
    except OSError as problem:
        raise CorpusError(f"{folder}: cannot be written: {problem.strerror}") from problem
    for split, (name, summary, n_known) in found.items():
        _print_line(language, split, name, summary, n_known)


def _splits_of_card(path: Path) -> set[str]:
    """The splits that an earlier run wrote; none where no card tells."""
    try:
        return {*json.loads(path.read_text(encoding="utf-8"))["splits"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


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
