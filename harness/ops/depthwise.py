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

HALF = (torch.bfloat16, torch.float16)
"""Types computed in float32 on CPUs and rounded at the end: there the stock operator is up to 300 times slower."""
_DIFFERENTIABLE_KEYS = {"Grad", "Functionalize"}
"""The transforms of `torch.func` that the algorithms support: not vmap, not forward mode."""


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


def needs_native(x: Tensor) -> bool:
    """Whether the call is exported, traced, transformed, or not of real numbers.

    An exported or traced graph should contain one plain convolution, whatever is the fastest here; vmap and
    forward-mode differentiation have rules for PyTorch's operators only.
    """
    if torch.compiler.is_exporting() or torch._C._is_tracing() or not isinstance(x, Tensor):
        return True
    return _is_transformed() or not x.is_floating_point()


def _is_transformed() -> bool:
    if not torch._C._are_functorch_transforms_active():
        return False
    if torch.compiler.is_compiling():  # the compiler cannot read the stack
        return True
    stack = torch._C._functorch.get_interpreter_stack() or []
    return any(level.key().name not in _DIFFERENTIABLE_KEYS for level in stack)


def checked_window(stride: int | Sequence[int], padding: int | Sequence[int], dilation: int | Sequence[int]) -> Window:
    """Build the window from these numbers. Raises `ValueError` if they are invalid."""
    for name, value, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        sides = tuple(value) if isinstance(value, Sequence) else (value, value)
        if len(sides) != 2 or not all(isinstance(side, int) and side >= least for side in sides):
            raise ValueError(f"`{name}` must be one or two whole numbers of at least {least}, but got {value!r}.")
    return Window.of(stride, padding, dilation)


def check_arguments(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, *, is_autocast: bool) -> None:
    """Raise `ValueError`, with the rule and the values, for tensors that are not valid arguments."""
    if x.dim() != 4 or weight.dim() != 4 or weight.shape[:2] != (x.shape[1], 1):
        raise ValueError(
            f"x must be (N, C, H, W) and weight (C, 1, KH, KW), but got {tuple(x.shape)} and {tuple(weight.shape)}."
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be (C,), one number per channel of x, but got {tuple(bias.shape)}.")
    for name, other in (("weight", weight), ("bias", bias)):
        if other is None:
            continue
        if other.device != x.device:
            raise ValueError(f"x and {name} must be on one device, but got {x.device} and {other.device}.")
        if other.dtype != x.dtype and not is_autocast:
            raise ValueError(f"x and {name} must have one dtype, but got {x.dtype} and {other.dtype}.")
    _check_reach(x, weight, window)


def _check_reach(x: Tensor, weight: Tensor, window: Window) -> None:
    for axis, n, k, p, d in zip(
        ("height", "width"), x.shape[2:], weight.shape[2:], window.padding, window.dilation, strict=True
    ):
        if not 1 <= d * (k - 1) + 1 <= n + 2 * p:
            raise ValueError(
                f"The kernel must have a tap and fit into the padded map, but along the {axis} "
                f"there are {k} taps with dilation {d} for {n} + 2 x {p} pixels."
            )


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
