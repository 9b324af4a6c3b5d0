"""SIGTERM, which schedulers send before they take a machine away, as an exception like that of Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


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
