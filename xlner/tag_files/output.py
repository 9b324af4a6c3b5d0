"""Tagged records written: as lines that are appended to, or as tables in parts that are put together in the end.

Output on its way to a file grows beside its place, is whole after every `save`, and can be taken up again:
`.NAME.unfinished` is a file that is appended to, or a folder of parts. What was written behind the last `save` is
dropped when the output is opened again. A lock, `.NAME.lock`, keeps a second run out.
"""

import base64
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xlner.corpora.json_records import WORD_FIELDS
from xlner.corpora.lines import CorpusProblem
from xlner.corpora.stored import merge_docbins, tagged_docbin
from xlner.corpora.write import conll_blocks
from xlner.errors import CorpusError, RunError, has_half_characters
from xlner.files import flush, locked, remove, replaced, to_json
from xlner.tag_files.records import ArrowRow, TaggedRecord, columns_of_records
from xlner.words import Sentence, WordOffsets

if TYPE_CHECKING:
    from pyarrow import Field, Schema, Table

# What can be written, and the suffix of such a file.
OUTPUT_SUFFIXES = {"jsonl": ".jsonl", "conll": ".conll", "text": ".txt", "parquet": ".parquet", "docbin": ".spacy"}
N_TOLD = 20  # problems told one by one; the others are counted
OUR_COLUMNS = ("tags", "entities")
GROUP_ROWS = 8192  # rows of a row group of Parquet
_WAY_OUT = "Parquet has the columns and types of the first records; write jsonl"
_N_SHOWN = 60
Render = Callable[[TaggedRecord], str]


class BadRecords:
    """Stops at the first problem, or tells the first few and counts them all: `report` is a `Report` of readers."""

    def __init__(self, *, stops: bool, tell: Callable[[str], None], way_out: str = "--on-error skip") -> None:
        """Start with none; `way_out` is the option by which the run would not stop."""
        self.n_found = 0
        self._stops = stops
        self._way_out = way_out
        self._tell = tell

    def report(self, problem: CorpusProblem) -> None:
        """Take in what a reader found; if this returns, the reader goes on with the repair that the problem names."""
        self._found(str(problem), problem.repair)

    def refused(self, problem: CorpusError) -> None:
        """Take in that a record cannot be written; if this returns, it is left out."""
        self._found(str(problem), "the record is left out")

    def _found(self, message: str, repair: str) -> None:
        if self._stops:
            raise CorpusError(f"{message}; {self._way_out} would go on ({repair})")
        self.n_found += 1
        if self.n_found <= N_TOLD:
            self._tell(f"{message}; {repair}")
        if self.n_found == N_TOLD:
            self._tell(f"{N_TOLD} problems were told; further ones are only counted")


# Tagged records as the text of a file: JSON Lines, columns, or text with its entities marked.


def output_fields(tagged: TaggedRecord) -> dict[str, Any]:
    """The fields of the input record, then `tags` (where it has words) and `entities`, which replace older ones.

    Raises:
        CorpusError: If the record is a row of Parquet with columns of one name, of which a JSON object holds one.
    """
    carried = {} if tagged.record.row is None else _carried(tagged.record.row, tagged.record.place)
    fields = carried | dict(tagged.record.fields)
    fields = {name: value for name, value in fields.items() if name not in ("tags", "entities")}
    if tagged.record.words is not None:
        fields["tags"] = list(tagged.tags)
    return fields | {"entities": tagged.entities()}


def _carried(row: ArrowRow, place: str) -> dict[str, Any]:
    """The values of a row of Parquet; those that Python has nothing for as text."""
    names = row.batch.schema.names
    if twice := sorted({name for name in names if names.count(name) > 1} - {"tags", "entities"}):
        raise CorpusError(f"{place}: several columns are named {twice[0]}; rename all but one, or write parquet")
    return {name: _as_value(column[row.number]) for name, column in zip(names, row.batch.columns, strict=True)}


