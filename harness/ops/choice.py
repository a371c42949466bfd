"""The algorithms behind `depthwise_conv2d`, as one table, and the rule of thumb that picks one without measuring.

Shapes: N batch, C channels, H W height and width, KH KW sides of the kernel.
"""

import math

from torch import Tensor

from harness.ops.direct import DIRECT
from harness.ops.fft import FFT, extra_bytes
from harness.ops.stock import STOCK
from harness.ops.three_way import THREE_WAY
from harness.ops.toeplitz import TOEPLITZ
from harness.ops.triton_conv import TRITON, is_worthwhile
from harness.ops.window import Algorithm, Window

ALGORITHMS: dict[str, Algorithm] = {
    "stock": STOCK,
    "direct": DIRECT,
    "three_way": THREE_WAY,
    "fft": FFT,
    "toeplitz": TOEPLITZ,
    "triton": TRITON,
}

DIRECT_FROM = 5
"""The least kernel side at which direct is faster than the stock operator, which has code of its own for 3x3; with
dilation it is always (3.5 to 13 times at 3x3)."""

FFT_FROM = 29, 33
"""Kernel side and map side from which fft is faster than direct, whose work grows with the taps: at a side of 40 from
K=31 on, at 96 too. Both: forward + backward, float32, N=4 to 64, C=16 to 1024, one core of an AMD EPYC (AVX2), beside
other work."""

STRIDED_FFT_FROM: tuple[tuple[float, float], ...] = ((8, math.inf), (12, 13), (16, 17), (math.inf, 17))
"""For maps of up to that side: the kernel side from which fft is faster than the stock operator where direct, which has
no strides, cannot stand in."""

MOST_EXTRA_BYTES = 8 << 20
"""Memory that fft may take in any case; beyond, it may take no more than twice the input and the output."""


def choose(x: Tensor, weight: Tensor, window: Window) -> str:
    """The rule of thumb: a key of `ALGORITHMS`, from device, shapes and layout."""
    if TRITON.fits(x, weight, window) and is_worthwhile(weight):
        return "triton"
    if x.device.type != "cpu":
        return "stock"
    k, side = min(weight.shape[-2:]), max(x.shape[-2:])
    is_direct = (k >= DIRECT_FROM or max(window.dilation) > 1) and DIRECT.fits(x, weight, window)
    is_spectral = k >= FFT_FROM[0] and side >= FFT_FROM[1] if is_direct else k >= _least(STRIDED_FFT_FROM, side)
    if is_spectral and FFT.fits(x, weight, window) and _has_memory(x, weight, window):
        return "fft"
    return "direct" if is_direct else "stock"


def _least(table: tuple[tuple[float, float], ...], side: int) -> float:
    return next(least for up_to, least in table if side <= up_to)


def _has_memory(x: Tensor, weight: Tensor, window: Window) -> bool:
    return extra_bytes(x, weight, window) <= max(MOST_EXTRA_BYTES, 4 * x.numel() * x.element_size())
