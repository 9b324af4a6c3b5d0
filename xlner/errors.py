"""What can go wrong, told to a person: the place, what was found, what is expected, the way out.

Launch scripts and the command line print the message alone and end with status 2; in Python it is raised.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class XlnerError(Exception):
    """Anything that the user can mend; the message is all there is to know, the hint says where there is more."""

    hint = ""

    def told(self) -> str:
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
