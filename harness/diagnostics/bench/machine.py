"""The machine and the device on which the bench was run, without which its results are meaningless."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch

from harness import __version__
from harness.ops.timing import seconds_per_call
from harness.system.code_revision import code_digest, operator_digest
from harness.system.device_slot import MeasurementCounter
from harness.system.machine import available_cpus, cpu_name, processor_features
from harness.training.device import device_name
from harness.training.environment import SETTINGS

PACKAGES = ("torch", "ray", "optuna", "sqlalchemy", "numpy", "llvmlite")
BUSY_PER_CPU = 0.25
"""Load per processor above which a machine is too busy for measurements."""
PRODUCT_SIDES = {"cpu": (256, 2048), "cuda": (4096, 8192)}
"""Minimum and maximum side of the square matrices whose product measures the peak arithmetic."""
PRODUCT_S = 0.02
"""Duration from which a product is large enough."""
COPIED_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}
"""Size of the copy, too large for any cache."""
PEAK_REPEATS = 7
MEMORY_FORMATS = {"default": torch.contiguous_format, "channels_last": torch.channels_last}
"""The layouts of `base.LAYOUTS`."""


def disturbed_lines(watch: MeasurementCounter) -> Iterator[str]:
    """A warning if other work of the harness has disturbed measurements, else nothing."""
    if watch.disturbed:
        yield (
            f"Warning: in {watch.disturbed} of {watch.measurements} measurements other work of the harness computed on "
            "the device, which did not pause in time."
        )


def condition_lines(*, is_quick: bool) -> Iterator[str]:
    """The machine, the versions, and the load of the machine, as lines of text."""
    names = [("harness", __version__), ("python", platform.python_version())]
    names += [(package, version(package)) for package in PACKAGES]
    names += [("operator revision", operator_digest()), ("training code", code_digest())]
    names += [("processor features", processor_features())]
    names += [(name, os.environ[name]) for name in SETTINGS if name in os.environ]
    cpus, (load, *_) = available_cpus(), os.getloadavg()
    yield f"Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    yield f"Machine: {cpu_name()}, {cpus} processors, {_memory_gib():.0f} GiB of memory"
    yield f"System: {platform.system()} {platform.release()}"
    yield f"Versions: {', '.join(f'{name} {number}' for name, number in names)}"
    yield f"Load average over the minute before: {load:.2f} on {cpus} processors"
    if load > BUSY_PER_CPU * cpus:
        yield "Warning: the machine was busy with other work, so these results are worse than they should be."
    if is_quick:
        yield "Warning: this was a quick run, with few repeats and small sizes."


def _memory_gib() -> float:
    if sys.platform == "win32":
        return float("nan")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def slug(device: torch.device) -> str:
    """The name of the device for use in file names, such as nvidia_h200."""
    return re.sub(r"\W+", "_", device_name(device).lower()).strip("_")


def device_lines(device: torch.device) -> Iterator[str]:
    """The device and its libraries as lines of text, for the conditions of a bench."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        memory = f"{properties.total_memory / 2**30:.0f} GiB of memory"
        yield f"Device: {device_name(device)}, {properties.multi_processor_count} multiprocessors, {memory}"
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        yield f"CUDA: {torch.version.cuda}, cuDNN {cudnn}"
    else:
        instructions = torch.backends.cpu.get_cpu_capability()
        yield f"Device: {device_name(device)}, {torch.get_num_threads()} threads, {instructions}"
    yield f"Libraries: {', '.join(f'{name} {_version(name)}' for name in ('timm', 'triton'))}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def at_precision(precision: str) -> Iterator[torch.dtype]:
    """The tensor type of a precision; inside the context, GPUs round products to TF32 only for `tf32`.

    Inside, cuDNN tries its algorithms and takes the fastest, so that the baseline is not at a disadvantage.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    cudnn.benchmark = True
    try:
        yield torch.float32 if precision == "tf32" else getattr(torch, precision)
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


class DevicePeak(NamedTuple):
    """The peak rates of a device in a matrix product and in a copy: the fastest of a few repeats."""

    macs_per_s: float
    bytes_per_s: float

    def __str__(self) -> str:
        return (
            f"{2 * self.macs_per_s / 1e12:.3g} TFLOP/s in a matrix product, {self.bytes_per_s / 1e9:.3g} GB/s in a copy"
        )


def _product_s(side: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return min(seconds_per_call(lambda: a @ b, device) for _ in range(PEAK_REPEATS))


@torch.no_grad()
def measure_peak(device: torch.device, dtype: torch.dtype) -> DevicePeak:
    """Measure both peaks at the precision of `dtype`; a copy counts the bytes that it reads and writes."""
    side, most = PRODUCT_SIDES[device.type]
    while (product_s := _product_s(side, device, dtype)) < PRODUCT_S and side < most:
        side *= 2
    source = torch.zeros(COPIED_BYTES[device.type] // dtype.itemsize, device=device, dtype=dtype)
    target = torch.zeros_like(source)
    copy_s = min(seconds_per_call(lambda: target.copy_(source), device) for _ in range(PEAK_REPEATS))
    return DevicePeak(side**3 / product_s, 2 * COPIED_BYTES[device.type] / copy_s)
