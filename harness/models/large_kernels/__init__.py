"""Large kernels of all kinds, as blocks built from a `Kernel`."""

from collections.abc import Callable

from torch import nn

from harness.models.large_kernels.bands import BandsConv
from harness.models.large_kernels.dilated_reparam import DilatedReparamConv
from harness.models.large_kernels.peripheral import PeripheralConv
from harness.models.large_kernels.reparam import ReparamConv
from harness.models.large_kernels.sequential import SequentialConv
from harness.models.large_kernels.stripes import StripesConv
from harness.models.spec.kernel import Kernel


def large_kernel(c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> nn.Module:
    """(N, c, H, W) -> (N, c, H / stride, W / stride), rounded up; normalized, without an activation."""
    return LARGE_KERNELS[kernel.kind](c, kernel, stride=stride, merged=merged)


LARGE_KERNELS: dict[str, Callable[..., nn.Module]] = {
    "plain": ReparamConv,
    "dilated_reparam": DilatedReparamConv,
    "stripes": StripesConv,
    "bands": BandsConv,
    "peripheral": PeripheralConv,
    "sequential": SequentialConv,
}
"""Constructors by kind, as in `harness.models.spec.kernel.KERNEL_KINDS`."""
