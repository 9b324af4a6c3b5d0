"""Data sets of Hugging Face `datasets` as corpora: folders that `save_to_disk` made, and names on the hub.

Only stored tables are read; code of a data set is never run. Tags are taken by name, never by number.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xlner.data.schemes import UNLABELLED, TagReader
from xlner.errors import CorpusError
from xlner.text import Sentence

if TYPE_CHECKING:
    from datasets import Dataset

HUB_PREFIX = "hub:"
WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("ner_tags", "tags")
BATCH_SIZE = 1000  # sentences that are in memory at a time


def read_dataset(source: str, *, scheme: str) -> Iterator[Sentence]:
    """The sentences of a data set.

    Args:
        source: `FOLDER`, `FOLDER:SPLIT`, `hub:NAME` or `hub:NAME:SPLIT`; the split may be left out where
            there is only one.
        scheme: As in `read_corpus`.

    Raises:
        CorpusError: If it cannot be loaded, or has no column of words; while reading, at the first row that
            does not fit.
    """
    tag_reader = TagReader(scheme)
    rows = _load_hub(source) if source.startswith(HUB_PREFIX) else _load_folder(source)
    word_column = next((name for name in WORD_COLUMNS if name in rows.column_names), None)
    if word_column is None:
        raise CorpusError(
            f"{source}: no column {' or '.join(WORD_COLUMNS)}; columns there: {', '.join(rows.column_names)}"
        )
    tag_column = next((name for name in TAG_COLUMNS if name in rows.column_names), None)
    return _sentences(source, rows, word_column, tag_column, tag_reader)


def split_source(source: str) -> tuple[str, str]:
    """A folder or `hub:NAME`, and the split, which is empty where none is named."""
    if source.startswith(HUB_PREFIX):
        name, _, split = source.removeprefix(HUB_PREFIX).partition(":")
        return HUB_PREFIX + name, split
    folder, _, split = source.rpartition(":")
    return (folder, split) if folder and Path(folder).is_dir() and not Path(source).is_dir() else (source, "")


def _load_folder(source: str) -> "Dataset":
    from datasets import load_from_disk

    folder, split = split_source(source)
    try:
        return _pick_split(source, load_from_disk(folder), split)
    except (OSError, ValueError) as problem:
        raise CorpusError(
            f"{source}: no data set that `save_to_disk` made: {problem}; to read a file in it, name it"
        ) from problem


def _load_hub(source: str) -> "Dataset":
    from datasets import load_dataset

    name, split = split_source(source)
    name = name.removeprefix(HUB_PREFIX)
    try:
        return _pick_split(source, load_dataset(name), split)
    except ConnectionError as problem:
        raise CorpusError(
            f"{source}: the hub cannot be reached ({problem}); where there is a network, save it once by "
            f"datasets.load_dataset({name!r}).save_to_disk(FOLDER), and give FOLDER:SPLIT"
        ) from problem
    except RuntimeError as problem:
        if "script" not in str(problem):
            raise
        raise CorpusError(
            f"{source}: this data set is a Python script, which is not run; look for a copy in parquet"
        ) from problem
    except (OSError, ValueError) as problem:
        raise CorpusError(
            f"{source}: cannot be loaded: {problem}; if it needs more than a name, save it once by "
            "datasets.load_dataset(...).save_to_disk(FOLDER), and give FOLDER:SPLIT"
        ) from problem


def _pick_split(source: str, loaded: "Dataset | dict[str, Dataset]", split: str) -> "Dataset":
    if not isinstance(loaded, dict):
        if split and str(loaded.split) != split:
            raise CorpusError(f"{source}: holds one data set without splits; leave out ':{split}'")
        return loaded
    if not split and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        found = f"no split {split!r}" if split else "several splits"
        raise CorpusError(f"{source}: {found}; name one after a colon: {', '.join(loaded)}")
    return loaded[split]


def _sentences(
    source: str, rows: "Dataset", word_column: str, tag_column: str | None, tag_reader: TagReader
) -> Iterator[Sentence]:
    names = None if tag_column is None else _tag_names(source, rows, tag_column)
    number = 0
    for batch in rows.with_format(None).iter(BATCH_SIZE):
        tag_rows = batch[tag_column] if tag_column else [None] * len(batch[word_column])
        for words, tags in zip(batch[word_column], tag_rows, strict=True):
            if words:
                yield _sentence(f"{source}, row {number}", words, tags, names, tag_reader)
            number += 1


def _sentence(
    row: str,
    words: list[str],
    tags: list[str] | list[int] | None,
    names: dict[object, str] | None,
    reader: TagReader,
) -> Sentence:
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise CorpusError(f"{row}: expected a list of words, none of them empty; found {str(words)[:80]}")
    if tags is None:
        return Sentence(tuple(words))
    if len(tags) != len(words):
        raise CorpusError(f"{row}: {len(words)} words, but {len(tags)} tags")
    # A number without a name stays what it is, and is refused as a tag with its place.
    named = tuple([str(tag if names is None else names.get(tag, tag)) for tag in tags])
    return Sentence(tuple(words), reader.read(named, lambda position: f"{row}, word {words[position]!r}"))


def _tag_names(source: str, rows: "Dataset", column: str) -> dict[object, str] | None:
    """The name of each number in a column of tags; None where the column holds the names themselves."""
    from datasets import ClassLabel, Sequence, Value

    feature = rows.features[column]
    values = feature.feature if isinstance(feature, Sequence) else None
    if isinstance(values, ClassLabel):
        # Data sets mark words without a label by -1 or nothing.
        return {None: UNLABELLED, -1: UNLABELLED} | dict(enumerate(values.names))
    if isinstance(values, Value) and "string" in values.dtype:
        return None
    raise CorpusError(
        f"{source}: the column {column} holds {values or feature}; expected lists of names or of ClassLabel "
        f"numbers; numbers get their names by dataset.cast_column({column!r}, List(ClassLabel(names=[...])))"
    )
