"""Files that are whole or not there, and are found out where they are not what was written.

What replaces another file is written beside it, flushed to the disk, and renamed. Digests guard against accidents, not
against someone who can write files here.
"""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlner.errors import disk_errors

_DIGEST_KEY = "sha256"


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk, also where the power goes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace a small file as a whole, or not at all; only one process at a time writes it.

    Raises:
        RunError: If the disk refuses.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    with disk_errors(path):
        unfinished.write_text(text, encoding="utf-8")
        flush(unfinished)
        unfinished.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a small file of JSON that `read_json` checks; as `write_text`."""
    write_text(path, json.dumps({**content, _DIGEST_KEY: json_digest(content)}, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not what was written; with the path.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content.pop(_DIGEST_KEY)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"{path}: is cut short, changed, or of another version of xlner") from problem
    if digest != json_digest(content):
        raise ValueError(f"{path}: not the file that was written, its SHA-256 differs")
    return content  # type: ignore[no-any-return]


def json_digest(content: Any) -> str:
    """SHA-256 of anything that JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path, n_bytes: int | None = None) -> str:
    """SHA-256 of a file, or of its first bytes; read once in a process, as long as size and time stay the same.

    Raises:
        OSError: If it cannot be read.
    """
    stat = path.stat()
    return _digest(path, stat.st_size if n_bytes is None else n_bytes, stat.st_mtime_ns, stat.st_ino)


@functools.cache
def _digest(path: Path, n_bytes: int, changed: int, inode: int) -> str:
    """The digest of the first bytes; the last two arguments tell one state of a file from another."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with path.open("rb") as file:
        while n_bytes > 0 and (n_read := file.readinto(buffer[: min(n_bytes, len(buffer))])):
            digest.update(buffer[:n_read])
            n_bytes -= n_read
    return digest.hexdigest()