def _as_value(scalar: Any) -> Any:
    """A value of Arrow in Python; as text where it is a time beyond those of Python, or of an unknown zone."""
    import pyarrow

    try:
        return scalar.as_py()
    except (ValueError, OverflowError, LookupError, pyarrow.ArrowException):
        pass
    try:
        if pyarrow.types.is_timestamp(scalar.type):  # without its zone: that of Greenwich
            scalar = scalar.cast(pyarrow.timestamp(scalar.type.unit))
        return scalar.cast(pyarrow.string()).as_py()
    except pyarrow.ArrowException:
        return str(getattr(scalar, "value", scalar.type))


def as_json(tagged: TaggedRecord) -> str:
    """A JSON object and a line end.

    Values of Parquet that JSON lacks become text: times and decimal numbers as they are printed, bytes as base64.
    """
    line = to_json(output_fields(tagged), default=_as_text)
    # Half a surrogate pair in a field that is only carried along: this writes it as JSON does, `\\ud800`.
    return line.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"


def as_columns(tagged: TaggedRecord) -> str:
    """Word TAB tag, and a blank line; nothing for a record without words.

    Raises:
        CorpusError: If a word could not be read back.
    """
    if not tagged.words:
        return ""
    return "".join(conll_blocks([Sentence(tagged.words, tagged.tags)], Path(tagged.record.place)))


def as_marked_text(tagged: TaggedRecord) -> str:
    """One line: each entity in brackets with its type behind it, as in `[Kiel](LOC)`.

    Raises:
        CorpusError: If the text holds a line end.
    """
    source = tagged.record.text
    if source is None:
        openings = {span.start: "[" for span, _ in tagged.spans}
        closings = {span.end - 1: f"]({span.label})" for span, _ in tagged.spans}
        words = [openings.get(n, "") + word + closings.get(n, "") for n, word in enumerate(tagged.words)]
        text = " ".join(words)
    else:
        parts, end = [], 0
        for entity in tagged.entities():
            parts += [source[end : entity["start"]], f"[{entity['text']}]({entity['label']})"]
            end = entity["end"]
        text = "".join([*parts, source[end:]])
    if "\n" in text or "\r" in text:
        raise CorpusError(f"{tagged.record.place}: the text holds a line end, and text is one record a line")
    return text + "\n"


