"""The depth-wise convolution that all blocks use: the function, the module, the table of algorithms, the choice.

Shapes: N batch, C channels, H W height and width, KH KW sides of the kernel.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.ops.stock import STOCK
from harness.ops.three_way import THREE_WAY
from harness.ops.window import Algorithm, Window, crop

ALGORITHMS: dict[str, Algorithm] = {
    "stock": STOCK,
    "three_way": THREE_WAY,
}

THREE_WAY_FROM: tuple[tuple[float, int], ...] = ((4, 5), (8, 7), (16, 9), (math.inf, 13))
"""On CPUs, for maps of up to that side in channels-last layout: the least kernel side at which three-way is the faster.
Forward + backward, float32, N=32, C=16 to 128, one core of an AMD EPYC (AVX2), beside other work. In the default layout
it wins from K=5 on."""

HALF = (torch.bfloat16, torch.float16)
"""Computed in float32 on CPUs and rounded at the end: there the stock operator is up to 300 times slower in these."""


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Each channel of x (N, C, H, W) convolved with its own kernel of weight (C, 1, KH, KW).

    Equals `torch.nn.functional.conv2d(..., groups=C)` up to rounding, under autocast too. Which algorithm computes it
    depends on device, shapes and layout alone, so that equal calls give equal bits.
    """
    if x.dim() != 4 or weight.dim() != 4 or weight.shape[:2] != (x.shape[1], 1):
        raise ValueError(
            f"x must be (N, C, H, W) and weight (C, 1, KH, KW), but got {tuple(x.shape)} and {tuple(weight.shape)}."
        )
    weight, window = crop(weight, Window.of(stride, padding, dilation), (x.shape[2], x.shape[3]))
    run = ALGORITHMS[choose(x, weight, window)].run
    dtype, is_autocast = _result_dtype(x)
    work = torch.float32 if x.device.type == "cpu" and dtype in HALF else dtype
    if work == x.dtype and not is_autocast:
        return run(x, weight, bias, window)
    with torch.autocast(x.device.type, enabled=False):
        return run(x.to(work), weight.to(work), None if bias is None else bias.to(work), window).to(dtype)


def _result_dtype(x: Tensor) -> tuple[torch.dtype, bool]:
    """The precision of the result, and whether it is autocast that decides it; as with PyTorch's own convolutions."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return x.dtype, False
    return (x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(device)), True


def choose(x: Tensor, weight: Tensor, window: Window) -> str:
    """The rule of thumb: a key of `ALGORITHMS`, from device, shapes and layout."""
    if x.device.type != "cpu" or not THREE_WAY.fits(x, weight, window):
        return "stock"
    k, side = min(weight.shape[-2:]), max(x.shape[-2:])
    is_channels_last = x.is_contiguous(memory_format=torch.channels_last)
    least_k = next(least for up_to, least in THREE_WAY_FROM if side <= up_to) if is_channels_last else 5
    return "three_way" if k >= least_k else "stock"


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with one kernel per channel, computed by `depthwise_conv2d`; same parameters, same state dict."""

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        assert not isinstance(self.padding, str), "padding is given as numbers"
        return depthwise_conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation)
