"""How the C library hands out memory to training on a CPU."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_large_blocks() -> None:
    """Let freed blocks stay with the process instead of going back to the system after each step.

    glibc maps blocks above 32 MB afresh each time they are asked for, and the kernel clears every page of them; the
    gradient of an embedding matrix is such a block, once a step. `benchmarks/allocation.py` measures what it costs.
    Elsewhere than on Linux with glibc this does nothing.
    """
    if sys.platform != "linux":
        return
    mallopt = ctypes.CDLL(None).mallopt if hasattr(ctypes.CDLL(None), "mallopt") else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
