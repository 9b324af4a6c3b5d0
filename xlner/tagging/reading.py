"""Input files as streams of records: text, JSON Lines, columns (CoNLL), Parquet.

A record is a text (field `text`) or words (field `words` or `tokens`, as a list); its other fields are carried along.
Tags of columns are not looked at. `-` is the standard input.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from xlner.data.annotated_text import checked_text, checked_words, in_order
from xlner.data.corpus import ReadingOptions, read_located
from xlner.data.corpus_files import SUFFIXES
from xlner.data.dataset import undamaged
from xlner.data.jsonl import WORD_FIELDS
from xlner.data.problems import CorpusProblem, LeftOut, Report
from xlner.errors import CorpusError
from xlner.recipe import choose
from xlner.splitting import WordOffsets
from xlner.tagging.input_lines import read_input_lines
from xlner.tagging.records import ArrowRow, Record

if TYPE_CHECKING:
    from pyarrow import RecordBatch

STANDARD_INPUT = "-"
ROWS_READ = 1000  # rows of a Parquet file that are in memory at a time
LOOKED_AT = {"text", *WORD_FIELDS}  # columns of Parquet
_N_SHOWN = 60


class InputOptions(NamedTuple):
    """How an input is read: `n_done` records at its beginning are passed over."""

    report: Report
    encoding: str = "utf-8"
    columns: str = "auto"
    n_done: int = 0


def read_records(name: str, format: str, options: InputOptions) -> Iterator[Record]:
    """The records of a file, one after the other.

    Args:
        name: The file; `-` is the standard input.
        format: A key of `INPUT_FORMATS`, as `input_format` tells it.
        options: How to read.

    Raises:
        CorpusError: If it cannot be read at all; what is wrong with records goes to `options.report`.
    """
    return choose(INPUT_FORMATS, format, "--from")(name, options)


def input_format(name: str, format: str = "auto") -> str:
    """The format that is asked for, or (`auto`) that the suffix tells; text where it tells none.

    Raises:
        CorpusError: If the suffix tells a format that is not tagged.
        RecipeError: If there is no such format.
    """
    if format == "auto":
        format = SUFFIXES.get(Path(name).suffix.lower(), "text")
        if format not in INPUT_FORMATS:
            raise CorpusError(
                f"{name}: {format} is none of the formats that are tagged: {', '.join(INPUT_FORMATS)}; "
                "`xlner convert` makes one of them"
            )
    choose(INPUT_FORMATS, format, "--from")
    return format


def check_input(name: str, format: str) -> None:
    """Refuse a file that cannot be opened, before a model is loaded.

    Raises:
        CorpusError: With the reason.
    """
    if name != STANDARD_INPUT:
        _opened(name).close()
        if format == "parquet":
            parquet_rows(name)
    elif format == "parquet":
        raise CorpusError("Parquet is read from a file, not from the standard input: give its name")


def text_records(source: BinaryIO, place: Callable[[int], str], options: InputOptions) -> Iterator[Record]:
    """A record a line, empty lines included."""
    for number, line in read_input_lines(source, place, options.encoding, options.report, options.n_done):
        yield Record(number, place(number), line, None, None, {"text": line})


def json_records(source: BinaryIO, place: Callable[[int], str], options: InputOptions) -> Iterator[Record]:
    """A record a line; blank lines are passed over."""
    for number, line in read_input_lines(source, place, options.encoding, options.report, options.n_done):
        if not line or line.isspace():
            continue
        try:
            fields = _json_object(line, place(number), options.report)
            yield record_of_fields(number, place(number), fields, options.report)
        except LeftOut:
            continue


def parquet_records(name: str, first: int, last: int, options: InputOptions) -> Iterator[Record]:
    """Rows `first` to `last` of a file, counted from 0, the last one excluded; only their row groups are read."""
    from pyarrow import parquet

    with parquet.ParquetFile(name) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        starts = [sum(sizes[:group]) for group in range(len(sizes))]
        groups = [g for g, start in enumerate(starts) if start < last and start + sizes[g] > first]
        row = starts[groups[0]] if groups else 0
        for batch in undamaged(name, file.iter_batches(ROWS_READ, row_groups=groups)):
            begin, end = max(first - row, 0), min(last - row, batch.num_rows)
            wanted = batch.slice(begin, max(end - begin, 0))
            (rows,) = undamaged(name, map(_values, [wanted]))
            for number, fields in enumerate(rows):
                place = row + begin + number
                try:
                    record = record_of_fields(place + 1, f"{name}, row {place}", fields, options.report)
                except LeftOut:
                    continue
                yield record._replace(row=ArrowRow(wanted, number))
            row += batch.num_rows


def _values(rows: "RecordBatch") -> list[dict[str, Any]]:
    """The columns that records are made of; Arrow keeps the others."""
    looked_at = [number for number, name in enumerate(rows.schema.names) if name in LOOKED_AT]
    return cast("list[dict[str, Any]]", rows.select(looked_at).to_pylist())


def record_of_fields(number: int, place: str, fields: Mapping[str, Any], report: Report) -> Record:
    """A record of named fields: words where it has them, otherwise a text.

    Raises:
        LeftOut: If it has neither, and the report returns.
    """
    text = fields.get("text")
    field = next((name for name in WORD_FIELDS if isinstance(fields.get(name), list)), None)
    if field is not None and not _are_offsets(fields[field]):
        words = checked_words(fields[field], place, report)
        return Record(number, place, None, words, None, {**fields, field: list(words)})
    if not isinstance(text, str):
        found = ", ".join(f"{name}: {str(value)[:20]!r}" for name, value in fields.items())[:_N_SHOWN]
        message = f"expected a field text, or words (or tokens) as a list of texts; found {found or 'no field'}"
        report(CorpusProblem("XL021", place, message, "the record is left out"))
        raise LeftOut
    text = checked_text(text, place, report)
    offsets = None if field is None else _offsets(fields[field], len(text), place, report)
    return Record(number, place, text, None, offsets, {**fields, "text": text})


def parquet_rows(name: str) -> int:
    """How many rows a Parquet file has.

    Raises:
        CorpusError: If it is none, or has no column of text or words.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(name)
        columns, n_rows = file.schema_arrow.names, int(file.metadata.num_rows)
    except (OSError, ValueError, LookupError, NotImplementedError, pyarrow.ArrowException) as problem:
        raise CorpusError(f"{name}: cannot be read as Parquet: {problem}") from problem
    if not LOOKED_AT & set(columns):
        raise CorpusError(f"{name}: no column text, words or tokens; columns there: {', '.join(columns)}")
    if twice := sorted(column for column in LOOKED_AT if columns.count(column) > 1):
        raise CorpusError(f"{name}: {columns.count(twice[0])} columns are named {twice[0]}; rename all but one")
    return n_rows


