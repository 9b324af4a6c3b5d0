"""Rows of arrays in memory-mapped Arrow files: written as a stream, read row by row without copying.

The files are those of Hugging Face `datasets` (`Dataset.from_file` opens them), so that anyone can look inside. A row
is a dict of one-dimensional arrays, or of texts; a column has one type. Behind the end of the stream, where readers of
Arrow do not look, stands the SHA-256 of all before it: a file is checked before any of it is used, since a changed
offset would make a reader die or read other rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from numpy.typing import NDArray

from xlner.errors import GOES_ON
from xlner.files import file_digest, replaced

Item = TypeVar("Item")

# What stands behind the end of the Arrow stream: this, and the digest in hexadecimal.
_SEAL = b"xlner-sha256:"
_SEAL_SIZE = len(_SEAL) + 64


class RowWriter:
    """Writes rows of number arrays and lists of words; nothing stands at `path` before `__exit__` without an error."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        """Prepare the file; it is opened by `with`.

        Args:
            path: Where the finished file shall stand.
            columns: Element type of each column, as in `float16` or `string`.
        """
        self.columns = dict(columns)
        self._path = path
        self._opened = self._open()

    def write(self, rows: Sequence[Mapping[str, Sequence[str] | NDArray[np.generic]]]) -> None:
        """Append rows; those of one call become one record batch, so give a few thousand at a time."""
        if not rows:
            return
        arrays = []
        for name, kind in self.columns.items():
            offsets = np.cumsum([0, *(len(row[name]) for row in rows)]).astype(np.int32)
            if kind == "string":
                values = pa.array([word for row in rows for word in row[name]], type=pa.string())
            else:
                values = pa.array(np.concatenate([np.asarray(row[name], dtype=kind) for row in rows]))
            arrays.append(pa.ListArray.from_arrays(pa.array(offsets), values))
        self._writer.write_table(pa.Table.from_arrays(arrays, names=list(self.columns)))

    def __enter__(self) -> "RowWriter":
        self._opened.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish the file, or remove what was begun."""
        self._opened.__exit__(kind, error, trace)

    @contextmanager
    def _open(self) -> Iterator[None]:
        # Two runs may make the same file at the same time; the one that ends last stays.
        with replaced(self._path, way_out=GOES_ON) as unfinished:
            features = Features({name: List(Value(kind)) for name, kind in self.columns.items()})
            self._writer = ArrowWriter(path=str(unfinished), features=features)
            try:
                yield
                self._writer.finalize()
            except BaseException:
                with suppress(OSError):  # a disk that is full refuses this, too; what matters is the first error
                    self._writer.close()
                raise
            digest = file_digest(unfinished)
            with unfinished.open("ab") as file:
                file.write(_SEAL + digest.encode())


def rows_digest(path: Path) -> str:
    """The SHA-256 of the rows of a file that `RowWriter` wrote, after checking it.

    A process reads a file for this once; a gigabyte takes about a second.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not the file that was written; with the path.
    """
    n_bytes = path.stat().st_size - _SEAL_SIZE
    with path.open("rb") as file:
        file.seek(max(0, n_bytes))
        seal = file.read()
    if n_bytes < 0 or not seal.startswith(_SEAL):
        raise ValueError(f"{path}: is cut short, or of an earlier version of xlner")
    digest = file_digest(path, n_bytes)
    if seal != _SEAL + digest.encode():
        raise ValueError(f"{path}: not the file that was written, its SHA-256 differs")
    return digest


def is_whole(path: Path) -> bool:
    """Whether there is a file of rows as it was written."""
    try:
        rows_digest(path)
    except (OSError, ValueError):
        return False
    return True


class StoredRows:
    """The rows of one or more Arrow files of equal columns, in memory only as far as they are touched.

    Several files are the parts that processes wrote side by side, block by block in turn; `block` is the number of
    rows of a block, and the order of the rows does not depend on how many parts there are.
    """

    def __init__(self, paths: Sequence[Path], block: int = 1 << 62) -> None:
        """Open the files, after checking them.

        Raises:
            OSError: If one cannot be read.
            ValueError: If one is not the file that was written.
        """
        self.digests = tuple(rows_digest(path) for path in paths)
        self._parts = [_Part(path) for path in paths]
        self._block = block
        self._n_rows: int = sum(part.n_rows for part in self._parts)

    def __len__(self) -> int:
        return self._n_rows

    def row(self, number: int, column: str) -> NDArray[np.generic]:
        """The array of one row and number column; a view of the file."""
        part, place = self._place(number)
        return self._parts[part].view(place, column)

    def words(self, number: int, column: str) -> list[str]:
        """The texts of one row."""
        part, place = self._place(number)
        return self._parts[part].texts(place, column)

    def lengths(self, column: str) -> NDArray[np.int64]:
        """How many elements each row of a column has."""
        block, within = np.divmod(np.arange(len(self)), self._block)
        round_, part_of_row = np.divmod(block, len(self._parts))
        place_of_row = round_ * self._block + within
        lengths = np.zeros(len(self), dtype=np.int64)
        for number, part in enumerate(self._parts):
            mine = part_of_row == number
            lengths[mine] = part.lengths(column)[place_of_row[mine]]
        return lengths

    def _place(self, number: int) -> tuple[int, int]:
        block, within = divmod(number, self._block)
        round_, part = divmod(block, len(self._parts))
        return part, round_ * self._block + within


class _Part:
    """One file: for each column the value and offset buffers of its record batches."""

    def __init__(self, path: Path) -> None:
        self._table = Dataset.from_file(str(path)).data.table
        self.n_rows: int = self._table.num_rows
        self._starts = np.cumsum([0, *(chunk.num_rows for chunk in self._table.to_batches())])
        self._offsets: dict[str, list[NDArray[np.int32]]] = {}
        self._values: dict[str, list[NDArray[np.generic]]] = {}
        for name in self._table.column_names:
            chunks = self._table.column(name).chunks
            self._offsets[name] = [chunk.offsets.to_numpy() for chunk in chunks]
            if not pa.types.is_string(self._table.column(name).type.value_type):
                # A sliced chunk would make `.values` and `.offsets` disagree; files are never sliced here.
                self._values[name] = [chunk.values.to_numpy(zero_copy_only=True) for chunk in chunks]

    def view(self, place: int, column: str) -> NDArray[np.generic]:
        chunk, start, end = self._range(place, column)
        return self._values[column][chunk][start:end]

    def texts(self, place: int, column: str) -> list[str]:
        chunk, start, end = self._range(place, column)
        texts: list[str] = self._table.column(column).chunk(chunk).values.slice(start, end - start).to_pylist()
        return texts

    def lengths(self, column: str) -> NDArray[np.int64]:
        by_chunk = [np.diff(offsets) for offsets in self._offsets[column]]
        return np.concatenate([np.zeros(0, dtype=np.int64), *by_chunk])  # a file may have no rows at all

    def _range(self, place: int, column: str) -> tuple[int, int, int]:
        chunk = int(np.searchsorted(self._starts, place, side="right")) - 1
        local = place - int(self._starts[chunk])
        offsets = self._offsets[column][chunk]
        return chunk, int(offsets[local]), int(offsets[local + 1])


def in_blocks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    block: list[Item] = []
    for item in items:
        block.append(item)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
