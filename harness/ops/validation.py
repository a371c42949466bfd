"""The check for calls that need PyTorch's own operator, and the argument checks for all others.

Shapes: x (N, C, H, W), weight (C, 1, KH, KW), bias (C,).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.ops.geometry import Window

_DIFFERENTIABLE_KEYS = {"Grad", "Functionalize"}
"""The transforms of `torch.func` that the algorithms support: not vmap, not forward mode."""


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
