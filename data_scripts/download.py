"""Files from the net, checked: a file appears in the cache whole and as expected, or not at all.

Where the published checksum is known, it is pinned here in code. Where it is not, the first download is trusted:
its size and SHA-256 are written to `downloads.lock.json` beside the files, and a later download that differs is
refused. Whoever keeps that file under version control gets the same bytes on every machine.
"""

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from xlner.errors import CorpusError
from xlner.files import locked, replaced, write_text

LOCK_NAME = "downloads.lock.json"
CHUNK_SIZE = 1 << 20
TIMEOUT_SECONDS = 60
LARGEST_FILE = 1 << 36  # bytes; no corpus here is near it, an endless answer would fill the disk


class Pin(NamedTuple):
    """What a file must be: its size in bytes, and its SHA-256 as hexadecimal digits."""

    size: int
    sha256: str


class RemoteFile(NamedTuple):
    """A file to have: its place in the cache, its address, and what it must be, if that is known."""

    place: str  # with forward slashes, relative to the cache
    url: str
    pin: Pin | None = None


def fetch_all(wanted: Sequence[RemoteFile], cache: Path) -> None:
    """See that all these files are in the cache, and are what they must be.

    Raises:
        CorpusError: If one cannot be had or is another than expected. No part of it stays; files that were
            complete before do.
        RunError: If the disk refuses.
    """
    for file in wanted:
        fetch(file, cache)


def fetch(file: RemoteFile, cache: Path) -> Path:
    """The path of a file in the cache, downloaded if it is not there yet; for errors see `fetch_all`."""
    path = cache.joinpath(*PurePosixPath(file.place).parts)
    try:
        noted = _read_lock(cache).get(file.url)
        pin = file.pin or noted
        if path.is_file():
            found = measure(path)
            if pin is not None:
                check(found, pin, file.url, f"{path} is not what was downloaded; remove it to download it again")
            if noted is None:
                _write_lock(cache, file.url, found)
            return path
        with replaced(path) as unfinished:
            found = _download(file.url, unfinished)
            if pin is not None:
                reason = "the published checksum" if file.pin else f"{cache / LOCK_NAME}, from an earlier download"
                check(found, pin, file.url, f"broken on the way, or changed since; expected is {reason}; {WAY_OUT}")
            if noted is None:
                _write_lock(cache, file.url, found)
    except OSError as problem:
        raise CorpusError(f"{path}: cannot be written: {problem.strerror or problem}") from problem
    return path


WAY_OUT = "try again, or download it by hand and give its folder with --source"


def _download(url: str, path: Path) -> Pin:
    """Write what the address answers, and measure it on the way."""
    request = urllib.request.Request(url, headers={"User-Agent": "xlner-data-scripts"})
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer, path.open("wb") as file:
            announced = int(answer.headers.get("Content-Length") or 0)
            name = PurePosixPath(url).name
            with tqdm(total=announced or None, unit="B", unit_scale=True, desc=name, disable=None) as bar:
                while chunk := answer.read(CHUNK_SIZE):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                    bar.update(len(chunk))
                    if size > LARGEST_FILE:
                        raise CorpusError(f"{url}: more than {LARGEST_FILE:,} bytes; is this the right address?")
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as problem:
        raise CorpusError(f"{url}: cannot be downloaded: {problem}; {WAY_OUT}") from problem
    if announced and size != announced:
        raise CorpusError(f"{url}: expected {announced:,} bytes, received {size:,}; {WAY_OUT}")
    return Pin(size, digest.hexdigest())


def measure(path: Path) -> Pin:
    """What a file is."""
    with path.open("rb") as file:
        return Pin(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def check(found: Pin, wanted: Pin, place: str, reason: str) -> None:
    """Refuse a file that is another than expected.

    Args:
        found: What it is.
        wanted: What it must be.
        place: Its address or path.
        reason: What may have happened, and the way out.

    Raises:
        CorpusError: If they differ.
    """
    if found != wanted:
        raise CorpusError(
            f"{place}: expected {wanted.size:,} bytes with SHA-256 {wanted.sha256}, found {found.size:,} bytes "
            f"with {found.sha256}; {reason}"
        )


def _read_lock(cache: Path) -> dict[str, Pin]:
    path = cache / LOCK_NAME
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {url: Pin(int(entry["size"]), str(entry["sha256"])) for url, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CorpusError(f"{path}: no list of downloads ({problem}); mend or remove it") from problem


def _write_lock(cache: Path, url: str, pin: Pin) -> None:
    with locked(cache / f".{LOCK_NAME}.lock", taken=lambda: None):  # two scripts may share a cache
        entries = {**_read_lock(cache), url: pin}
        text = json.dumps({name: entry._asdict() for name, entry in sorted(entries.items())}, indent=2) + "\n"
        write_text(cache / LOCK_NAME, text)