def _opened(name: str) -> BinaryIO:
    try:
        return Path(name).open("rb")
    except OSError as problem:
        raise CorpusError(f"{name}: cannot be read: {problem.strerror}") from problem


def _source(name: str) -> tuple[BinaryIO, Callable[[int], str]]:
    """The bytes of a file, and what tells a line of it."""
    return sys.stdin.buffer if name == STANDARD_INPUT else _opened(name), lambda number: f"{name}:{number}"


def _json_object(line: str, place: str, report: Report) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
        if isinstance(fields, dict):
            return fields
        message = f"expected a JSON object, found {line[:_N_SHOWN]!r}"
    except (ValueError, RecursionError) as problem:
        message = f"no JSON ({problem}): {line[:_N_SHOWN]!r}"
    report(CorpusProblem("XL020", place, message, "the line is left out"))
    raise LeftOut


def _are_offsets(tokens: list[Any]) -> bool:
    """Whether these are Prodigy's tokens, which say where the words of the text are."""
    return bool(tokens) and all(isinstance(token, dict) for token in tokens)


def _offsets(tokens: list[Mapping[str, Any]], length: int, place: str, report: Report) -> WordOffsets:
    try:
        offsets = list(in_order((int(token["start"]), int(token["end"])) for token in tokens))
        if offsets[-1][1] > length:
            raise ValueError(f"a word ends at {offsets[-1][1]}, behind the text of {length} characters")
    except (ValueError, TypeError, KeyError) as problem:
        message = f"expected tokens as {{start, end}} in characters; found otherwise ({problem})"
        report(CorpusProblem("XL021", place, message, "the record is left out"))
        raise LeftOut from None
    return offsets


def _read_text(name: str, options: InputOptions) -> Iterator[Record]:
    return text_records(*_source(name), options)


def _read_jsonl(name: str, options: InputOptions) -> Iterator[Record]:
    return json_records(*_source(name), options)


def _read_conll(name: str, options: InputOptions) -> Iterator[Record]:
    n_read = 0

    def report(problem: CorpusProblem) -> None:
        if n_read >= options.n_done:  # earlier ones were told when they were read first
            options.report(problem)

    path = "/dev/stdin" if name == STANDARD_INPUT else name
    # `plain` takes any tag there is, since none of them matters.
    for sentence, place in read_located(
        path, "conll", ReadingOptions(options.columns, "plain", options.encoding, report=report)
    ):
        n_read += 1
        if n_read > options.n_done:
            yield Record(n_read, place(0), None, sentence.words, None, {"words": list(sentence.words)})


def _read_parquet(name: str, options: InputOptions) -> Iterator[Record]:
    return parquet_records(name, options.n_done, parquet_rows(name), options)


# A new format to tag is one function above and one line here.
INPUT_FORMATS: dict[str, Callable[[str, InputOptions], Iterator[Record]]] = {
    "text": _read_text,
    "jsonl": _read_jsonl,
    "conll": _read_conll,
    "parquet": _read_parquet,
}
