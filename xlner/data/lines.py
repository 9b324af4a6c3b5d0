"""Text files as lines, a chunk at a time: encodings, byte order marks, line ends and limits.

A line ends at LF, CRLF or CR and at nothing else: a word may hold U+2028 or U+0085, where `str.splitlines`
would cut.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path

from xlner.errors import CorpusError

CHUNK_SIZE = 1 << 18  # characters, or bytes in the search for a broken one
LONGEST_LINE = 1_000_000  # characters; a file without line ends would fill the memory


def read_lines(path: Path, encoding: str) -> Iterator[list[str]]:
    """The lines of a file without their ends, in lists of some thousands.

    Raises:
        CorpusError: If the file cannot be opened or decoded, or has a line longer than `LONGEST_LINE`.
    """
    rest, n_lines = "", 0
    try:
        with path.open(encoding="utf-8-sig" if _is_utf8(encoding) else encoding) as file:
            while chunk := file.read(CHUNK_SIZE):
                *lines, rest = (rest + chunk).split("\n")
                n_lines += len(lines)
                if len(rest) > LONGEST_LINE:
                    raise CorpusError(
                        f"{path}:{n_lines + 1}: a line of more than {LONGEST_LINE:,} characters; expected "
                        "one word or one sentence a line"
                    )
                yield lines
    except UnicodeError:
        raise CorpusError(_undecodable(path, encoding)) from None
    except LookupError:
        raise CorpusError(f"corpus.encoding is {encoding!r}; expected one such as utf-8, latin-1 or cp1252") from None
    except OSError as problem:
        raise CorpusError(f"{path}: cannot be read: {problem.strerror}") from problem
    if rest:
        yield [rest]


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def _undecodable(path: Path, encoding: str) -> str:
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
                return (
                    f"{path}:{line + before.count(10)}: byte 0x{byte:02x} at offset "
                    f"{n_bytes - n_pending + problem.start} is not {encoding}; is the file {likely}? then "
                    f"set corpus.encoding={likely}"
                )
            except UnicodeError:
                break
            n_bytes += len(chunk)
    return f"{path}: the file is not {encoding}; set corpus.encoding to its encoding"