def _as_text(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


# A new format of text is one function above and one line here, and its suffix in `OUTPUT_SUFFIXES`.
LINE_FORMATS: dict[str, Callable[[TaggedRecord], str]] = {
    "jsonl": as_json,
    "conll": as_columns,
    "text": as_marked_text,
}


# Tagged records in files that cannot be appended to: Parquet, and spaCy's DocBin.


class PartFormat(NamedTuple):
    """How a part is written, which columns a part has (None without columns), and how all become one file.

    The schema that a part is written by comes from the input or from the first part. `check` raises a CorpusError for
    a record that no file of this format can hold.
    """

    check: Callable[[TaggedRecord], None]
    write: Callable[[Sequence[TaggedRecord], Path, "Schema | None"], None]
    schema: "Callable[[Path], Schema | None]"
    merge: Callable[[Sequence[Path], Path], object]


def _parquet_schema(path: str | Path) -> "Schema":
    from pyarrow import parquet

    return parquet.read_schema(path)


def output_schema(source: str) -> "Schema":
    """The columns of a Parquet file with ours: what it has of `tags` and `entities` is replaced."""
    import pyarrow

    schema = _parquet_schema(source)
    kept = _carried_fields(schema)
    tags = [_our_fields()[0]] if set(WORD_FIELDS) & set(schema.names) else []
    return pyarrow.schema([*kept, *tags, _our_fields()[1]], schema.metadata)


def parquet_table(records: Sequence[TaggedRecord], schema: "Schema | None" = None) -> "Table":
    """Records as a table; without a schema the columns and their types are found out.

    Raises:
        CorpusError: If a record does not fit the schema or the records before it; the message names the first one.
    """
    rows = [output_fields(tagged) for tagged in records]
    places = [tagged.record.place for tagged in records]
    if schema is not None:
        for place, row in zip(places, rows, strict=True):
            if late := sorted(row.keys() - set(schema.names)):
                columns = ", ".join(schema.names)
                raise CorpusError(f"{place}: the field {late[0]!r} is none of the columns, {columns}; {_WAY_OUT}")
    try:
        return _table(rows, schema)
    except ValueError as problem:
        place = places[_first_misfit(rows, schema)]
        raise CorpusError(f"{place}: does not fit the columns of the first records ({problem}); {_WAY_OUT}") from None


def _table(rows: Sequence[dict[str, Any]], schema: "Schema | None") -> "Table":
    """Rows as a table; ValueError if they are not of one schema: a number too large, a text among numbers."""
    import pyarrow

    try:
        return pyarrow.Table.from_pylist(rows, schema=_found_schema(rows) if schema is None else schema)
    except (pyarrow.ArrowException, OverflowError) as problem:
        raise ValueError(str(problem)) from problem


def _first_misfit(rows: Sequence[dict[str, Any]], schema: "Schema | None") -> int:
    """The place of the first row that makes no table together with those before it; the search halves the rows."""
    low, high = 0, len(rows) - 1
    while low < high:
        middle = (low + high) // 2
        try:
            _table(rows[: middle + 1], schema)
            low = middle + 1
        except ValueError:
            high = middle
    return low


def records_table(records: Sequence[TaggedRecord], schema: "Schema | None") -> "Table":
    """At least one tagged record as a table; rows of Parquet keep their other columns as they are in Arrow.

    Raises:
        CorpusError: As `parquet_table`.
    """
    import pyarrow

    rows = [tagged.record.row for tagged in records]
    own = [field for field in schema or () if field.name not in OUR_COLUMNS]
    if schema is None or not all(row and _carried_fields(row.batch.schema) == own for row in rows):
        return parquet_table(records, schema)
    carried = pyarrow.Table.from_batches(row.batch.slice(row.number, 1) for row in rows if row)
    carried = carried.select([place for place, name in enumerate(carried.schema.names) if name not in OUR_COLUMNS])
    looked_at = columns_of_records(carried.schema)
    ours = [{"tags": list(tagged.tags), "entities": tagged.entities(), **tagged.record.fields} for tagged in records]
    columns = [
        pyarrow.array([row.get(field.name) for row in ours], type=field.type)
        if place in looked_at or place >= len(own)
        else carried.column(place)
        for place, field in enumerate(schema)
    ]
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _carried_fields(schema: "Schema") -> "list[Field]":
    return [field for field in schema if field.name not in OUR_COLUMNS]


def _found_schema(rows: Sequence[dict[str, Any]]) -> "Schema":
    import pyarrow

    names = list(dict.fromkeys(name for row in rows for name in row if name not in OUR_COLUMNS))
    found = pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]).schema
    tags, entities = _our_fields()
    fields = [pyarrow.field(field.name, tags.type) if field.name in WORD_FIELDS else field for field in found]
    return pyarrow.schema([*fields, *([tags] if any("tags" in row for row in rows) else []), entities])


