"""The end of `accelerate launch` becomes that of the processes that it started. Imports nothing that takes time."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_the_launcher() -> None:
    """Have SIGTERM sent to this process when `accelerate launch` dies, which forwards no signal to a single process.

    Otherwise training would go on where nobody sees it, and a requeued job would find its run folder locked.
    """
    if sys.platform != "linux" or "ACCELERATE_MIXED_PRECISION" not in os.environ:  # which the launcher always sets
        return
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != launcher:  # it died in between
        os.kill(os.getpid(), signal.SIGTERM)
