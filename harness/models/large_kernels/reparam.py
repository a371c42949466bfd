"""A large kernel and a parallel small one, each with its batch norm, merged into one convolution after training.

Source: RepLKNet (arXiv 2203.06717), guideline 3. Names of parameters as in the released checkpoints.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.batchnorm_folding import bn_scale_shift, to_float64
from harness.models.cost import large_kernels
from harness.models.layers import ConvBN, conv2d
from harness.models.spec.kernel import Kernel


@runtime_checkable
class Mergeable(Protocol):
    """A block with a training form and a smaller merged form that computes the same in evaluation mode."""

    def merge(self) -> None:
        """Change permanently to the merged form; does nothing if the block is already merged."""


@runtime_checkable
class LargeKernelBlock(Mergeable, Protocol):
    """A large kernel of any kind; its merged form is equivalent to one kernel."""

    def equivalent_kernel(self) -> Tensor:
        """The kernel (c, c_in, k, k) of the merged form; c_in is 1 if it is depth-wise."""


class ReparamConv(nn.Module):
    """bn(conv_k(x)) + bn(conv_s(x)), or as one biased conv_k(x) when merged; s=None omits the second branch."""

    lkb_origin: ConvBN | None
    small_conv: ConvBN | None
    lkb_reparam: nn.Conv2d | None

    def __init__(self, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> None:
        super().__init__()
        k, s, dilation, groups = kernel.k, kernel.s, kernel.dilation, c if kernel.depthwise else 1
        self.lkb_origin = None if merged else ConvBN(c, c, k, stride=stride, dilation=dilation, groups=groups)
        self.small_conv = None if merged or s is None else ConvBN(c, c, s, stride=stride, groups=groups)
        large = conv2d(c, c, k, stride=stride, dilation=dilation, groups=groups, bias=True) if merged else None
        self.lkb_reparam = large

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H / stride, W / stride), rounded up."""
        y: Tensor
        if self.lkb_reparam is not None:
            y = self.lkb_reparam(x)
            return y
        assert self.lkb_origin is not None, "a block has its training branches or its merged kernel"
        y = self.lkb_origin(x)
        return y if self.small_conv is None else y + self.small_conv(x)

    cost = staticmethod(large_kernels.reparam_conv)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the running statistics into the kernels and add the small kernel to the center of the large one."""
        if self.lkb_origin is None:
            return
        large = self.lkb_origin.conv
        kernel, bias = fold_bn(self.lkb_origin)
        if self.small_conv is not None:
            small, small_bias = fold_bn(self.small_conv)
            kernel = kernel + pad_to_kernel(small, kernel)
            bias = bias + small_bias
        self.lkb_reparam = conv_from_kernel(large, kernel, bias).train(self.training)
        del self.lkb_origin, self.small_conv  # remove them as submodules; the next line sets plain attributes
        self.lkb_origin = self.small_conv = None

    def equivalent_kernel(self) -> Tensor:
        """The kernel (c, c_in, k, k) of the merged form; c_in is 1 if it is depth-wise."""
        return merged_weight(self.lkb_reparam)


def merged_weight(layer: nn.Module | None) -> Tensor:
    """The weight of a convolution in a merged form."""
    assert isinstance(layer, nn.Conv2d), "a merged form consists of convolutions"
    return layer.weight


def in_common_square(kernels: Sequence[Tensor]) -> list[Tensor]:
    """Pad kernels of any sides to the smallest square that holds all of them; each is centered."""
    side = max(max(kernel.shape[2:]) for kernel in kernels)
    return [pad_to_kernel(kernel, kernel.new_empty(1, 1, side, side)) for kernel in kernels]


def pad_to_kernel(small: Tensor, kernel: Tensor) -> Tensor:
    """Pad the small kernel with zeros to the size of `kernel`, centered."""
    high, wide = ((large - side) // 2 for large, side in zip(kernel.shape[2:], small.shape[2:], strict=True))
    return F.pad(small, [wide, wide, high, high])


def conv_from_kernel(conv: nn.Conv2d, kernel: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution with this kernel and bias, and with the stride, dilation, groups, dtype and device of `conv`."""
    sides, groups = (kernel.shape[-2], kernel.shape[-1]), conv.groups
    with torch.device("meta"):  # no initial weights, so that a merge draws nothing from the random state
        made = conv2d(
            conv.in_channels,
            conv.out_channels,
            sides,
            stride=conv.stride[0],
            dilation=conv.dilation[0],
            groups=groups,
            bias=bias is not None,
        )
    state = {"weight": kernel} if bias is None else {"weight": kernel, "bias": bias}
    made.load_state_dict({name: value.to(conv.weight) for name, value in state.items()}, assign=True)
    return made


def fold_bn(branch: ConvBN) -> tuple[Tensor, Tensor]:
    """Kernel and bias, in float64, of the convolution that equals bn(conv(x)) in evaluation mode."""
    scale, shift = bn_scale_shift(branch.bn)
    return to_float64(branch.conv.weight) * scale.reshape(-1, 1, 1, 1), shift
