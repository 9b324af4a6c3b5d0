"""Data sets of Hugging Face `datasets` as corpora: folders of `save_to_disk`, names on the hub, Parquet files.

Only stored tables are read; code of a data set is never run. Tags are taken by name, never by number. Rows
without words are read as the records of `jsonl`: text and spans.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from xlner.corpora.columns import (
    SPAN_NAMES,
    TAG_NAMES,
    TEXT_NAMES,
    WORD_NAMES,
    Wanted,
    find_name,
    look_like_tags,
    plain_name,
)
from xlner.corpora.json_records import RecordReader
from xlner.corpora.problems import LeftOut, Located, Report
from xlner.corpora.schemes import UNLABELLED, TagReader
from xlner.corpora.spans import checked_lengths, checked_words
from xlner.errors import CorpusError
from xlner.words import Sentence, WordOffsets

if TYPE_CHECKING:
    from datasets import Dataset


Part = TypeVar("Part")

HUB_PREFIX = "hub:"
BATCH_SIZE = 1000  # sentences that are in memory at a time
# What pyarrow and `datasets` raise at damaged files, beside pyarrow's own exceptions.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, NotImplementedError)


class Fields(NamedTuple):
    """The columns that a data set is read from: of words or of texts, of tags or of spans, and what numbers mean.

    `others` are looked at once, lest they hold the tags.
    """

    words: str
    tags: str | None
    is_text: bool
    names: Mapping[object, str] | None = None
    others: tuple[str, ...] = ()

    @property
    def read(self) -> list[str]:
        """All columns that are read."""
        return [name for name in (self.words, self.tags, *self.others) if name is not None]


def read_dataset(
    source: str,
    *,
    wanted: Wanted,
    tag_reader: TagReader,
    split_text: Callable[[str], WordOffsets],
    report: Report,
) -> Iterator[Located]:
    """The sentences of a data set.

    Args:
        source: `FOLDER`, `FOLDER:SPLIT`, `hub:NAME`, `hub:NAME:SPLIT` or `hub:OWNER/NAME/CONFIGURATION:SPLIT`;
            the split may be left out where there is only one.
        wanted: The columns that the user asked for, by name.
        tag_reader: Reads the tags.
        split_text: Where the words of a text are.
        report: Gets the rows that do not fit.

    Raises:
        CorpusError: If it cannot be loaded, or has no column of words.
    """
    rows = _load_hub(source) if source.startswith(HUB_PREFIX) else _load_folder(source)
    fields = _fields(source, rows.features, wanted, tag_reader)
    rows = rows.select_columns(fields.read)
    _check_offsets(source, rows)
    batches = undamaged(source, rows.with_format(None).iter(BATCH_SIZE))
    return _sentences(source, batches, fields, tag_reader, split_text, report)


def read_parquet(
    path: Path,
    *,
    wanted: Wanted,
    tag_reader: TagReader,
    split_text: Callable[[str], WordOffsets],
    report: Report,
) -> Iterator[Located]:
    """The sentences of a Parquet file with the columns of a data set; a few row groups are in memory at a time.

    Raises:
        CorpusError: If it is no such file, or has no column of words.
    """
    import pyarrow
    from datasets import Features
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        features = Features.from_arrow_schema(file.schema_arrow)
    except (*_DAMAGE, pyarrow.ArrowException) as problem:
        raise CorpusError(f"{path}: cannot be read as Parquet: {problem}") from problem
    fields = _fields(str(path), features, wanted, tag_reader)
    batches = (batch.to_pydict() for batch in file.iter_batches(BATCH_SIZE, columns=fields.read))
    return _sentences(str(path), undamaged(str(path), batches), fields, tag_reader, split_text, report)


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


def _fields(source: str, features: Mapping[str, Any], wanted: Wanted, tag_reader: TagReader) -> Fields:
    """The columns of words and, where there is one, of tags.

    Raises:
        CorpusError: If there is none of words or texts, or tags are numbers without names.
    """
    columns = list(features)
    asked = None if wanted is None else [name if name is None else _asked_for(source, columns, name) for name in wanted]
    words = asked[0] if asked else find_name(columns, WORD_NAMES)
    is_text = words is None or (asked is not None and plain_name(words) in TEXT_NAMES)
    words = words if words is not None else find_name(columns, TEXT_NAMES)
    if words is None:
        known = "tokens, words or text"
        raise CorpusError(
            f"{source}: no column {known}; columns there: {', '.join(columns)}; "
            "set corpus.columns=WORDS,TAGS if they have other names"
        )
    rest = [name for name in columns if name != words]
    if tag_reader.ignores:
        return Fields(words, None, is_text)
    if is_text:
        spans = asked[1] if asked else find_name(rest, (*SPAN_NAMES, *TAG_NAMES))
        tokens = find_name(rest, WORD_NAMES)
        return Fields(words, spans, True, others=(tokens,) if tokens else ())
    tags = asked[1] if asked else find_name([name for name in rest if _is_list(features[name])], TAG_NAMES)
    if tags is not None:
        return Fields(words, tags, False, _tag_names(source, features, tags, tag_reader))
    return Fields(words, None, False, others=() if asked else tuple(_possible_tags(source, words, features, rest)))


def _asked_for(source: str, columns: Sequence[str], name: object) -> str:
    found = find_name(columns, (plain_name(str(name)),))
    if found is None:
        raise CorpusError(f"{source}: corpus.columns asks for the column {name!r}; columns there: {', '.join(columns)}")
    return found


def _is_list(feature: Any) -> bool:
    from datasets import Sequence

    return isinstance(feature, Sequence)


def _possible_tags(source: str, words: str, features: Mapping[str, Any], columns: Sequence[str]) -> Iterator[str]:
    """Lists of texts, which may be tags.

    Raises:
        CorpusError: At a list of numbers whose names are tags.
    """
    from datasets import ClassLabel, Value

    for name in columns:
        values = features[name].feature if _is_list(features[name]) else None
        if isinstance(values, ClassLabel) and look_like_tags(values.names):
            raise _unknown_tags(source, words, name)
        if isinstance(values, Value) and "string" in values.dtype:
            yield name


def _unknown_tags(source: str, words: str, name: str) -> CorpusError:
    return CorpusError(
        f"{source}: the column {name!r} looks like tags, but its name says nothing; set corpus.columns={words},{name}, "
        f"or corpus.columns={words} to read without labels"
    )


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
    fields: Fields,
    tag_reader: TagReader,
    split_text: Callable[[str], WordOffsets],
    report: Report,
) -> Iterator[Located]:
    if fields.is_text:
        yield from _records(source, batches, fields, tag_reader, split_text, report)
        return
    number = 0
    for batch in batches:
        for name in fields.others:
            if look_like_tags(tag for tags in batch[name] if tags for tag in tags):
                raise _unknown_tags(source, fields.words, name)
        tag_rows = batch[fields.tags] if fields.tags else [None] * len(batch[fields.words])
        for words, tags in zip(batch[fields.words], tag_rows, strict=True):
            row = f"{source}, row {number}"
            number += 1
            if words == []:
                continue
            try:
                checked = checked_words(words, row, report)
                place = _placing(row, checked)
                yield Located(_sentence(row, checked, tags, fields.names, tag_reader, place, report), place)
            except LeftOut:
                continue


def _records(
    source: str,
    batches: Iterator[Mapping[str, list[Any]]],
    fields: Fields,
    tag_reader: TagReader,
    split_text: Callable[[str], WordOffsets],
    report: Report,
) -> Iterator[Located]:
    reader = RecordReader((fields.words, fields.tags) if fields.tags else None, tag_reader, split_text, report)
    number = 0
    for batch in batches:
        for values in zip(*(batch[name] for name in fields.read), strict=True):
            try:
                located = reader.read(dict(zip(fields.read, values, strict=True)), f"{source}, row {number}")
            except LeftOut:
                located = None
            number += 1
            if located is not None:
                yield located


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
    named = tuple([UNLABELLED if tag is None else str(tag if names is None else names.get(tag, tag)) for tag in tags])
    return Sentence(words, reader.read(named, place))


def _tag_names(
    source: str, features: Mapping[str, Any], column: str, tag_reader: TagReader
) -> dict[object, str] | None:
    """The name of each number in a column of tags; None where the column holds the names, or the reader knows them."""
    from datasets import ClassLabel, Sequence, Value

    feature = features[column]
    values = feature.feature if isinstance(feature, Sequence) else None
    if isinstance(values, ClassLabel):
        # Data sets mark words without a label by a number below 0 or nothing.
        return {-1: UNLABELLED, -100: UNLABELLED} | dict(enumerate(values.names))
    if isinstance(values, Value) and ("string" in values.dtype or ("int" in values.dtype and tag_reader.has_names)):
        return None
    raise CorpusError(
        f"{source}: the column {column} holds {values or feature}; expected lists of names or of ClassLabel numbers; "
        "numbers get their names by corpus.labels=O,B-TYPE,I-TYPE,..., in the order of the numbers, or in Python by "
        f"dataset.cast_column({column!r}, List(ClassLabel(names=[...])))"
    )
