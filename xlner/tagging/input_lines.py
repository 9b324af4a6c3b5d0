"""The lines of a stream of bytes, one at a time: for texts and JSON records, also from the standard input.

Lines come as soon as they are there, empty ones too: each is a record. `data/lines.py` reads files in blocks.
"""

from collections.abc import Callable, Iterator
from io import BufferedReader, TextIOWrapper
from typing import BinaryIO

from xlner.data.lines import half_of_utf_16, is_utf_8, likely_encoding, other_content
from xlner.data.problems import CorpusProblem, Report
from xlner.errors import CorpusError

LONGEST_LINE = 10_000_000  # characters: a book is a record, a file without line ends would fill the memory


def read_input_lines(
    source: BinaryIO, place: Callable[[int], str], encoding: str, report: Report, n_done: int = 0
) -> Iterator[tuple[int, str]]:
    """Lines without their ends, with their numbers from 1.

    Args:
        source: Is read to its end, and closed.
        place: Tells a line number to a person.
        encoding: Of the text; a byte order mark at the start of UTF-8 is dropped.
        report: Gets each line that is too long or not of this encoding; if it returns, the line is left out.
        n_done: So many lines are passed over without a look.

    Raises:
        CorpusError: If there is no such encoding, or one of two-byte units is broken.
    """
    try:
        beginning = source.peek(2)[:8] if isinstance(source, BufferedReader) else b""
        if what := other_content(beginning):
            raise CorpusError(f"{place(1)}: this is no text but {what}")
        if half := half_of_utf_16(beginning.decode("latin-1")) if is_utf_8(encoding) else "":
            raise CorpusError(f"{place(1)}: every other byte is zero; is it {half}? then give --encoding {half}")
        codec = "utf-8-sig" if is_utf_8(encoding) else encoding
        # A byte that does not decode becomes a surrogate, and so is found in its own line.
        with TextIOWrapper(source, encoding=codec, errors="surrogateescape", newline="") as lines:
            number, before = 0, ""
            while line := lines.readline(LONGEST_LINE + 1):
                # The second half of CR CR LF, or of LF CR.
                is_half = (line == "\r\n" and before[-1:] == "\r") or (
                    line == "\r" and before[-1:] == "\n" and before[-2:] != "\r\n"
                )
                before = line
                if is_half:
                    continue
                number += 1
                is_too_long, rest = len(line) > LONGEST_LINE and line[-1] not in "\r\n", line
                while is_too_long and rest and rest[-1] not in "\r\n":
                    rest = lines.readline(LONGEST_LINE)
                if number <= n_done:
                    continue
                if is_too_long:
                    message = f"a line of more than {LONGEST_LINE:,} characters; expected a text or record a line"
                    report(CorpusProblem("XL002", place(number), message, "the line is left out"))
                    continue
                text = line.rstrip("\r\n")
                broken = "" if text.isascii() else next((char for char in text if "\udc80" <= char <= "\udcff"), "")
                if broken:
                    byte = ord(broken) - 0xDC00
                    likely = likely_encoding(beginning[:2], byte)
                    message = f"byte 0x{byte:x} is not {encoding}; is it {likely}? then give --encoding {likely}"
                    report(CorpusProblem("XL001", place(number), message, "the line is left out"))
                    continue
                yield number, text
    except LookupError:
        raise CorpusError(f"unknown encoding {encoding!r}; expected one such as utf-8 or latin-1") from None
    except UnicodeError as problem:
        raise CorpusError(
            f"{place(1)}: the text is not {encoding} ({problem}); give its own, as in --encoding latin-1"
        ) from None
    except OSError as problem:
        raise CorpusError(f"{place(1)}: cannot be read: {problem.strerror or problem}") from problem
