"""The table of algorithms of `depthwise_conv2d`, and the rule of thumb that chooses one without measuring.

Shapes: N batch, C channels, H W height and width, KH KW sides of the kernel.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.ops.channels_last import CHANNELS_LAST
from harness.ops.direct import DIRECT
from harness.ops.fft import FFT, extra_bytes
from harness.ops.geometry import Algorithm, Window
from harness.ops.toeplitz import TOEPLITZ
from harness.ops.triton_conv import TRITON, is_worthwhile


def _run_stock(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    return F.conv2d(x, weight, bias, window.stride, window.padding, window.dilation, groups=weight.shape[0])


STOCK = Algorithm(run=_run_stock, fits=lambda *_: True)
"""PyTorch's own operator: computes every call, and is the fastest for small kernels."""
ALGORITHMS: dict[str, Algorithm] = {
    "stock": STOCK,
    "direct": DIRECT,
    "three_way": CHANNELS_LAST,
    "fft": FFT,
    "toeplitz": TOEPLITZ,
    "triton": TRITON,
}

DIRECT_FROM = {"backward": 5, "forward": 13}
"""The smallest kernel side at which direct is faster than the stock operator, with and without a backward pass.
With dilation it is always faster (3.5 to 13 times at 3x3)."""

FFT_FROM = 27, 28
"""Kernel side and map side from which fft is faster than direct, whose cost grows with the number of taps.
Conditions of both: float32, N=4 to 64, C=16 to 1024, an AMD EPYC (AVX2) with one thread and with two."""

MAX_EXTRA_BYTES = 8 << 20
"""Memory that fft may always take; above it, at most four times the input."""


def choose_algorithm(x: Tensor, weight: Tensor, window: Window) -> str:
    """The rule of thumb: a key of `ALGORITHMS`, from device, shapes, layout, and whether gradients are needed."""
    if x.device.type != "cpu":
        return "triton" if TRITON.fits(x, weight, window) and is_worthwhile(weight) else "stock"
    if is_small(x, weight, window.dilation):
        return "stock"
    k, side = min(weight.shape[-2:]), max(x.shape[-2:])
    is_spectral = k >= FFT_FROM[0] and side >= FFT_FROM[1] and max(window.stride) == 1
    if is_spectral and FFT.fits(x, weight, window) and _has_memory(x, weight, window):
        return "fft"
    return "direct" if DIRECT.fits(x, weight, window) else "stock"


def is_small(x: Tensor, weight: Tensor, dilation: int | Sequence[int]) -> bool:
    """Whether no algorithm is faster than the stock operator for this kernel on a CPU; x must be on the CPU."""
    _, _, high, wide = weight.shape
    side = high if high < wide else wide
    if side >= DIRECT_FROM["forward"] or dilation not in (1, (1, 1)):
        return False
    return side < DIRECT_FROM["backward"] or not _needs_gradient(x, weight)


def _needs_gradient(x: Tensor, weight: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)


def _has_memory(x: Tensor, weight: Tensor, window: Window) -> bool:
    return extra_bytes(x, weight, window) <= max(MAX_EXTRA_BYTES, 4 * x.numel() * x.element_size())
