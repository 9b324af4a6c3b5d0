"""Members of archives, read one by one by their expected name; nothing is unpacked to where an archive says."""

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import IO

from xlner.errors import CorpusError

LARGEST_MEMBER = 1 << 30  # bytes; the largest here has some 20 million


def zip_names(path: Path) -> list[str]:
    """The names of all members of a zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile) as problem:
        raise CorpusError(f"{path}: no readable zip file: {problem}") from problem


def zip_member(path: Path, name: str) -> bytes:
    """A member of a zip file.

    Raises:
        CorpusError: If the archive is broken or has no such member.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as member:
            return _limited(member, f"{path}:{name}")
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as problem:
        raise CorpusError(f"{path}: {name} cannot be read from this zip file: {problem}") from problem


def tar_members(source: IO[bytes], place: str, names: Collection[str]) -> dict[str, bytes]:
    """The regular files of a tar or tar.gz whose last part of the path is one of these names.

    Raises:
        CorpusError: If the archive is broken.
    """
    found = {}
    try:
        with tarfile.open(fileobj=source) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                content = archive.extractfile(member) if name in names and member.isfile() else None
                if content is not None:
                    found[name] = _limited(content, f"{place}:{member.name}")
    except (OSError, EOFError, tarfile.TarError, zlib.error) as problem:
        raise CorpusError(f"{place}: no readable tar archive: {problem}") from problem
    return found


def file_bytes(path: Path) -> bytes:
    """A whole file, unpacked if its name ends with `.gz`.

    Raises:
        CorpusError: If it cannot be read or unpacked.
    """
    try:
        with path.open("rb") as file:
            return _limited(gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file, str(path))
    except (OSError, EOFError, zlib.error) as problem:
        raise CorpusError(f"{path}: cannot be read: {problem}") from problem


def _limited(file: IO[bytes] | gzip.GzipFile, place: str) -> bytes:
    content = file.read(LARGEST_MEMBER + 1)
    if len(content) > LARGEST_MEMBER:
        raise CorpusError(f"{place}: more than {LARGEST_MEMBER:,} bytes; expected a file of a corpus")
    return content
