"""The device that is measured: which it is, at which precision it computes, and what it can do at most."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch

from harness.ops.timing import seconds_of
from harness.system.machine import cpu_name

PRODUCT_SIDES = {"cpu": (256, 2048), "cuda": (4096, 8192)}
"""Of the square matrices whose product is the measure of arithmetic: the least, and the most."""
PRODUCT_S = 0.02
"""A product that takes so long need not be larger."""
COPIED_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}
"""Too many for any cache."""
PEAK_REPEATS = 7


def device_name(device: torch.device) -> str:
    """As its maker calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def slug(device: torch.device) -> str:
    """Its name as part of a file's: nvidia_h200."""
    return re.sub(r"\W+", "_", device_name(device).lower()).strip("_")


def device_lines(device: torch.device) -> Iterator[str]:
    """For the conditions of a bench."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        memory = f"{properties.total_memory / 2**30:.0f} GiB of memory"
        yield f"Device: {device_name(device)}, {properties.multi_processor_count} multiprocessors, {memory}"
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        yield f"CUDA: {torch.version.cuda}, cuDNN {cudnn}"
    else:
        yield f"Device: {device_name(device)}, {torch.get_num_threads()} threads, {_instructions()}"
    yield f"Libraries: {', '.join(f'{name} {_version(name)}' for name in ('timm', 'triton'))}"


def _instructions() -> str:
    return str(torch.backends.cpu.get_cpu_capability())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def at_precision(precision: str) -> Iterator[torch.dtype]:
    """The type that tensors have at a precision; inside, GPUs round products to TF32 only where it is tf32.

    cuDNN tries its algorithms and takes the fastest, inside: nothing is to be gained over a rival that was held back.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    cudnn.benchmark = True
    try:
        yield torch.float32 if precision == "tf32" else getattr(torch, precision)
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


class Peak(NamedTuple):
    """What a device reaches in a matrix product and in a copy: the fastest of a few repeats."""

    macs_per_s: float
    bytes_per_s: float

    def __str__(self) -> str:
        return (
            f"{2 * self.macs_per_s / 1e12:.3g} TFLOP/s in a matrix product, {self.bytes_per_s / 1e9:.3g} GB/s in a copy"
        )


def _product_s(side: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return min(seconds_of(lambda: a @ b, device) for _ in range(PEAK_REPEATS))


@torch.no_grad()
def measure_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """Both, at the precision of `dtype`; a copy counts what it reads and what it writes."""
    side, most = PRODUCT_SIDES[device.type]
    while (product_s := _product_s(side, device, dtype)) < PRODUCT_S and side < most:
        side *= 2
    source = torch.zeros(COPIED_BYTES[device.type] // dtype.itemsize, device=device, dtype=dtype)
    target = torch.zeros_like(source)
    copy_s = min(seconds_of(lambda: target.copy_(source), device) for _ in range(PEAK_REPEATS))
    return Peak(side**3 / product_s, 2 * COPIED_BYTES[device.type] / copy_s)
