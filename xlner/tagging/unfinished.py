"""Output on its way to a file: it grows beside its place, is whole after every `save`, and can be taken up again.

`.NAME.unfinished` is a file that is appended to, or a folder of parts. What was written behind the last `save` is
dropped when the output is opened again. A lock, `.NAME.lock`, keeps a second run out.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xlner.errors import CorpusError, RunError
from xlner.files import flush, locked, remove, replaced
from xlner.tagging.bad_records import BadRecords
from xlner.tagging.records import TaggedRecord
from xlner.tagging.rendering import LINE_FORMATS
from xlner.tagging.tables import PART_FORMATS, PartFormat

if TYPE_CHECKING:
    from pyarrow import Schema

# What can be written, and the suffix of such a file.
OUTPUT_SUFFIXES = {"jsonl": ".jsonl", "conll": ".conll", "text": ".txt", "parquet": ".parquet", "docbin": ".spacy"}
Render = Callable[[TaggedRecord], str]


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
    target: Path, format: str, bad_records: BadRecords, schema: "Schema | None" = None, position: int = 0
) -> Lines | Parts:
    """The output that is to become a target, up to a position.

    Args:
        target: The file that it will be.
        format: A key of `LINE_FORMATS` or `PART_FORMATS`.
        bad_records: Gets records that the format cannot hold.
        schema: For Parquet: the columns, None to find them out.
        position: What `save` gave; 0 for a new one.

    Raises:
        RunError: If another run has it open, it is a link, or is not as it was left.
    """
    path = unfinished_path(target)
    _refuse_link(path)
    if format in LINE_FORMATS:
        return Lines(path, line_rendering(format, bad_records), position)
    return Parts(path, PART_FORMATS[format], bad_records, schema, position)


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


def discard(target: Path) -> None:
    """Remove what there is of an unfinished output.

    Raises:
        RunError: If another run is writing it, or it is a link.
    """
    path = unfinished_path(target)
    _refuse_link(path)
    if path.exists() or _published(path).exists():
        with _locked(path):
            remove(path)
            _remove_published(path)


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
