"""What can go wrong, told to a person: the place, what was found, what is expected, the way out.

What stems from other people's files is shown as what it is where it goes to a terminal, a table or Markdown.
"""

import re
import signal
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class XlnerError(Exception):
    """Anything that the user can mend; the message is all there is to know, the hint says where there is more.

    The command line prints it alone and ends with status 2; in Python it is raised.
    """

    hint = ""

    def as_text(self) -> str:
        """Message and hint, as the command line prints them."""
        return "\n".join(filter(None, [str(self), self.hint]))


class RecipeError(XlnerError):
    """A recipe or a `key=value` that does not fit the schema."""


class CorpusError(XlnerError):
    """A corpus that cannot be read, or holds what it must not."""


class LabelError(XlnerError):
    """Tags or label sets that do not fit each other."""


class ModelError(XlnerError):
    """A folder or name that is no usable model or encoder."""


class SoftLabelError(XlnerError):
    """Stored soft labels that belong to another teacher or another text."""


class RunError(XlnerError):
    """A run folder that is in use, finished, or made by another recipe."""


class StoppedError(XlnerError):
    """The run was asked to stop (Ctrl-C or SIGTERM) and has saved what it had.

    `exit_status` is 130 after SIGINT and 143 after SIGTERM, as shells and schedulers expect.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


# SIGTERM, which schedulers send before they take a machine away, as an exception like that of Ctrl-C.


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


def exit_status(stop: KeyboardInterrupt) -> int:
    """What shells and schedulers expect of a process that a signal ended: 143 after SIGTERM, 130 after SIGINT."""
    return 143 if isinstance(stop, Terminated) else 130


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """While entered, SIGTERM raises `Terminated` where the main thread is; a second one ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    with _at_sigterm(stop):
        yield


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """While entered, SIGTERM ends the process at once: for calls that wait outside Python, and nothing to save."""
    with _at_sigterm(signal.SIG_DFL):
        yield


@contextmanager
def _at_sigterm(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread alone
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# What the disk refuses.


GOES_ON = "; the same command goes on from what has been saved"


@contextmanager
def disk_errors(path: Path, way_out: str = GOES_ON) -> Iterator[None]:
    """Tell an error of the disk, as when it is full, by the file that was to be written.

    Args:
        path: The file.
        way_out: Behind the reason.

    Raises:
        RunError: In place of an OSError.
    """
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise RunError(f"{path}: cannot be written: {reason}{way_out}") from problem


# Text of others on its way to a terminal, into Markdown or a table: shown as what it is, with no effect there.
#
# Names of labels, corpora and settings come from models and files that anybody may have written.


_SURROGATE = re.compile("[\ud800-\udfff]")
# Control characters, invisible ones that turn the direction of text, line ends, and halves of surrogate pairs.
_UNSEEN_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
# What Markdown and HTML act on inside a line; an underscore acts at the edge of a word alone.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|&@~$#!]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def first_line(problem: BaseException) -> str:
    """What an error says first; its kind, if it says nothing."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def has_half_characters(text: str) -> bool:
    """Whether a text holds halves of surrogate pairs, which JSON can escape and nothing can write."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def is_visible(text: str) -> bool:
    """Whether a text holds no character that a terminal acts upon or that nobody sees."""
    return not any(unicodedata.category(char) in _UNSEEN_CATEGORIES for char in text)


def for_terminal(text: str) -> str:
    """A name with what a terminal would act upon written as Python writes it."""
    if is_visible(text):
        return text
    return "".join(char if is_visible(char) else ascii(char)[1:-1] for char in text)


def lines_for_terminal(text: str) -> str:
    """As `for_terminal`, of a message whose line ends stay."""
    return "\n".join(map(for_terminal, text.split("\n")))


def for_markdown(text: str) -> str:
    """A name as Markdown that shows just this name: no markup, no HTML, no link, no cell of a table."""
    return _MARKDOWN.sub(r"\\\g<0>", for_terminal(text))


def as_code(text: str) -> str:
    """A name as code in Markdown, within a table as well."""
    shown = for_terminal(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def for_csv(text: str) -> str:
    """A name that spreadsheets take for text: an apostrophe stands before what they would compute."""
    return f"'{text}" if text.startswith(_FORMULA) else text
