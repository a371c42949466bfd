"""What this machine is."""

import ctypes
import functools
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

MALLOPT_TRIM_THRESHOLD, MALLOPT_MMAP_THRESHOLD = -1, -3
"""The parameters' numbers in glibc's malloc.h."""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU can be used here, as far as its driver's files tell: asking torch would cost seconds."""
    return Path("/dev/nvidiactl").exists()


def available_cpus() -> int:
    """The processors that this process may use: those of its affinity, or fewer by the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.floor(quota + 0.01)))


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Processors' worth of time that a control group grants this process (containers); None for no limit.

    Version 2: `cpu.max` of the group and of those above it; version 1: `cpu.cfs_quota_us`.
    """
    return min(filter(None, (*_quotas_v2(root, own), _quota_v1(root))), default=None)


def _quotas_v2(root: Path, own: Path) -> Iterator[float | None]:
    try:
        line = next(line for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    group = root / line.removeprefix("0::").lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        yield _ratio(folder / "cpu.max")


def _quota_v1(root: Path) -> float | None:
    return _ratio(root / "cpu" / "cpu.cfs_quota_us", root / "cpu" / "cpu.cfs_period_us")


def _ratio(*paths: Path) -> float | None:
    """Quota over period, from one file or two; None where there is no limit, or nothing can be read."""
    try:
        quota, period = (number for path in paths for number in path.read_text().split())
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


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
