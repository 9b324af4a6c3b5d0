"""Shards: a range of one input file each, which one process tags into one output file, whole or not at all.

Where a shard ends depends on the input and the size of shards alone: any number of processes makes the same files.
"""

import glob
import math
import os
from collections.abc import Callable, Iterator
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xlner.errors import CorpusError
from xlner.files import replaced
from xlner.tagger import Tagger
from xlner.tagging.bad_records import BadRecords
from xlner.tagging.files import Progress
from xlner.tagging.reading import InputOptions, json_records, parquet_records, parquet_rows, text_records
from xlner.tagging.records import Record, TaggedRecord, in_chunks, tag_records
from xlner.tagging.rendering import as_json
from xlner.tagging.tables import GROUP_ROWS, output_schema, records_table

if TYPE_CHECKING:
    from pyarrow import Schema

_BLOCK = 1 << 20  # bytes read at once in the search for a line end


class Shard(NamedTuple):
    """Part of an input file: its rows (Parquet) or the lines that begin in its bytes, `last` excluded.

    `name` is its output file within the output folder.
    """

    source: str
    first: int
    last: int
    name: str


def input_files(pattern: str) -> dict[str, str]:
    """The files of a corpus, and the name of each below the folder that they share, in order.

    Args:
        pattern: A file, a folder (with all in it), or a glob.

    Raises:
        CorpusError: If there is none.
    """
    if os.path.isdir(pattern):
        paths = [str(path) for path in Path(pattern).rglob("*")]
        root = pattern
    else:
        paths = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
        root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]) if paths else ""
    found = sorted(path for path in paths if Path(path).suffix.lower() in SHARDED and os.path.isfile(path))
    if not found:
        raise CorpusError(f"input={pattern}: no file there that ends in {', '.join(SHARDED)}")
    return {path: os.path.relpath(path, root) for path in found}


def plan_shards(files: dict[str, str], shard_bytes: float) -> list[Shard]:
    """Cut files into shards of about equal size.

    Args:
        files: As `input_files` gives them.
        shard_bytes: Of the input, as it lies on the disk.

    Raises:
        CorpusError: If two outputs would have one name, or a file is damaged.
    """
    shards: list[Shard] = []
    for source, name in files.items():
        suffix = Path(source).suffix.lower()
        size = SHARDED[suffix].size(source)
        n_shards = max(1, min(size, math.ceil(os.path.getsize(source) / shard_bytes)))
        for number in range(n_shards):
            bounds = size * number // n_shards, size * (number + 1) // n_shards
            stem = f"{name.removesuffix(Path(name).suffix)}-{number:05}-of-{n_shards:05}"
            shards.append(Shard(source, *bounds, stem + SHARDED[suffix].output_suffix))
    names = [shard.name for shard in shards]
    if twice := next((name for name in names if names.count(name) > 1), "") if len(set(names)) < len(names) else "":
        raise CorpusError(f"two input files would become {twice}; rename one, or tag them into two folders")
    return shards


def tag_shard(
    tagger: Tagger, shard: Shard, folder: Path, bad_records: BadRecords, tell_words: Callable[[int], object]
) -> Progress:
    """Tag a shard; its file appears in the folder when it is whole.

    Returns:
        The counts.

    Raises:
        CorpusError: If a record cannot be read.
        RunError: If the disk refuses.
    """
    kind = SHARDED[Path(shard.source).suffix.lower()]
    counts = Progress()

    def tagged_chunks() -> Iterator[list[TaggedRecord]]:
        nonlocal counts
        for chunk in in_chunks(kind.read(shard, InputOptions(bad_records.report))):
            tagged = tag_records(tagger, chunk)
            counts = counts.plus(tagged)
            tell_words(sum(len(one.words) for one in tagged))
            yield tagged

    with replaced(folder / shard.name) as unfinished:
        kind.write(tagged_chunks(), unfinished, shard)
    return counts


class _LineRange(RawIOBase):
    """The bytes of the lines of a file that begin in a range of bytes."""

    def __init__(self, path: str, first: int, last: int) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115 - `close` closes it
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


def _lines(shard: Shard) -> tuple[BufferedReader, Callable[[int], str]]:
    where = f"{shard.source}:" if shard.first == 0 else f"{shard.source}, behind byte {shard.first}, line "
    return BufferedReader(_LineRange(shard.source, shard.first, shard.last)), lambda number: f"{where}{number}"


def _read_jsonl(shard: Shard, options: InputOptions) -> Iterator[Record]:
    return json_records(*_lines(shard), options)


def _read_text(shard: Shard, options: InputOptions) -> Iterator[Record]:
    return text_records(*_lines(shard), options)


def _read_parquet(shard: Shard, options: InputOptions) -> Iterator[Record]:
    return parquet_records(shard.source, shard.first, shard.last, options)


def _write_jsonl(chunks: Iterator[list[TaggedRecord]], path: Path, _: Shard) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for chunk in chunks:
            file.writelines(map(as_json, chunk))


def _write_parquet(chunks: Iterator[list[TaggedRecord]], path: Path, shard: Shard) -> None:
    from pyarrow import parquet

    schema: Schema = output_schema(shard.source)
    rows: list[TaggedRecord] = []
    with parquet.ParquetWriter(path, schema) as file:
        for chunk in chunks:
            rows += chunk
            if len(rows) >= GROUP_ROWS:
                file.write_table(records_table(rows, schema))
                rows = []
        if rows:
            file.write_table(records_table(rows, schema))


class _Kind(NamedTuple):
    """How files of a suffix are measured (in what shards count), read and written."""

    size: Callable[[str], int]
    read: Callable[[Shard, InputOptions], Iterator[Record]]
    write: Callable[[Iterator[list[TaggedRecord]], Path, Shard], None]
    output_suffix: str


# A new format of corpora that are cut is some functions above and one line here.
SHARDED: dict[str, _Kind] = {
    ".parquet": _Kind(parquet_rows, _read_parquet, _write_parquet, ".parquet"),
    ".jsonl": _Kind(os.path.getsize, _read_jsonl, _write_jsonl, ".jsonl"),
    ".ndjson": _Kind(os.path.getsize, _read_jsonl, _write_jsonl, ".jsonl"),
    ".txt": _Kind(os.path.getsize, _read_text, _write_jsonl, ".jsonl"),
}
