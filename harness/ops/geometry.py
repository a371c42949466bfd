"""Stride, padding and dilation as a value; and the part of a kernel that can overlap the map.

Shapes: N batch, C channels, H W height and width of the map; weights are (C, 1, KH, KW).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from torch import Tensor

Pair = tuple[int, int]


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    height, width = value
    return height, width


class Window(NamedTuple):
    """Stride, zero padding and dilation along height and width."""

    stride: Pair
    padding: Pair
    dilation: Pair

    @classmethod
    def of(cls, stride: int | Sequence[int], padding: int | Sequence[int], dilation: int | Sequence[int]) -> Self:
        """A window from arguments as PyTorch's convolutions take them: one number for both axes, or two."""
        return cls(_pair(stride), _pair(padding), _pair(dilation))

    def keeps_size(self, kernel: Pair) -> bool:
        """Whether the output has the size of the input, with the kernel centered on each pixel in turn."""
        spans = (d * (k - 1) for d, k in zip(self.dilation, kernel, strict=True))
        return self.stride == (1, 1) and all(2 * p == span for p, span in zip(self.padding, spans, strict=True))


class Algorithm(NamedTuple):
    """An implementation of the convolution, exact up to rounding wherever it `fits`."""

    run: Callable[[Tensor, Tensor, Tensor | None, Window], Tensor]
    """(x, weight, bias, window) -> output; differentiable in the three tensors."""
    fits: Callable[[Tensor, Tensor, Window], bool]
    """(x, weight, window) -> whether it can compute this call."""


def crop_kernel(weight: Tensor, window: Window, size: Pair) -> tuple[Tensor, Window]:
    """Remove the taps that are outside a map of `size` at every position; returns the kernel and its window.

    Exact: with a window that keeps the size, only the central 2((H-1)//d) + 1 rows (and the same for columns) overlap
    the map; the others multiply zeros, and their gradient is zero.
    """
    kernel = (weight.shape[-2], weight.shape[-1])
    (height, width), (dh, dw) = size, window.dilation
    top, left = max(0, (kernel[0] - 1) // 2 - (height - 1) // dh), max(0, (kernel[1] - 1) // 2 - (width - 1) // dw)
    if not (top or left) or 0 in size or not window.keeps_size(kernel):
        return weight, window
    ph, pw = window.padding
    cropped = weight[..., top : kernel[0] - top, left : kernel[1] - left]
    return cropped, window._replace(padding=(ph - top * dh, pw - left * dw))
