"""Properties of this machine: processors and their features, GPUs, and the memory allocator."""

import ctypes
import functools
import math
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

FEATURES = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimd", "asimdhp", "asimddp", "sve", "sve2", "bf16", "i8mm"),
)
"""Flags of /proc/cpuinfo by which PyTorch, oneDNN and LLVM choose instructions."""
CPUINFO = Path("/proc/cpuinfo")
GPUS = Path("/proc/driver/nvidia/gpus")
MIG = Path("/proc/driver/nvidia/capabilities")


MALLOPT_TRIM_THRESHOLD, MALLOPT_MMAP_THRESHOLD = -1, -3
"""The parameters' numbers in glibc's malloc.h."""


def has_gpu() -> bool:
    """Whether an NVIDIA driver is loaded here, which its files show; importing torch would take seconds."""
    return Path("/dev/nvidiactl").exists()


def available_cpus() -> int:
    """Number of processors that this process may use: those of its affinity, limited by its control group's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.floor(quota + 0.01)))


def workers_that_fit(cpus: int) -> int:
    """Number of workers with this number of processors each that fit on the machine; at least one."""
    return max(1, available_cpus() // cpus)


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), group_file: Path = Path("/proc/self/cgroup")) -> float | None:
    """Processor quota of this process's control group (containers), in processors; None for no limit.

    Version 2: `cpu.max` of the group and of those above it; version 1: `cpu.cfs_quota_us`.
    """
    return min(filter(None, (*_quotas_v2(root, group_file), _quota_v1(root))), default=None)


def _quotas_v2(root: Path, group_file: Path) -> Iterator[float | None]:
    try:
        line = next(line for line in group_file.read_text().splitlines() if line.startswith("0::"))
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
    """Quota divided by period, from one file or two; None if there is no limit, or the files cannot be read."""
    try:
        quota, period = (number for path in paths for number in path.read_text().split())
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


@functools.cache
def cpu_name() -> str:
    """The processor's model name from /proc/cpuinfo, else its architecture."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def keep_freed_memory() -> bool:
    """Keep freed memory in this process for its next step; returns whether the C library supports it (glibc does).

    By default glibc returns it to the system after every training step, and each page faults again: 6 to 26 % of the
    median step of `replknet_nano` on an AMD EPYC (n = 30 steps, twice, K=3 and 31), at the same peak.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    largest = 2**31 - 1
    return mallopt is not None and all(
        mallopt(parameter, largest) == 1 for parameter in (MALLOPT_TRIM_THRESHOLD, MALLOPT_MMAP_THRESHOLD)
    )


def cpu_capability() -> str:
    """What `torch.backends.cpu.get_cpu_capability()` returns in a process of this environment."""
    flags = _cpu_flags()
    requested = os.environ.get("ATEN_CPU_CAPABILITY", "").lower()
    if requested in ("avx512", "avx2", "default"):
        return requested.upper()
    if {"avx512vl", "avx512bw", "avx512dq", "fma"} <= flags:
        return "AVX512"
    return "AVX2" if {"avx2", "fma"} <= flags else "DEFAULT"


def processor_features() -> str:
    """The features of this processor by which PyTorch, oneDNN and LLVM choose instructions, joined by `+`."""
    flags = _cpu_flags()
    return "+".join(name for name in FEATURES if name in flags) or platform.machine()


@functools.cache
def gpu_name() -> str | None:
    """The GPUs' model name according to their driver; None if they differ or are partitioned (MIG)."""
    if any(MIG.glob("gpu*/mig/gi*")):
        return None
    texts = [path.read_text() for path in GPUS.glob("*/information")]
    names = {match.group(1).strip() for text in texts if (match := re.search(r"^Model:\s*(.+)$", text, re.MULTILINE))}
    return names.pop() if len(names) == 1 else None


@functools.cache
def _cpu_flags() -> frozenset[str]:
    return frozenset(_cpuinfo("flags|Features").split())


def _cpuinfo(key: str) -> str:
    """The first value of a key, a regular expression, in /proc/cpuinfo; empty if there is none."""
    try:
        text = CPUINFO.read_text()
    except OSError:
        return ""
    match = re.search(rf"^(?:{key})\s*:(.*)$", text, re.MULTILINE)
    return match.group(1).strip() if match else ""
