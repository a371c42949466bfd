"""A large kernel and parallel small dilated ones, merged into one convolution after training.

Source: UniRepLKNet (arXiv 2311.15599), section 3.1. Letters: k side of the large kernel, ki and di side and dilation of
a small one; all are depth-wise.
"""

import torch
from torch import Tensor, nn

from harness.models.cost import large_kernels
from harness.models.large_kernels.reparam import conv_from_kernel, fold_bn, merged_weight, pad_to_kernel
from harness.models.layers import ConvBN, conv2d
from harness.models.spec.kernel import Kernel, dilated_branches


class DilatedReparamConv(nn.Module):
    """bn(conv_k(x)) + the sum of bn(conv_ki(x)) dilated by di, or as one biased conv_k(x) when merged."""

    large: nn.Module
    dilated: nn.ModuleList | None

    def __init__(self, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> None:
        super().__init__()
        if merged:
            self.large, self.dilated = conv2d(c, c, kernel.k, stride=stride, groups=c, bias=True), None
            return
        self.large = ConvBN(c, c, kernel.k, stride=stride, groups=c)
        self.dilated = nn.ModuleList(
            ConvBN(c, c, side, stride=stride, dilation=d, groups=c) for side, d in dilated_branches(kernel.k)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H / stride, W / stride), rounded up."""
        y: Tensor = self.large(x)
        for branch in self.dilated or ():
            y = y + branch(x)
        return y

    cost = staticmethod(large_kernels.dilated_reparam_conv)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the running statistics, and add the dilated kernels, with zeros inserted, to the large one."""
        if not isinstance(self.large, ConvBN):
            return
        large = self.large.conv
        kernel, bias = fold_bn(self.large)
        for branch in self.dilated or ():
            assert isinstance(branch, ConvBN)
            small, small_bias = fold_bn(branch)
            kernel = kernel + pad_to_kernel(insert_zeros(small, branch.conv.dilation[0] // large.dilation[0]), kernel)
            bias = bias + small_bias
        self.large = conv_from_kernel(large, kernel, bias).train(self.training)
        del self.dilated
        self.dilated = None

    def equivalent_kernel(self) -> Tensor:
        """The kernel (c, 1, k, k) of the merged form."""
        return merged_weight(self.large)


def insert_zeros(kernel: Tensor, d: int) -> Tensor:
    """The undilated kernel equivalent to this one (C, 1, K, K) with dilation d: d - 1 zeros between its taps."""
    side = (kernel.shape[-1] - 1) * d + 1
    wide = kernel.new_zeros(*kernel.shape[:2], side, side)
    wide[..., ::d, ::d] = kernel
    return wide
