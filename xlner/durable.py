"""Folders that are whole or not there: written beside, flushed, listed in a manifest, renamed into place.

The manifest holds size and SHA-256 of each file, so that a file that was cut short, changed or swapped is found and
named. It guards against accidents, not against someone who can write a manifest.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

MANIFEST_FILE = "manifest.json"
FORMAT = 1

Files = Mapping[str, tuple[int, str]]


def describe(folder: Path, names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Size in bytes and SHA-256 of files."""
    return {name: ((folder / name).stat().st_size, _sha256(folder / name)) for name in sorted(names)}


def damage(folder: Path, files: Files) -> str:
    """What is wrong with the first file that is not as it was described; empty if all are.

    Raises:
        OSError: If a file cannot be read.
    """
    for name, (size, digest) in files.items():
        path = folder / name
        if Path(name).name != name:
            return f"{folder / MANIFEST_FILE}: lists {name!r}; expected plain file names"
        if path.is_symlink() or not path.is_file():
            return f"{path}: missing"
        if (found := path.stat().st_size) != size:
            return f"{path}: found {found:,} bytes, the manifest says {size:,}"
        if _sha256(path) != digest:
            return f"{path}: not the file that was written, its SHA-256 differs"
    return ""


@contextmanager
def published_folder(target: Path) -> Iterator[Path]:
    """A folder to write plain files into; it becomes `target` when all of them are on the disk, with a manifest.

    Args:
        target: Not there yet.

    Raises:
        OSError: If the disk refuses; then nothing is left of it.
    """
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        if unfinished.exists():
            shutil.rmtree(unfinished)  # of a process that was killed
        unfinished.mkdir(parents=True)
        yield unfinished
        content = {"format": FORMAT, "files": describe(unfinished, os.listdir(unfinished))}
        # Without a line end: so the loss of any byte is noticed.
        (unfinished / MANIFEST_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
        umask = os.umask(0)
        os.umask(umask)
        for path in unfinished.iterdir():
            os.chmod(path, 0o666 & ~umask)  # safetensors writes 0600 whatever the umask; others could not read it
            flush(path)
        flush(unfinished)
        os.rename(unfinished, target)
        flush(target.parent)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(unfinished)
        raise


def remove_folder(folder: Path) -> None:
    """Remove what `published_folder` made; nothing else. A process that is killed meanwhile leaves no half of it.

    Raises:
        OSError: If the disk refuses.
    """
    if folder.is_symlink() or not (folder / MANIFEST_FILE).is_file():
        return
    doomed = folder.with_name(f".{folder.name}.removed")
    if doomed.exists():
        shutil.rmtree(doomed)
    os.rename(folder, doomed)
    shutil.rmtree(doomed)


def folder_damage(folder: Path) -> str:
    """What is wrong with a folder that `published_folder` made; empty if it is whole."""
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return f"{path}: found format {content['format']}, expected {FORMAT}"
        files = {name: (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
        if unlisted := sorted({*os.listdir(folder)} - {*files, MANIFEST_FILE}):
            return f"{folder / unlisted[0]}: not in the manifest"
        return damage(folder, files)
    except FileNotFoundError:
        return f"{path}: missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        return f"{path}: cannot be read ({problem})"


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk, also where the power goes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
