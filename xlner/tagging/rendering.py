"""Tagged records as the text of a file: JSON Lines, columns, or text with its entities marked."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlner.data.conll_writer import conll_blocks
from xlner.errors import CorpusError
from xlner.strict_json import to_json
from xlner.tagging.records import ArrowRow, TaggedRecord
from xlner.text import Sentence


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


# A new format of text is one function above and one line here, and its suffix in `writing.py`.
LINE_FORMATS: dict[str, Callable[[TaggedRecord], str]] = {
    "jsonl": as_json,
    "conll": as_columns,
    "text": as_marked_text,
}
