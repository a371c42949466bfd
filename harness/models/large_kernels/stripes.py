"""Two crossed stripes instead of a large square kernel, and a parallel small kernel.

Source: SLaK (arXiv 2207.03620), section 4, without its sparsity.
Letters: k long side and n short side of the stripes, s side of the small kernel; all are depth-wise.
"""

import torch
from torch import Tensor, nn

from harness.models.cost import large_kernels
from harness.models.large_kernels.reparam import (
    conv_from_kernel,
    fold_bn,
    in_common_square,
    merged_weight,
    pad_to_kernel,
)
from harness.models.layers import ConvBN, conv2d
from harness.models.spec.kernel import Kernel


class StripesConv(nn.Module):
    """bn(conv_kxn(x)) + bn(conv_nxk(x)) + bn(conv_s(x)), or biased_conv_kxn(x) + conv_nxk(x) when merged.

    The stripes stay two convolutions: the equivalent k x k kernel would have k / 2n times as many taps.
    """

    high: nn.Module
    wide: nn.Module
    small_conv: ConvBN | None

    def __init__(self, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> None:
        super().__init__()
        high, wide = (kernel.k, kernel.stripe), (kernel.stripe, kernel.k)
        self.small_conv = None
        if merged:
            self.high = conv2d(c, c, high, stride=stride, groups=c, bias=True)
            self.wide = conv2d(c, c, wide, stride=stride, groups=c)
            return
        self.high = ConvBN(c, c, high, stride=stride, groups=c)
        self.wide = ConvBN(c, c, wide, stride=stride, groups=c)
        if kernel.s is not None:
            self.small_conv = ConvBN(c, c, kernel.s, stride=stride, groups=c)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H / stride, W / stride), rounded up."""
        y: Tensor = self.high(x) + self.wide(x)
        return y if self.small_conv is None else y + self.small_conv(x)

    cost = staticmethod(large_kernels.stripes_conv)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the running statistics; add the small kernel to the center of the high stripe, and all biases to it."""
        if not isinstance(self.high, ConvBN):
            return
        assert isinstance(self.wide, ConvBN), "both stripes are in their training form or neither is"
        (high, bias), (wide, wide_bias) = fold_bn(self.high), fold_bn(self.wide)
        bias = bias + wide_bias
        if self.small_conv is not None:
            small, small_bias = fold_bn(self.small_conv)
            high, bias = high + pad_to_kernel(small, high), bias + small_bias
        self.high = conv_from_kernel(self.high.conv, high, bias).train(self.training)
        self.wide = conv_from_kernel(self.wide.conv, wide, None).train(self.training)
        del self.small_conv
        self.small_conv = None

    def equivalent_kernel(self) -> Tensor:
        """The kernel (c, 1, k, k) equivalent to the merged form."""
        stripes = [merged_weight(self.high), merged_weight(self.wide)]
        return torch.stack(in_common_square(stripes)).sum(0)
