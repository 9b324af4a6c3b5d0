"""Files and folders that are whole or not there, and are found out where they are not what was written.

What replaces another is written beside it, flushed to the disk, and renamed. What a killed process leaves is removed by
the next one that writes the same. Digests guard against accidents, not against someone who can write files here.
"""

import errno
import functools
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xlner.errors import CorpusError, RunError, disk_errors

RUNS = Path("runs")  # where runs lie that no recipe puts elsewhere, and what they share
MANIFEST_FILE = "manifest.json"
FORMAT = 1  # of manifests
Files = Mapping[str, tuple[int, str]]

_DIGEST_KEY = "sha256"
_LONGEST_NAME = 255  # bytes, on nearly all file systems
_NUMBERS = itertools.count()
_MARK = re.compile(r"([\w-]*)@(\d+)-\d+\.(?:unfinished|published|lock)(?=\.|$)")


@functools.cache
def shipped(name: str) -> Path:
    """Where a file or folder is that lies beside the package in a clone, and within it where it was installed."""
    package = Path(__file__).parent
    return next((path for path in (package / name, package.parent / name) if path.exists()), package / name)


@contextmanager
def replaced(path: Path, check_folder: Callable[[Path], None] | None = None, *, way_out: str = "") -> Iterator[Path]:
    """A hidden path beside `path` to write a file or folder to; it takes the place of `path` in the end.

    A link stays a link: what it points to is replaced. A file that is replaced keeps its mode. A device or a pipe is
    written into, once all is written.

    Args:
        path: A file; a folder where `check_folder` is given.
        check_folder: Refuses, by an error, a folder that must not be replaced.
        way_out: What an error says beside the reason.

    Raises:
        RunError: If the disk refuses; then what was there is as it was.
    """
    if is_special(path):
        with disk_errors(path, way_out), tempfile.TemporaryDirectory() as place:
            yield Path(place, "written")
            if Path(place, "written").is_dir():
                raise RunError(f"{path}: is a device or a pipe; expected a folder to write, or nothing")
            with Path(place, "written").open("rb") as content, path.open("wb") as out:
                shutil.copyfileobj(content, out)
        return
    target = Path(os.path.realpath(path))
    with disk_errors(path, way_out):
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_up(target)
        if target.is_dir() and check_folder is None:
            raise RunError(f"{path} is a folder; expected a file there, or nothing")
        if target.is_file() and check_folder is not None:
            raise RunError(f"{path}: is a file; expected a folder to write, or nothing")
        if check_folder is not None and target.is_dir():
            check_folder(target)
        unfinished = private_path(target)
        try:
            yield unfinished
            _make_readable(unfinished, target)
            flush_all(unfinished)
            _exchange(unfinished, target)
            flush(target.parent)
        except RunError as problem:  # of what writes into it by this function in turn
            if str(unfinished) not in str(problem):
                raise
            raise RunError(str(problem).replace(str(unfinished), str(path))) from problem
        finally:
            with suppress(OSError):  # what went wrong before matters more
                remove(unfinished)


def check_writable(path: Path) -> None:
    """Refuse a place where nothing can be written, before the work whose result belongs there; nothing is left there.

    Raises:
        RunError: With the reason of the disk.
    """
    if is_special(path):
        return
    target = Path(os.path.realpath(path))
    with disk_errors(path, ""):
        there = next(folder for folder in target.parents if os.path.lexists(folder))
        trial = private_path(there / target.relative_to(there).parts[0])
        trial.touch()
        trial.unlink()


def refuse_own_input(target: Path, sources: Iterable[str | Path], option: str) -> None:
    """Refuse to write over what is read, also by another name of it.

    Args:
        target: What is to be written.
        sources: What is read; what is no path of this machine is none of it.
        option: That names the target.

    Raises:
        CorpusError: If one is the other.
    """
    for source in sources if target.exists() else ():
        if os.path.exists(source) and os.path.samefile(target, source):
            raise CorpusError(f"{option} {target}: this is the input {source} itself; give the output another name")


def private_path(target: Path) -> Path:
    """A hidden path beside a target that is no other process' on any machine; `remove_unfinished` knows it."""
    return _beside(target, f"{_host()}@{os.getpid()}-{next(_NUMBERS)}.unfinished")


