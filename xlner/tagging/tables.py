"""Tagged records in files that cannot be appended to: Parquet, and spaCy's DocBin.

They are written in parts, which are put together in the end.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xlner.data.docbin import merge_docbins, tagged_docbin
from xlner.data.jsonl import WORD_FIELDS
from xlner.errors import CorpusError
from xlner.splitting import WordOffsets
from xlner.tagging.reading import columns_of_records
from xlner.tagging.records import TaggedRecord
from xlner.tagging.rendering import output_fields

if TYPE_CHECKING:
    from pyarrow import Field, Schema, Table

OUR_COLUMNS = ("tags", "entities")
GROUP_ROWS = 8192  # rows of a row group of Parquet
_WAY_OUT = "Parquet has the columns and types of the first records; write jsonl"
_N_SHOWN = 60
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


class PartFormat(NamedTuple):
    """How a part is written, which columns a part has (None without columns), and how all become one file.

    The schema that a part is written by comes from the input or from the first part. `check` raises a CorpusError for
    a record that no file of this format can hold.
    """

    check: Callable[[TaggedRecord], None]
    write: Callable[[Sequence[TaggedRecord], Path, "Schema | None"], None]
    schema: "Callable[[Path], Schema | None]"
    merge: Callable[[Sequence[Path], Path], None]


def output_schema(source: str) -> "Schema":
    """The columns of a Parquet file with ours: what it has of `tags` and `entities` is replaced."""
    import pyarrow
    from pyarrow import parquet

    schema = parquet.read_schema(source)
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
    """Tagged records as a table; rows of Parquet keep their other columns as they are in Arrow.

    Args:
        records: At least one.
        schema: Of the output; None to find it out.

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
        return value if not value.isascii() and _HALF_CHARACTER.search(value) else ""
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next((found for part in value if (found := _with_half_character(part))), "")
    return ""


def _write_parquet(records: Sequence[TaggedRecord], path: Path, schema: "Schema | None") -> None:
    from pyarrow import parquet

    parquet.write_table(records_table(records, schema), path)


def _parquet_schema(path: Path) -> "Schema":
    from pyarrow import parquet

    return parquet.read_schema(path)


def _merge_parquet(parts: Sequence[Path], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = parquet.read_schema(parts[0]) if parts else _found_schema([])
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


def _hold_anything(_: TaggedRecord) -> None:
    """Words are all that a DocBin takes, and those were checked when they were read."""


def _no_schema(_: Path) -> None:
    return None


def _merge_docbins(parts: Sequence[Path], path: Path) -> None:
    path.write_bytes(merge_docbins(parts))


# A new format of parts is four functions above and one line here, and its suffix in `writing.py`.
PART_FORMATS: dict[str, PartFormat] = {
    "parquet": PartFormat(_refuse_half_characters, _write_parquet, _parquet_schema, _merge_parquet),
    "docbin": PartFormat(_hold_anything, _write_docbin, _no_schema, _merge_docbins),
}