def _our_fields() -> "tuple[Field, Field]":
    """The columns `tags` and `entities`."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int64()
    entity = [("text", text), ("label", text), ("start", number), ("end", number), ("score", pyarrow.float64())]
    tags = pyarrow.field("tags", pyarrow.list_(text))
    return tags, pyarrow.field("entities", pyarrow.list_(pyarrow.struct(entity)))


def _refuse_half_characters(tagged: TaggedRecord) -> None:
    """JSON can escape half a surrogate pair, which is no character: UTF-8, and so Parquet, has no bytes for it."""
    for name, value in tagged.record.fields.items():
        if name not in OUR_COLUMNS and (found := _with_half_character([name, value])):
            raise CorpusError(
                f"{tagged.record.place}: the field {name!a} holds half a surrogate pair, {found[:_N_SHOWN]!a}, which "
                "Parquet cannot hold; write jsonl, or mend the field"
            )


def _with_half_character(value: Any) -> str:
    """The first text within a value of JSON that holds half a surrogate pair; empty if none does."""
    if isinstance(value, str):
        return value if has_half_characters(value) else ""
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next((found for part in value if (found := _with_half_character(part))), "")
    return ""


def _write_parquet(records: Sequence[TaggedRecord], path: Path, schema: "Schema | None") -> None:
    from pyarrow import parquet

    parquet.write_table(records_table(records, schema), path)


def _merge_parquet(parts: Sequence[Path], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = _parquet_schema(parts[0]) if parts else _found_schema([])
    tables: list[Table] = []
    with parquet.ParquetWriter(path, schema) as file:
        for number, part in enumerate(parts, 1):
            tables.append(parquet.ParquetFile(part).read())  # `read_table` takes no columns of one name
            if number == len(parts) or sum(table.num_rows for table in tables) >= GROUP_ROWS:
                file.write_table(pyarrow.concat_tables(tables))
                tables = []


def _write_docbin(records: Sequence[TaggedRecord], path: Path, _: "Schema | None") -> None:
    path.write_bytes(tagged_docbin((tagged.words, _spaces(tagged), tagged.spans) for tagged in records if tagged.words))


def _spaces(tagged: TaggedRecord) -> list[bool]:
    """Whether a space follows each word: as in the text, or behind all but the last."""
    offsets: WordOffsets | None = tagged.offsets
    if offsets is None:
        return [True] * (len(tagged.words) - 1) + [False]
    return [end < start for (_, end), (start, _) in pairwise(offsets)] + [False]


# A new format of parts is four functions and one line here, and its suffix in `OUTPUT_SUFFIXES`.
PART_FORMATS: dict[str, PartFormat] = {
    "parquet": PartFormat(_refuse_half_characters, _write_parquet, _parquet_schema, _merge_parquet),
    # Words are all that a DocBin takes, and those were checked when they were read.
    "docbin": PartFormat(
        lambda _: None, _write_docbin, lambda _: None, lambda parts, path: path.write_bytes(merge_docbins(parts))
    ),
}


# Output on its way to a file, or to the standard output.


class StandardOutput:
    """Text that goes to the standard output, chunk by chunk."""

    def __init__(self, render: Render) -> None:
        self._render = render

    def add(self, records: Sequence[TaggedRecord]) -> None:
        """Print records."""
        sys.stdout.writelines(map(self._render, records))
        sys.stdout.flush()


class Lines:
    """Text that is appended to: a position is a number of bytes."""

    def __init__(self, unfinished: Path, render: Render, position: int) -> None:
        """Open it, and drop what stands behind a position.

        Raises:
            RunError: If another run has it open, or it is shorter than that.
        """
        self._path = unfinished
        self._render = render
        with ExitStack() as held:
            held.enter_context(_locked(unfinished))
            self._file = held.enter_context(unfinished.open("ab"))
            if unfinished.stat().st_size < position:
                raise RunError(f"{unfinished} is shorter than it was; --fresh begins anew")
            self._file.truncate(position)
            self._held = held.pop_all()

    def add(self, records: Sequence[TaggedRecord]) -> None:
        """Append records."""
        self._file.write("".join(map(self._render, records)).encode())

    def save(self) -> int:
        """Have all that was added on the disk; the position behind it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def publish(self, target: Path) -> None:
        """Give the finished file its name."""
        if target.exists():
            self._path.chmod(stat.S_IMODE(target.stat().st_mode))
        self._path.replace(target)
        flush(target.parent)

    def close(self) -> None:
        """Let go of it."""
        self._held.close()