def is_special(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder: a device, a pipe, a socket."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _exchange(unfinished: Path, target: Path) -> None:
    """Put what is finished into its place; for a folder that takes two steps, of which `_clear_up` takes back one."""
    if not target.is_dir():
        unfinished.replace(target)
        return
    old = _beside(target, "replaced")
    remove(old)  # a link, if anything
    target.rename(old)
    try:
        unfinished.rename(target)
    except OSError:
        old.rename(target)
        raise
    remove(old)


def _clear_up(target: Path) -> None:
    """Remove what killed processes left of tries to write a target; a folder that was moved aside is put back."""
    old = _beside(target, "replaced")
    if old.is_dir() and not old.is_symlink():
        if target.exists():
            remove(old)
        else:
            old.rename(target)
    for path, host, pid in _unfinished_of(target):
        if host == _host() and not _is_running(pid):
            remove(path)


def remove_unfinished(targets: Iterable[Path]) -> None:
    """Remove what is left of any try to write these; only who keeps all others out may call it, on any machine.

    Raises:
        RunError: If the disk refuses.
    """
    _unfinished_in.cache_clear()
    for target in targets:
        with disk_errors(target, ""):
            for path, _, _ in _unfinished_of(target) if target.parent.is_dir() else ():
                remove(path)


def _unfinished_of(target: Path) -> list[tuple[Path, str, int]]:
    """The paths that `replaced` gave beside a target, with the machine and process that they were given to."""
    stem = _beside(target, "").name
    return [(target.parent / name, host, pid) for name, host, pid in _unfinished_in(target.parent).get(stem, ())]


@functools.cache
def _unfinished_in(folder: Path) -> dict[str, list[tuple[str, str, int]]]:
    """The same for a whole folder, by stem, as it was when this process first looked: it may hold millions of files."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    for name in os.listdir(folder):
        if marks := list(_MARK.finditer(name)):
            # What is unfinished may be replaced within itself: a further mark behind, and a further dot before.
            stem = name[len(marks) - 1 : marks[0].start()]
            found.setdefault(stem, []).append((name, marks[-1][1], int(marks[-1][2])))
    return found


def _beside(target: Path, ending: str) -> Path:
    """The hidden path `.NAME.ENDING` beside a target; a hash stands for a name that would get too long."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(target))
    if len(os.fsencode(name)) > _LONGEST_NAME - 100:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return target.with_name(f".{name}.{ending}")


def _host() -> str:
    return "".join(char if char.isalnum() else "-" for char in socket.gethostname())[:40]


def _is_running(pid: int) -> bool:
    """Whether there is a process of that number on this machine; where that cannot be told, yes."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _make_readable(written: Path, target: Path) -> None:
    """The mode of what is replaced, or that of new files: safetensors writes 0600, which other users could not read."""
    umask = os.umask(0)
    os.umask(umask)
    if target.exists():
        written.chmod(stat.S_IMODE(target.stat().st_mode))
    for path in written.rglob("*") if written.is_dir() else ():
        if path.is_file():
            path.chmod(0o666 & ~umask)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; of a link the link alone, since what lies behind was not made here."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk, also where the power goes."""
    if os.name == "nt" and path.is_dir():
        return  # there is no such call
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(path: Path) -> None:
    """The same for a file, or for a folder and all in it."""
    if path.is_dir():
        for inner in path.rglob("*"):
            flush(inner)
    flush(path)


def write_text(path: Path, text: str, *, way_out: str = "") -> None:
    """Replace a small file as a whole, or not at all; as `replaced`."""
    with replaced(path, way_out=way_out) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def append_line(path: Path, line: str, *, way_out: str = "") -> None:
    """Append a line, or several; what a killed process or a power cut left of another one is dropped first.

    Raises:
        RunError: If the disk refuses; then nothing is left of it.
    """
    # Without a buffer, which would be written once more when the file is closed.
    with disk_errors(path, way_out), path.open("ab+", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                end = file.truncate(len(_whole_lines(path)))
        left = memoryview(f"{line}\n".encode())
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            with suppress(OSError):
                file.truncate(end)
            raise


def read_lines(path: Path) -> list[str]:
    """The lines of a file that `append_line` wrote, without a torn last one; none where there is no file."""
    if not path.is_file():
        return []
    return _whole_lines(path).decode(errors="replace").split("\n")[:-1]


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


@contextmanager
def locked(path: Path, taken: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file against other processes, also of machines that share the disk.

    Args:
        path: `.NAME.lock` in a folder that is there; it is made, and removed at the end. An error tells NAME.
        taken: Called if another process has it: raises, or it is waited for.

    Raises:
        RunError: If the disk refuses.
    """
    import filelock  # not in the small install, which only reads

    lock = filelock.FileLock(path, thread_local=False)
    kept = path.name.removesuffix(".lock").removeprefix(".")  # empty where a whole folder is
    with disk_errors(path.with_name(kept) if kept else path.parent, ""):
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            taken()
            lock.acquire()
    try:
        yield
    finally:
        # While it is held: whoever takes an unlinked file is told so by `filelock`, and begins anew.
        with suppress(OSError):
            path.unlink()
        lock.release()


@contextmanager
def published_folder(target: Path) -> Iterator[Path]:
    """A folder to write plain files into; it becomes `target` when all of them are on the disk, with a manifest.

    Args:
        target: Not there yet; one process at a time makes it.

    Raises:
        OSError: If the disk refuses; then nothing is left of it.
    """
    unfinished = _beside(target, "unfinished")
    try:
        remove(unfinished)  # of a process that was killed
        unfinished.mkdir(parents=True)
        yield unfinished
        content = {"format": FORMAT, "files": describe(unfinished, os.listdir(unfinished))}
        # Without a line end: so the loss of any byte is noticed.
        (unfinished / MANIFEST_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
        _make_readable(unfinished, target)
        flush_all(unfinished)
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
    doomed = _beside(folder, "removed")
    remove(doomed)
    os.rename(folder, doomed)
    shutil.rmtree(doomed)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove what killed processes left of `published_folder` and `remove_folder`; only its owner may call it.

    Args:
        folder: In which they worked.
        pattern: Of the names of their targets, as in `step-*`.

    Raises:
        RunError: If the disk refuses.
    """
    for ending in ("unfinished", "removed"):
        for path in folder.glob(f".{pattern}.{ending}"):
            with disk_errors(path, ""):
                remove(path)


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
        if links := [path for path in folder.iterdir() if path.is_symlink()]:
            return f"{links[0]}: is a link"  # what lies behind was not written here
        return damage(folder, files)
    except FileNotFoundError:
        return f"{path}: missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        return f"{path}: cannot be read ({problem})"


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
        if not path.is_file():
            return f"{path}: missing"
        if (found := path.stat().st_size) != size:
            return f"{path}: found {found:,} bytes, the manifest says {size:,}"
        if _sha256(path) != digest:
            return f"{path}: not the file that was written, its SHA-256 differs"
    return ""


def _sha256(path: Path) -> str:
    """Read anew each time: a checkpoint is read back to see whether the disk holds it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


# JSON that any reader takes: numbers that are none, which Python would write as `NaN` or `Infinity`, become null.


def to_json(
    content: object,
    *,
    indent: int | None = None,
    ascii_only: bool = False,
    default: Callable[[Any], object] | None = None,
) -> str:
    """A value as JSON text.

    Args:
        content: Of what JSON has: texts, numbers, truth values, None, lists and tuples, mappings.
        indent: As for `json.dumps`.
        ascii_only: Whether all other characters are escaped.
        default: Makes something of what JSON lacks, as for `json.dumps`.
    """
    try:
        return json.dumps(content, indent=indent, ensure_ascii=ascii_only, default=default, allow_nan=False)
    except ValueError:  # such a number: rare, so that nothing is looked through before
        finite = _finite(content, default)
        return json.dumps(finite, indent=indent, ensure_ascii=ascii_only, default=default, allow_nan=False)


def _finite(content: object, default: Callable[[Any], object] | None) -> object:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        # A key that is such a number has no null to become; its name is text anyway.
        return {str(key) if isinstance(key, float) else key: _finite(value, default) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value, default) for value in content]
    if content is None or isinstance(content, str | int) or default is None:
        return content
    return _finite(default(content), default)
