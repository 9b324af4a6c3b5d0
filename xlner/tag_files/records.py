"""Input files of the tagger as streams of records: text, JSON Lines, JSON, columns (CoNLL), CSV, Parquet.

A record is a text (field `text`) or words (field `words` or `tokens`, as a list), or both: then the words are those of
the text. Words that a record brings are tagged as they are; only text is split, as the tagger itself splits it. Its
other fields are carried along. Labels are not looked at. `-` is the standard input.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BufferedReader, RawIOBase, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from xlner.config.load import choose
from xlner.corpora.columns import TEXT_NAMES, WORD_NAMES, find_name
from xlner.corpora.conll import RowReader
from xlner.corpora.json_records import ODD_VALUES, JsonRecord, fields_of, read_json_records, word_offsets
from xlner.corpora.lines import (
    SUFFIXES,
    CorpusProblem,
    LeftOut,
    Located,
    Part,
    Report,
    each,
    half_of_utf_16,
    is_utf_8,
    likely_encoding,
    other_content,
)
from xlner.corpora.source import read_located
from xlner.corpora.spans import IGNORE, ReadingOptions, checked_text, checked_words, locate_words
from xlner.corpora.stored import ROWS_READ, undamaged
from xlner.errors import CorpusError
from xlner.files import is_special
from xlner.tagger import Tagger, Threshold
from xlner.tags import Span, tags_of
from xlner.words import Entity, WordOffsets, split_words

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch, Schema

CHUNK_RECORDS = 512  # records tagged together: enough to fill batches, few enough for any memory
CHUNK_CHARACTERS = 1 << 18  # the same bound where records are long
LONGEST_LINE = 10_000_000  # characters: a book is a record, a file without line ends would fill the memory
STANDARD_INPUT = "-"
_N_SHOWN = 60
_BLOCK = 1 << 20  # bytes read at once in the search for a line end


class Record(NamedTuple):
    """A record of an input file.

    `number` is its place among the records of the file, from 1, and `place` tells it to a person. `offsets` are
    those of the words in the text; None where they are for the tagger to find, or where there is no text. `fields`
    are the fields of the record, for the output; of a row of Parquet only those that were looked at, as all others
    stay in `row`.
    """

    number: int
    place: str
    text: str | None
    words: tuple[str, ...] | None
    offsets: WordOffsets | None
    fields: Mapping[str, Any]
    row: "ArrowRow | None" = None


class ArrowRow(NamedTuple):
    """A row of Parquet as it was read: Arrow holds values that Python cannot, such as dates behind the year 9999."""

    batch: "RecordBatch"
    number: int


class TaggedRecord(NamedTuple):
    """A record with its entities in words, each with its score; `offsets` is None where it has no text."""

    record: Record
    words: tuple[str, ...]
    offsets: WordOffsets | None
    spans: list[tuple[Span, float]]

    @property
    def tags(self) -> tuple[str, ...]:
        """The IOB2 tag of each word."""
        return tags_of([span for span, _ in self.spans], len(self.words))

    def entities(self) -> list[dict[str, Any]]:
        """The entities as the output tells them: `start` and `end` count characters of a text, otherwise words."""
        return [self._entity(span, score) for span, score in self.spans]

    def _entity(self, span: Span, score: float) -> dict[str, Any]:
        start, end = span.start, span.end
        if self.record.text is None or self.offsets is None:
            text = " ".join(self.words[start:end])
        else:
            start, end = self.offsets[start][0], self.offsets[end - 1][1]
            text = self.record.text[start:end]
        return Entity(text, span.label, start, end, score).to_dict()


def in_chunks(records: Iterable[Record], n_records: int = CHUNK_RECORDS) -> Iterator[list[Record]]:
    """Lists of records to be tagged together; nothing is read ahead of the list that is given."""
    chunk: list[Record] = []
    n_characters = 0
    for record in records:
        chunk.append(record)
        n_characters += len(record.text) if record.text is not None else sum(map(len, record.words or ()))
        if len(chunk) >= n_records or n_characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, n_characters = [], 0
    if chunk:
        yield chunk


class Wanted(NamedTuple):
    """Which entities are kept: those of at least this score, and of these types; None: of all."""

    threshold: Threshold = 0.0
    types: tuple[str, ...] | None = None


EVERYTHING = Wanted()


def tag_records(tagger: Tagger, records: Sequence[Record], wanted: Wanted = EVERYTHING) -> list[TaggedRecord]:
    """The records with those of their entities that are wanted."""
    split = [record_words(record, tagger.word_splitter) for record in records]
    found = tagger.spans_in_sentences([words for words, _ in split], threshold=wanted.threshold, types=wanted.types)
    return [
        TaggedRecord(record, words, offsets, spans)
        for record, (words, offsets), spans in zip(records, split, found, strict=True)
    ]


def record_words(record: Record, splitter: str) -> tuple[tuple[str, ...], WordOffsets | None]:
    """The words of a record, and where they are in its text; None where it has none."""
    if record.text is None or record.words is not None:
        return record.words or (), record.offsets
    offsets = split_words(record.text, splitter) if record.offsets is None else record.offsets
    return tuple([record.text[start:end] for start, end in offsets]), offsets


# The lines of a stream of bytes, one at a time: for texts and JSON records, also from the standard input. Lines come as
# soon as they are there, empty ones too: each is a record. `corpora/lines.py` reads files in blocks.


def read_input_lines(
    source: BinaryIO, place: Callable[[int], str], encoding: str, report: Report, n_done: int = 0
) -> Iterator[tuple[int, str]]:
    """Lines without their ends, with their numbers from 1.

    Args:
        source: Is read to its end, and closed.
        place: Tells a line number to a person.
        encoding: Of the text; a byte order mark at the start of UTF-8 is dropped.
        report: Gets each line that is too long or not of this encoding; if it returns, the line is left out.
        n_done: So many lines are passed over without a look.

    Raises:
        CorpusError: If there is no such encoding, or one of two-byte units is broken.
    """
    try:
        beginning = source.peek(2)[:8] if isinstance(source, BufferedReader) else b""
        if what := other_content(beginning):
            raise CorpusError(f"{place(1)}: this is no text but {what}")
        if half := half_of_utf_16(beginning.decode("latin-1")) if is_utf_8(encoding) else "":
            raise CorpusError(f"{place(1)}: every other byte is zero; is it {half}? then give --encoding {half}")
        codec = "utf-8-sig" if is_utf_8(encoding) else encoding
        # A byte that does not decode becomes a surrogate, and so is found in its own line.
        with TextIOWrapper(source, encoding=codec, errors="surrogateescape", newline="") as lines:
            for number, (line, is_too_long) in islice(enumerate(_cut_lines(lines), 1), n_done, None):
                if is_too_long:
                    message = f"a line of more than {LONGEST_LINE:,} characters; expected a text or record a line"
                    report(CorpusProblem("XL002", place(number), message, "the line is left out"))
                    continue
                text = line.rstrip("\r\n")
                broken = "" if text.isascii() else next((char for char in text if "\udc80" <= char <= "\udcff"), "")
                if broken:
                    byte = ord(broken) - 0xDC00
                    likely = likely_encoding(beginning[:2], byte)
                    message = f"byte 0x{byte:x} is not {encoding}; is it {likely}? then give --encoding {likely}"
                    report(CorpusProblem("XL001", place(number), message, "the line is left out"))
                    continue
                yield number, text
    except LookupError:
        raise CorpusError(f"unknown encoding {encoding!r}; expected one such as utf-8 or latin-1") from None
    except UnicodeError as problem:
        raise CorpusError(
            f"{place(1)}: the text is not {encoding} ({problem}); give its own, as in --encoding latin-1"
        ) from None
    except OSError as problem:
        raise CorpusError(f"{place(1)}: cannot be read: {problem.strerror or problem}") from problem


def _cut_lines(lines: TextIOWrapper) -> Iterator[tuple[str, bool]]:
    """Lines with their ends, and whether they are too long: then only their beginning is given."""
    before = ""
    while line := lines.readline(LONGEST_LINE + 1):
        # The second half of CR CR LF, or of LF CR.
        is_half = (line == "\r\n" and before[-1:] == "\r") or (
            line == "\r" and before[-1:] == "\n" and before[-2:] != "\r\n"
        )
        before = line
        if is_half:
            continue
        is_too_long, rest = len(line) > LONGEST_LINE and line[-1] not in "\r\n", line
        while is_too_long and rest and rest[-1] not in "\r\n":
            rest = lines.readline(LONGEST_LINE)
        yield line, is_too_long


class _LineRange(RawIOBase):
    """The bytes of the lines of a file that begin in a range of bytes."""

    def __init__(self, file: BinaryIO, first: int, last: int) -> None:
        self._file = file
        self._end = self._line_start(last)
        self._file.seek(self._line_start(first))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._file.read(min(len(buffer), max(self._end - self._file.tell(), 0)))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _line_start(self, position: int) -> int:
        """Where the first line begins that does not begin before a position."""
        if position == 0:
            return 0
        self._file.seek(position - 1)
        while (part := self._file.readline(_BLOCK)) and not part.endswith(b"\n"):
            pass
        return self._file.tell()


# Readers of the formats.


class InputOptions(NamedTuple):
    """How an input is read: `n_done` records at its beginning are passed over.

    With `bounds` only a part of the file is read: its rows (Parquet) or the lines that begin in these bytes, the last
    one excluded. Line formats and Parquet alone can be cut so.
    """

    report: Report
    encoding: str = "utf-8"
    columns: str = "auto"
    n_done: int = 0
    bounds: tuple[int, int] | None = None


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
    """Refuse a file that cannot be opened, before a model is loaded; a pipe, which is read once, is left alone.

    Raises:
        CorpusError: With the reason.
    """
    if name == STANDARD_INPUT and sys.stdin is None:
        raise CorpusError("the standard input is closed; name a file, or give it something to read, as in < FILE")
    if name == STANDARD_INPUT or is_special(Path(name)):
        if format == "parquet":
            place = "the standard input" if name == STANDARD_INPUT else f"a device or a pipe such as {name}"
            raise CorpusError(f"Parquet is read from a file, not from {place}: give its name")
        return
    _opened(name).close()
    if format == "parquet":
        parquet_rows(name)


def _opened(name: str) -> BinaryIO:
    try:
        return Path(name).open("rb")
    except OSError as problem:
        raise CorpusError(f"{name}: cannot be read: {problem.strerror}") from problem


def _lines(name: str, options: InputOptions) -> tuple[Callable[[int], str], Iterator[tuple[int, str]]]:
    """What tells a line of a file, and its lines, empty ones included."""
    source, where = sys.stdin.buffer if name == STANDARD_INPUT else _opened(name), f"{name}:"
    if options.bounds is not None:
        source = BufferedReader(_LineRange(source, *options.bounds))
        where = where if options.bounds[0] == 0 else f"{name}, behind byte {options.bounds[0]}, line "

    def place(number: int) -> str:
        return f"{where}{number}"

    return place, read_input_lines(source, place, options.encoding, options.report, options.n_done)


def _read_text(name: str, options: InputOptions) -> Iterator[Record]:
    place, lines = _lines(name, options)
    return (Record(number, place(number), line, None, None, {"text": line}) for number, line in lines)


def _read_jsonl(name: str, options: InputOptions) -> Iterator[Record]:
    place, lines = _lines(name, options)

    def record(found: tuple[int, str]) -> Record | None:
        number, line = found
        if not line or line.isspace():
            return None
        fields = _json_object(line, place(number), options.report)
        return record_of_fields(number, place(number), fields, options.report)

    return each(lines, record)


def _json_object(line: str, place: str, report: Report) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
        if isinstance(fields, dict):
            return fields
        hint = "; is the file one JSON array? then give --from json" if line.startswith("[") else ""
        message = f"expected a JSON object, found {line[:_N_SHOWN]!r}{hint}"
    except (ValueError, RecursionError) as problem:
        message = f"no JSON ({problem}): {line[:_N_SHOWN]!r}"
    report(CorpusProblem("XL020", place, message, "the line is left out"))
    raise LeftOut


def _read_json(name: str, options: InputOptions) -> Iterator[Record]:
    def record(found: tuple[int, JsonRecord]) -> Record:
        number, value = found
        return record_of_fields(number, value.place, fields_of(value, options.report), options.report)

    records = read_json_records(Path(_path(name)), options.encoding, options.report)
    return each(islice(enumerate(records, 1), options.n_done, None), record)


class _Rest:
    """What of a corpus was not tagged before; earlier problems were told when they were met first."""

    def __init__(self, options: InputOptions) -> None:
        self._options = options
        self._n_read = 0
        # None of the tags matters.
        self.options = ReadingOptions(options.columns, IGNORE, options.encoding, report=self._report)

    def _report(self, problem: CorpusProblem) -> None:
        if self._n_read >= self._options.n_done:
            self._options.report(problem)

    def of(self, found: Iterable[Part]) -> Iterator[tuple[int, Part]]:
        for part in found:
            self._n_read += 1
            if self._n_read > self._options.n_done:
                yield self._n_read, part

    def sentences(self, found: Iterable[Located]) -> Iterator[Record]:
        for number, (sentence, place) in self.of(found):
            yield Record(number, place(0), None, sentence.words, None, {"words": list(sentence.words)})


def _read_conll(name: str, options: InputOptions) -> Iterator[Record]:
    rest = _Rest(options)
    return rest.sentences(read_located(_path(name), "conll", rest.options))


def _read_csv(name: str, options: InputOptions) -> Iterator[Record]:
    rest = _Rest(options)
    reader = RowReader(_path(name), rest.options)
    columns, rows = reader.csv()
    if columns is not None and not columns.is_text:
        yield from rest.sentences(reader.table(rows, columns))
    elif columns is not None:
        names = columns.names or tuple(map(str, range(columns.width)))
        for number, (line, cells) in rest.of(reader.texts(rows, columns)):
            place = f"{_path(name)}:{line}"
            text = checked_text(cells[columns.word], place, options.report)
            fields = {**dict(zip(names, cells, strict=True)), names[columns.word]: text}
            yield Record(number, place, text, None, None, fields)


def _path(name: str) -> str:
    return "/dev/stdin" if name == STANDARD_INPUT else name


def _read_parquet(name: str, options: InputOptions) -> Iterator[Record]:
    """Rows of a file; only their row groups are read."""
    from pyarrow import parquet

    first, last = options.bounds or (0, parquet_rows(name))
    first += options.n_done
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
    return cast("list[dict[str, Any]]", rows.select(columns_of_records(rows.schema)).to_pylist())


def columns_of_records(schema: "Schema") -> list[int]:
    """The places of the columns of Parquet that records can be made of: texts and lists; Arrow keeps all others."""
    from pyarrow import types

    def fits(kind: "DataType") -> bool:
        is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind)
        return bool(is_text or types.is_list(kind) or types.is_large_list(kind))

    return [
        place
        for place, field in enumerate(schema)
        if find_name([field.name], (*WORD_NAMES, *TEXT_NAMES)) is not None and fits(field.type)
    ]


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
    if find_name(columns, (*WORD_NAMES, *TEXT_NAMES)) is None:
        raise CorpusError(f"{name}: no column text, words or tokens; columns there: {', '.join(columns)}")
    looked_at = [columns[place] for place in columns_of_records(file.schema_arrow)]
    if twice := sorted(column for column in looked_at if columns.count(column) > 1):
        raise CorpusError(f"{name}: {columns.count(twice[0])} columns are named {twice[0]}; rename all but one")
    return n_rows


def record_of_fields(number: int, place: str, fields: Mapping[str, Any], report: Report) -> Record:
    """A record of named fields: words where it has them, otherwise a text.

    Raises:
        LeftOut: If it has neither, and the report returns.
    """
    text_field = find_name([name for name, value in fields.items() if isinstance(value, str)], TEXT_NAMES)
    field = find_name([name for name, value in fields.items() if isinstance(value, list)], WORD_NAMES)
    are_offsets = field is not None and fields[field] and all(isinstance(token, dict) for token in fields[field])
    if field is not None and not are_offsets:
        words = checked_words(fields[field], place, report)
        if text_field is None:
            return Record(number, place, None, words, None, {**fields, field: list(words)})
        text = checked_text(fields[text_field], place, report)
        found_words = locate_words(text, words)
        if found_words is None:
            message = f"the {field} are not those of the {text_field} {text[:_N_SHOWN]!r}; leave one of the two out"
            report(CorpusProblem("XL021", place, message, "the record is left out"))
            raise LeftOut
        return Record(number, place, text, words, found_words, {**fields, field: list(words), text_field: text})
    if text_field is None:
        found = ", ".join(f"{name}: {str(value)[:20]!r}" for name, value in fields.items())[:_N_SHOWN]
        message = f"expected a field text, or words (or tokens) as a list of texts; found {found or 'no field'}"
        report(CorpusProblem("XL021", place, message, "the record is left out"))
        raise LeftOut
    text = checked_text(fields[text_field], place, report)
    offsets = None if field is None else _offsets(fields[field], len(text), place, report)
    return Record(number, place, text, None, offsets, {**fields, text_field: text})


def _offsets(tokens: list[Mapping[str, Any]], length: int, place: str, report: Report) -> WordOffsets:
    try:
        return word_offsets(tokens, length)
    except ODD_VALUES as problem:
        message = f"expected tokens as {{start, end}} in characters; found otherwise ({problem})"
        report(CorpusProblem("XL021", place, message, "the record is left out"))
        raise LeftOut from None


# A new format to tag is one function above and one line here.
INPUT_FORMATS: dict[str, Callable[[str, InputOptions], Iterator[Record]]] = {
    "text": _read_text,
    "jsonl": _read_jsonl,
    "json": _read_json,
    "conll": _read_conll,
    "csv": _read_csv,
    "parquet": _read_parquet,
}
