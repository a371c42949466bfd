"""The depth-wise convolution that all blocks use: the function and the module.

Shapes: N batch, C channels, H W height and width, KH KW sides of the kernel.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.ops.autotune import is_tuned, pick_algorithm
from harness.ops.dispatch import ALGORITHMS, is_small
from harness.ops.geometry import Window, crop_kernel
from harness.ops.validation import check_arguments, checked_window, needs_native

HALF = (torch.bfloat16, torch.float16)
"""Types computed in float32 on CPUs and rounded at the end: there the stock operator is up to 300 times slower."""


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Convolve each channel of x (N, C, H, W) with its own kernel in weight (C, 1, KH, KW).

    Equals `torch.nn.functional.conv2d(..., groups=C)` up to rounding, also under autocast; calls that operator where
    the call is exported, traced, or transformed by vmap or forward-mode differentiation. The algorithm depends on
    device, shapes, layout and whether gradients are needed, so equal calls return bitwise equal results, unless
    `autotune` is on.
    Raises `ValueError` for tensors and numbers that do not describe such a convolution.
    """
    if _is_small(x, weight, padding, dilation):
        try:
            return F.conv2d(x, weight, bias, stride, padding, dilation, groups=weight.shape[0])
        except (RuntimeError, TypeError):
            pass  # checked again below, with a clearer error message
    if needs_native(x):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups=weight.shape[0])
    window = checked_window(stride, padding, dilation)
    dtype, is_autocast = _result_dtype(x)
    check_arguments(x, weight, bias, window, is_autocast=is_autocast)
    weight, window = crop_kernel(weight, window, (x.shape[2], x.shape[3]))
    work = torch.float32 if x.device.type == "cpu" and dtype in HALF else dtype
    if work == x.dtype and not is_autocast:
        return _run(x, weight, bias, window)
    with torch.autocast(x.device.type, enabled=False):
        return _run(x.to(work), weight.to(work), None if bias is None else bias.to(work), window).to(dtype)


def _is_small(x: Tensor, weight: Tensor, padding: int | Sequence[int], dilation: int | Sequence[int]) -> bool:
    """Whether the stock operator is certain to be chosen.

    Called first, and with as few checks as possible: after a convolution Python's objects are no longer in the CPU
    caches, so each check costs 5 to 20 us (measured), compared with operators of 600 us.
    """
    if x.dtype is not torch.float32 or not x.is_cpu or isinstance(padding, str) or torch.is_autocast_enabled("cpu"):
        return False
    if not x.dim() == weight.dim() == 4 or weight.shape[1] != 1 or not is_small(x, weight, dilation):
        return False
    return not is_tuned() and not torch.compiler.is_compiling()


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    return ALGORITHMS[pick_algorithm(x, weight, bias, window)].run(x, weight, bias, window)


def _result_dtype(x: Tensor) -> tuple[torch.dtype, bool]:
    """The dtype of the result, and whether autocast determines it; as in PyTorch's own convolutions."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return x.dtype, False
    return (x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(device)), True


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with one kernel per channel, computed by `depthwise_conv2d`; same parameters and state dict."""

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
        checked_window(stride, padding, dilation)
        super().__init__(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        assert not isinstance(self.padding, str), "padding is given as numbers"
        return depthwise_conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation)
