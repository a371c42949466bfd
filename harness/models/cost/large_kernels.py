"""The costs of large kernels: one function per kind, and `large_kernel`, which selects it.

Each takes h and w, the sides of its input map, and the arguments of the block of the same name.
"""

from collections.abc import Callable
from functools import lru_cache

from harness.models.cost.layers import Cost, conv, conv_bn
from harness.models.spec.kernel import Kernel, band_width, dilated_branches, dilated_taps, peripheral_cells


@lru_cache(maxsize=4096)
def large_kernel(h: int, w: int, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> Cost:
    """The large kernel of any kind."""
    return KERNEL_COSTS[kernel.kind](h, w, c, kernel, stride=stride, merged=merged)


def reparam_conv(h: int, w: int, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> Cost:
    """bn(conv_k(x)) + bn(conv_s(x)), or one biased conv_k(x)."""
    k, s, dilation, groups = kernel.k, kernel.s, kernel.dilation, c if kernel.depthwise else 1
    if merged:
        return conv(h, w, c, c, k=k, stride=stride, dilation=dilation, groups=groups, bias=True)
    small = Cost() if s is None else conv_bn(h, w, c, c, k=s, stride=stride, groups=groups)
    return conv_bn(h, w, c, c, k=k, stride=stride, dilation=dilation, groups=groups) + small


def dilated_reparam_conv(h: int, w: int, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> Cost:
    """bn(conv_k(x)) + the sum of bn(conv_ki(x)) dilated by di, or one biased conv_k(x)"""
    if merged:
        return conv(h, w, c, c, k=kernel.k, stride=stride, groups=c, bias=True)
    branches = ((kernel.k, 1), *dilated_branches(kernel.k))
    costs = (conv_bn(h, w, c, c, k=side, stride=stride, dilation=d, groups=c) for side, d in branches)
    return sum(costs, Cost())


def stripes_conv(h: int, w: int, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> Cost:
    """bn(conv_kxn(x)) + bn(conv_nxk(x)) + bn(conv_s(x)), or one biased conv_kxn(x) + conv_nxk(x)"""
    high, wide = (kernel.k, kernel.stripe), (kernel.stripe, kernel.k)
    if merged:
        biased = conv(h, w, c, c, k=high, stride=stride, groups=c, bias=True)
        return biased + conv(h, w, c, c, k=wide, stride=stride, groups=c)
    sides = (high, wide) if kernel.s is None else (high, wide, kernel.s)
    return sum((conv_bn(h, w, c, c, k=side, stride=stride, groups=c) for side in sides), Cost())


def bands_conv(h: int, w: int, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> Cost:
    """[x_0, bn(conv_3(x_1)), bn(conv_1xk(x_2)), bn(conv_kx1(x_3))], or the same of biased convolutions alone"""
    n = band_width(c, kernel.band_ratio)
    sides = (3, (1, kernel.k), (kernel.k, 1))
    if merged:
        return sum((conv(h, w, n, n, k=side, stride=stride, groups=n, bias=True) for side in sides), Cost())
    return sum((conv_bn(h, w, n, n, k=side, stride=stride, groups=n) for side in sides), Cost())


def peripheral_conv(h: int, w: int, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> Cost:
    """As reparam_conv, except for the shared weights of the large kernel in training"""
    dense = reparam_conv(h, w, c, kernel, stride=stride, merged=merged)
    shared = 0 if merged else (kernel.k**2 - len(peripheral_cells(kernel.k)) ** 2) * c
    return dense + Cost(params=-shared)


def sequential_conv(h: int, w: int, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> Cost:
    """bn(far(near(x))), or biased_far(near(x)): near 2d - 1 wide, far dilated by d"""
    d, taps = kernel.dilation, dilated_taps(kernel.k, kernel.dilation)
    near = conv(h, w, c, c, k=2 * d - 1, groups=c)
    if merged:
        return near + conv(h, w, c, c, k=taps, stride=stride, dilation=d, groups=c, bias=True)
    return near + conv_bn(h, w, c, c, k=taps, stride=stride, dilation=d, groups=c)


KERNEL_COSTS: dict[str, Callable[..., Cost]] = {
    "plain": reparam_conv,
    "dilated_reparam": dilated_reparam_conv,
    "stripes": stripes_conv,
    "bands": bands_conv,
    "peripheral": peripheral_conv,
    "sequential": sequential_conv,
}
"""Cost functions by kind, as in `harness.models.spec.kernel.KERNEL_KINDS`."""
