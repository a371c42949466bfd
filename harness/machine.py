"""What this machine is."""

import ctypes
import functools
import platform
from pathlib import Path

MALLOPT_TRIM_THRESHOLD, MALLOPT_MMAP_THRESHOLD = -1, -3
"""The parameters' numbers in glibc's malloc.h."""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU can be used here, as far as its driver's files tell: asking torch would cost seconds."""
    return Path("/dev/nvidiactl").exists()


@functools.cache
def cpu_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next step; gives whether the C library can (glibc's can).

    By default glibc gives it back after every step of training, and each page is then faulted in anew: 6 to 26 % of the
    median step of `replknet_nano` on an AMD EPYC (n = 30 steps, twice, K=3 and 31), at the same peak.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    largest = 2**31 - 1
    return mallopt is not None and all(
        mallopt(parameter, largest) == 1 for parameter in (MALLOPT_TRIM_THRESHOLD, MALLOPT_MMAP_THRESHOLD)
    )
