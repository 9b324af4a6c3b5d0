"""Text files a chunk at a time: encodings, byte order marks, line ends and limits.

A line ends at LF, CRLF or CR and at nothing else: a word may hold U+2028 or U+0085, where `str.splitlines`
would cut.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from xlner.data.problems import CorpusProblem, Report, refuse
from xlner.errors import CorpusError

CHUNK_SIZE = 1 << 18  # characters, or bytes in the search for a broken one
LONGEST_LINE = 1_000_000  # characters; a file without line ends would fill the memory
# What `surrogateescape` makes of bytes that do not decode.
_BROKEN = re.compile("[\udc80-\udcff]")


def read_chunks(path: Path, encoding: str, report: Report = refuse) -> Iterator[str]:
    """The text of a file in pieces that end at line ends, with LF alone as the line end.

    A `report` that returns gets each broken byte of UTF-8, which is then read as cp1252.

    Raises:
        CorpusError: If the file cannot be opened or decoded, or has a line longer than `LONGEST_LINE`.
    """
    rest, line = "", 1
    is_utf8 = _is_utf8(encoding)
    # Bytes are repaired in a second reading only: checking each chunk for them would slow down all others.
    errors = "surrogateescape" if is_utf8 and report is not refuse else "strict"
    try:
        with path.open(encoding="utf-8-sig" if is_utf8 else encoding, errors=errors) as file:
            while chunk := file.read(CHUNK_SIZE):
                if errors != "strict" and not chunk.isascii():
                    chunk = _mend(chunk, path, line + rest.count("\n"), report)
                end = chunk.rfind("\n") + 1
                if not end:
                    rest += chunk
                    if len(rest) > LONGEST_LINE:
                        raise _too_long(path, line)
                    continue
                text = rest + chunk[:end]
                rest = chunk[end:]
                yield text
                line += text.count("\n")
    except UnicodeError:
        raise CorpusProblem("XL001", *_undecodable(path, encoding)) from None
    except OSError as problem:
        raise CorpusError(f"{path}: cannot be read: {problem.strerror}") from problem
    if rest:
        yield rest


def read_lines(path: Path, encoding: str, report: Report = refuse) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, from 1, and without their ends; otherwise as `read_chunks`."""
    n_before = 0
    for text in read_chunks(path, encoding, report):
        lines = text.removesuffix("\n").split("\n")
        yield from enumerate(lines, n_before + 1)
        n_before += len(lines)


def _too_long(path: Path, line: int) -> CorpusProblem:
    message = f"a line of more than {LONGEST_LINE:,} characters; expected one word or one sentence a line"
    return CorpusProblem("XL002", f"{path}:{line}", message)


def _mend(chunk: str, path: Path, line: int, report: Report) -> str:
    """The chunk with its broken bytes read as cp1252, each line that has some reported."""
    first_of_line = dict[int, int]()
    for match in _BROKEN.finditer(chunk):
        first_of_line.setdefault(chunk.count("\n", 0, match.start()), ord(match.group()) - 0xDC00)
    for number, byte in first_of_line.items():
        message = f"byte 0x{byte:02x} is not utf-8; the line is of another encoding than the file"
        report(CorpusProblem("XL001", f"{path}:{line + number}", message, "such bytes are read as cp1252"))
    return _BROKEN.sub(_as_cp1252, chunk) if first_of_line else chunk


def _as_cp1252(match: re.Match[str]) -> str:
    byte = bytes([ord(match.group()) - 0xDC00])
    try:
        return byte.decode("cp1252")
    except UnicodeDecodeError:  # five bytes that cp1252 does not use
        return byte.decode("latin-1")


def _is_utf8(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding).name == "utf-8"
    except LookupError:
        raise CorpusError(f"corpus.encoding is {encoding!r}; expected one such as utf-8, latin-1 or cp1252") from None


def _undecodable(path: Path, encoding: str) -> tuple[str, str]:
    """Where the bytes stop being text of this encoding, and which other encoding they may be of."""
    decoder = codecs.getincrementaldecoder(encoding)()
    n_bytes, line, chunk = 0, 1, b"?"
    with path.open("rb") as file:
        is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        file.seek(0)
        while chunk:
            chunk = file.read(CHUNK_SIZE)
            n_pending = len(decoder.getstate()[0])
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as problem:
                before, byte = problem.object[: problem.start], problem.object[problem.start]
                # Bytes 0x80 to 0x9f are control characters in latin-1, but letters and quotes in cp1252.
                likely = "utf-16" if is_utf16 else "latin-1" if byte >= 0xA0 else "cp1252"
                return f"{path}:{line + before.count(10)}", (
                    f"byte 0x{byte:02x} at offset {n_bytes - n_pending + problem.start} is not {encoding}; is the "
                    f"file {likely}? then set corpus.encoding={likely}, or convert it: iconv -f {likely} -t utf-8"
                )
            except UnicodeError:
                break
            n_bytes += len(chunk)
    return str(path), f"the file is not {encoding}; set corpus.encoding to its encoding"
