"""SIGINT and SIGTERM as a request that the training loop honours at the end of a step."""

import signal
import threading
from types import FrameType, TracebackType


class StopRequest:
    """While entered, the first SIGINT or SIGTERM sets `requested`; a second one ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self.exit_status = 0
        self._before: dict[int, signal.Handlers | int | None] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # the only one in which Python allows handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.exit_status = 128 + number
        signal.signal(number, signal.SIG_DFL)
