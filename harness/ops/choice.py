"""The algorithms behind `depthwise_conv2d`, as one table, and the rule of thumb that picks one without measuring.

Shapes: N batch, C channels, H W height and width, KH KW sides of the kernel.
"""

import math

import torch
from torch import Tensor

from harness.ops.fft import FFT, extra_bytes
from harness.ops.stock import STOCK
from harness.ops.three_way import THREE_WAY
from harness.ops.toeplitz import TOEPLITZ
from harness.ops.triton_conv import TRITON, is_worthwhile
from harness.ops.window import Algorithm, Window

ALGORITHMS: dict[str, Algorithm] = {
    "stock": STOCK,
    "three_way": THREE_WAY,
    "fft": FFT,
    "toeplitz": TOEPLITZ,
    "triton": TRITON,
}

THREE_WAY_FROM: tuple[tuple[float, int], ...] = ((4, 5), (8, 7), (math.inf, 9))
"""On CPUs, for maps of up to that side in channels-last layout: the least kernel side at which three-way is faster than
the stock operator. In the default layout it is from K=5 on."""

FFT_FROM: tuple[tuple[float, float], ...] = ((8, math.inf), (12, 21), (16, 17), (math.inf, 15))
"""The same for fft against three-way, in both layouts.
Both tables: forward + backward, float32, N=8 to 64, C=16 to 1024, one core of an AMD EPYC (AVX2), beside other work."""

MOST_EXTRA_BYTES = 8 << 20
"""Memory that fft may take in any case; beyond, it may take no more than twice the input and the output."""


def choose(x: Tensor, weight: Tensor, window: Window) -> str:
    """The rule of thumb: a key of `ALGORITHMS`, from device, shapes and layout."""
    if TRITON.fits(x, weight, window) and is_worthwhile(weight):
        return "triton"
    if x.device.type != "cpu":
        return "stock"
    k, side = min(weight.shape[-2:]), max(x.shape[-2:])
    if k >= _least(FFT_FROM, side) and FFT.fits(x, weight, window) and _has_memory(x, weight, window):
        return "fft"
    least_k = _least(THREE_WAY_FROM, side) if x.is_contiguous(memory_format=torch.channels_last) else 5
    return "three_way" if k >= least_k and THREE_WAY.fits(x, weight, window) else "stock"


def _least(table: tuple[tuple[float, float], ...], side: int) -> float:
    return next(least for up_to, least in table if side <= up_to)


def _has_memory(x: Tensor, weight: Tensor, window: Window) -> bool:
    return extra_bytes(x, weight, window) <= max(MOST_EXTRA_BYTES, 4 * x.numel() * x.element_size())