class Parts:
    """A folder of parts: a position is their number."""

    def __init__(
        self,
        unfinished: Path,
        format: PartFormat,
        bad_records: BadRecords,
        schema: "Schema | None",
        position: int,
    ) -> None:
        """Open it, and drop the parts behind a position.

        Raises:
            RunError: If another run has it open, or parts are missing.
        """
        self._folder = unfinished
        self._format = format
        self._bad_records = bad_records
        self._schema = schema
        self._records: list[TaggedRecord] = []
        self._n_parts = position
        kept = set(self._paths(position))
        with ExitStack() as held:
            held.enter_context(_locked(unfinished))
            _remove_published(unfinished)
            unfinished.mkdir(exist_ok=True)
            for path in set(unfinished.iterdir()) - kept:
                path.unlink()
            if not all(path.is_file() for path in kept):
                raise RunError(f"{unfinished} has fewer parts than it had; --fresh begins anew")
            self._held = held.pop_all()

    def add(self, records: Sequence[TaggedRecord]) -> None:
        """Take records into the next part, but those that the format cannot hold."""
        for tagged in records:
            try:
                self._format.check(tagged)
            except CorpusError as problem:
                self._bad_records.refused(problem)
            else:
                self._records.append(tagged)
        if len(self._records) >= GROUP_ROWS:
            self.save()

    def save(self) -> int:
        """Write the next part, if there is anything for it; the number of parts."""
        if self._records:
            (path,) = self._paths(self._n_parts + 1)[self._n_parts :]
            with replaced(path) as unfinished:
                self._format.write(self._records, unfinished, self._schema_of_parts())
            self._n_parts += 1
            self._records = []
        return self._n_parts

    def publish(self, target: Path) -> None:
        """Put the parts together, and give the file its name."""
        with replaced(target) as unfinished:
            self._format.merge(self._paths(self._n_parts), unfinished)
        # Under another name at once: a folder of which a part is gone could not be taken up again.
        self._folder.rename(_published(self._folder))
        _remove_published(self._folder)

    def close(self) -> None:
        """Let go of it."""
        self._held.close()

    def _paths(self, n_parts: int) -> list[Path]:
        return [self._folder / f"part-{number:06}" for number in range(n_parts)]

    def _schema_of_parts(self) -> "Schema | None":
        if self._schema is None and self._n_parts:
            self._schema = self._format.schema(self._paths(1)[0])
        return self._schema


def unfinished_path(target: Path) -> Path:
    """Where the output of a target grows."""
    return target.with_name(f".{target.name}.unfinished")


def open_output(
    unfinished: Path, format: str, bad_records: BadRecords, schema: "Schema | None" = None, position: int = 0
) -> Lines | Parts:
    """The output that grows at a path, up to a position that `save` gave; 0 for a new one.

    Records that the format cannot hold go to `bad_records`. Without a schema, the columns of Parquet are found out.

    Raises:
        RunError: If another run has it open, it is a link, or is not as it was left.
    """
    _refuse_link(unfinished)
    if format in LINE_FORMATS:
        return Lines(unfinished, line_rendering(format, bad_records), position)
    return Parts(unfinished, PART_FORMATS[format], bad_records, schema, position)


def line_rendering(format: str, bad_records: BadRecords) -> Render:
    """What makes text of a record: none of one that the format cannot hold."""
    render = LINE_FORMATS[format]

    def text_of(tagged: TaggedRecord) -> str:
        try:
            return render(tagged)
        except CorpusError as problem:
            bad_records.refused(problem)
            return ""

    return text_of


def discard(unfinished: Path) -> None:
    """Remove what there is of an unfinished output.

    Raises:
        RunError: If another run is writing it, or it is a link.
    """
    _refuse_link(unfinished)
    if unfinished.exists() or _published(unfinished).exists():
        with _locked(unfinished):
            remove(unfinished)
            _remove_published(unfinished)


def _published(unfinished: Path) -> Path:
    """Where the parts of an output go that stands under its own name by now."""
    return unfinished.with_suffix(".published")


def _remove_published(unfinished: Path) -> None:
    """Remove those parts; a process that was killed meanwhile has left some."""
    _refuse_link(_published(unfinished))
    remove(_published(unfinished))


def _refuse_link(path: Path) -> None:
    """What is dropped from an unfinished output must be what a run put there."""
    if path.is_symlink():
        raise RunError(f"{path}: is a link, which no run of xlner made; remove it, or give another --out")


@contextmanager
def _locked(unfinished: Path) -> Iterator[None]:
    def refuse() -> None:
        raise RunError(f"{unfinished}: another run is writing it at this moment; give another --out")

    with locked(unfinished.with_suffix(".lock"), refuse):
        yield
