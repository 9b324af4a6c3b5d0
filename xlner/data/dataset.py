"""Data sets of Hugging Face `datasets` as corpora: folders of `save_to_disk`, names on the hub, Parquet files.

Only stored tables are read; code of a data set is never run. Tags are taken by name, never by number.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xlner.data.annotated_text import checked_lengths, checked_words
from xlner.data.located import Located
from xlner.data.problems import LeftOut, Report
from xlner.data.schemes import UNLABELLED, TagReader
from xlner.errors import CorpusError
from xlner.text import Sentence

if TYPE_CHECKING:
    from datasets import Dataset

Part = TypeVar("Part")

HUB_PREFIX = "hub:"
WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("ner_tags", "tags")
BATCH_SIZE = 1000  # sentences that are in memory at a time
# What pyarrow and `datasets` raise at damaged files, beside pyarrow's own exceptions.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, NotImplementedError)


def read_dataset(source: str, *, scheme: str, report: Report) -> Iterator[Located]:
    """The sentences of a data set.

    Args:
        source: `FOLDER`, `FOLDER:SPLIT`, `hub:NAME`, `hub:NAME:SPLIT` or `hub:OWNER/NAME/CONFIGURATION:SPLIT`;
            the split may be left out where there is only one.
        scheme: As in `read_corpus`.
        report: Gets the rows that do not fit.

    Raises:
        CorpusError: If it cannot be loaded, or has no column of words.
    """
    tag_reader = TagReader(scheme, report)
    rows = _load_hub(source) if source.startswith(HUB_PREFIX) else _load_folder(source)
    fields = _fields(source, rows.column_names)
    names = None if fields[1] is None else _tag_names(source, rows.features, fields[1])
    rows = rows.select_columns([field for field in fields if field is not None])
    _check_offsets(source, rows)
    batches = undamaged(source, rows.with_format(None).iter(BATCH_SIZE))
    return _sentences(source, batches, fields, names, tag_reader, report)


def read_parquet(path: Path, *, scheme: str, report: Report) -> Iterator[Located]:
    """The sentences of a Parquet file with the columns of a data set; a few row groups are in memory at a time.

    Raises:
        CorpusError: If it is no such file, or has no column of words.
    """
    import pyarrow
    from datasets import Features
    from pyarrow import parquet

    tag_reader = TagReader(scheme, report)
    try:
        file = parquet.ParquetFile(path)
        columns_there = file.schema_arrow.names
        features = Features.from_arrow_schema(file.schema_arrow)
    except (*_DAMAGE, pyarrow.ArrowException) as problem:
        raise CorpusError(f"{path}: cannot be read as Parquet: {problem}") from problem
    fields = _fields(str(path), columns_there)
    names = None if fields[1] is None else _tag_names(str(path), features, fields[1])
    columns = [field for field in fields if field is not None]
    batches = (batch.to_pydict() for batch in file.iter_batches(BATCH_SIZE, columns=columns))
    return _sentences(str(path), undamaged(str(path), batches), fields, names, tag_reader, report)


def undamaged(source: str, parts: Iterable[Part]) -> Iterator[Part]:
    """The parts of a stored table, one after the other.

    Raises:
        CorpusError: At the first one that is damaged, as the checks of Parquet and Arrow cover only some of a file.
    """
    import pyarrow

    waiting = iter(parts)
    while True:
        try:
            part = next(waiting)
        except StopIteration:
            return
        except (*_DAMAGE, pyarrow.ArrowException) as problem:
            reason = " ".join(str(problem).split()) or type(problem).__name__
            raise CorpusError(f"{source}: is damaged: {reason}; fetch or make it again") from problem
        yield part


def _check_offsets(source: str, rows: "Dataset") -> None:
    """Refuse a table whose offsets point beyond its file: it is read where it lies, and the process would die.

    Raises:
        CorpusError: If it is damaged so.
    """
    import pyarrow

    try:
        rows.data.table.validate(full=True)
    except (*_DAMAGE, pyarrow.ArrowException) as problem:
        raise CorpusError(f"{source}: is damaged: {' '.join(str(problem).split())}; make it again") from problem


def _fields(source: str, columns: Sequence[str]) -> tuple[str, str | None]:
    """The names of the columns of words and, where there is one, of tags."""
    words = next((name for name in WORD_COLUMNS if name in columns), None)
    if words is None:
        raise CorpusError(f"{source}: no column {' or '.join(WORD_COLUMNS)}; columns there: {', '.join(columns)}")
    return words, next((name for name in TAG_COLUMNS if name in columns), None)


def split_source(source: str) -> tuple[str, str]:
    """A folder or `hub:NAME`, and the split, which is empty where none is named."""
    if source.startswith(HUB_PREFIX):
        name, _, split = source.removeprefix(HUB_PREFIX).partition(":")
        return HUB_PREFIX + name, split
    folder, _, split = source.rpartition(":")
    return (folder, split) if folder and Path(folder).is_dir() and not Path(source).is_dir() else (source, "")


def _load_folder(source: str) -> "Dataset":
    import pyarrow
    from datasets import load_from_disk

    folder, split = split_source(source)
    try:
        return _pick_split(source, load_from_disk(folder), split)
    except (*_DAMAGE, pyarrow.ArrowException) as problem:
        raise CorpusError(
            f"{source}: no data set that `save_to_disk` made: {problem}; to read a file in it, name it"
        ) from problem


def _load_hub(source: str) -> "Dataset":
    from datasets import load_dataset

    name, split = split_source(source)
    owner, _, rest = name.removeprefix(HUB_PREFIX).partition("/")
    short, _, configuration = rest.partition("/")
    name = f"{owner}/{short}" if short else owner
    try:
        return _pick_split(source, load_dataset(name, configuration or None), split)
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
    source: str,
    batches: Iterator[Mapping[str, list[Any]]],
    fields: tuple[str, str | None],
    names: Mapping[object, str] | None,
    reader: TagReader,
    report: Report,
) -> Iterator[Located]:
    word_field, tag_field = fields
    number = 0
    for batch in batches:
        tag_rows = batch[tag_field] if tag_field else [None] * len(batch[word_field])
        for words, tags in zip(batch[word_field], tag_rows, strict=True):
            row = f"{source}, row {number}"
            number += 1
            if words == []:
                continue
            try:
                checked = checked_words(words, row, report)
                place = _placing(row, checked)
                yield Located(_sentence(row, checked, tags, names, reader, place, report), place)
            except LeftOut:
                continue


def _placing(row: str, words: Sequence[str]) -> Callable[[int], str]:
    return lambda position: f"{row}, word {words[position]!r}"


def _sentence(
    row: str,
    words: tuple[str, ...],
    tags: Sequence[str | int | None] | None,
    names: Mapping[object, str] | None,
    reader: TagReader,
    place: Callable[[int], str],
    report: Report,
) -> Sentence:
    if tags is None:
        return Sentence(words)
    checked_lengths(words, tags, row, report)
    # A number without a name stays what it is, and is refused as a tag with its place.
    named = tuple([str(tag if names is None else names.get(tag, tag)) for tag in tags])
    return Sentence(words, reader.read(named, place))


def _tag_names(source: str, features: Mapping[str, Any], column: str) -> dict[object, str] | None:
    """The name of each number in a column of tags; None where the column holds the names themselves."""
    from datasets import ClassLabel, Sequence, Value

    feature = features[column]
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
