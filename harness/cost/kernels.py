"""The large kernels, priced: one function per kind, and the one that looks the kind up.

Each takes h and w, the sides of its input map, and the arguments of the block of the same name.
"""

from harness.cost.base import Cost
from harness.cost.layers import conv, conv_bn
from harness.kernels import Kernel


def large_kernel(h: int, w: int, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> Cost:
    """The large kernel of any kind."""
    return KERNEL_COSTS[kernel.kind](h, w, c, kernel, stride, merged)


def reparam_conv(
    h: int,
    w: int,
    c: int,
    *,
    k: int,
    s: int | None = None,
    stride: int = 1,
    dilation: int = 1,
    depthwise: bool = True,
    merged: bool = False,
) -> Cost:
    """bn(conv_k(x)) + bn(conv_s(x)), or one biased conv_k(x)."""
    groups = c if depthwise else 1
    if merged:
        return conv(h, w, c, c, k=k, stride=stride, dilation=dilation, groups=groups, bias=True)
    small = Cost() if s is None else conv_bn(h, w, c, c, k=s, stride=stride, groups=groups)
    return conv_bn(h, w, c, c, k=k, stride=stride, dilation=dilation, groups=groups) + small


def _plain(h: int, w: int, c: int, kernel: Kernel, stride: int, merged: bool) -> Cost:
    k, s, dilation, depthwise = kernel.k, kernel.s, kernel.dilation, kernel.depthwise
    return reparam_conv(h, w, c, k=k, s=s, stride=stride, dilation=dilation, depthwise=depthwise, merged=merged)


KERNEL_COSTS = {"plain": _plain}
"""By kind, as in `harness.kernels.KINDS`."""
