"""SIGINT and SIGTERM as a request that the training loop honours at the end of a step, or of an evaluation batch.

Beside it, how the end of one process becomes that of all.
"""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn


class Interrupted(Exception):  # noqa: N818 - no error
    """An evaluation was left before its end, since the run shall stop; in all processes, or within one of them."""


LOST_PROCESS = "another process of the run has ended; its own message tells why"


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

    @contextmanager
    def leaves(self, model: nn.Module) -> Iterator[None]:
        """While entered, the next batch that the model shall see raises `Interrupted` if a stop was requested."""

        def look(module: nn.Module, inputs: object) -> None:
            if self.requested:
                raise Interrupted

        # A wrapper around the model that is evaluated may leave its own forward out.
        handles = [module.register_forward_pre_hook(look) for module in (model, *model.children())]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.exit_status = 128 + number
        for handled in self._before:
            signal.signal(handled, signal.SIG_DFL)


def is_lost_process(error: BaseException) -> bool:
    """Whether an error says that another process of the run has gone, as gloo and NCCL tell it; no mere long wait."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return False
    if re.search(r"time(d)? ?-?out", str(error), re.IGNORECASE):
        return False
    gloo = isinstance(error, RuntimeError) and re.search(r"Connection (closed|reset) by peer|Broken pipe", str(error))
    return bool(gloo) or isinstance(error, dist.DistError)


def summed(accelerator: Accelerator, size: int, job: Callable[[], Tensor]) -> Tensor:
    """Add up what the processes find in their shares of an evaluation, (size,); every process calls it.

    Raises:
        Interrupted: In all of them, if any of them was interrupted, so that none waits for another.
    """
    found = torch.zeros(size + 1, dtype=torch.float64, device=accelerator.device)
    try:
        found[1:] = job()
    except Interrupted:
        found[0] = 1.0
    total: Tensor = accelerator.reduce(found, "sum")
    if total[0]:
        raise Interrupted
    return total[1:]
