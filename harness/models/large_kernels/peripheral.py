"""A large kernel whose outer taps share weights, and a parallel small one, merged into one convolution after training.

Source: PeLK (arXiv 2403.07589), section 3.1; without its positional embedding of the kernel and with a center of 5 taps
for every k. Letters: k side of the large kernel, g its cells along an axis, s side of the small one; all depth-wise.
"""

import torch
from torch import Tensor, nn

from harness.models.cost import large_kernels
from harness.models.large_kernels.reparam import conv_from_kernel, fold_bn, merged_weight, pad_to_kernel
from harness.models.layers import ConvBN, conv2d
from harness.models.spec.kernel import Kernel, peripheral_cells
from harness.ops import DepthwiseConv2d, depthwise_conv2d


class PeripheralConv(nn.Module):
    """bn(shared_k(x)) + bn(conv_s(x)), or as one biased conv_k(x) when merged; s=None omits the second branch."""

    large: nn.Module
    small_conv: ConvBN | None

    def __init__(self, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> None:
        super().__init__()
        self.small_conv = None
        if merged:
            self.large = conv2d(c, c, kernel.k, stride=stride, groups=c, bias=True)
            return
        self.large = SharedConvBN(c, kernel.k, stride=stride)
        if kernel.s is not None:
            self.small_conv = ConvBN(c, c, kernel.s, stride=stride, groups=c)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H / stride, W / stride), rounded up."""
        y: Tensor = self.large(x)
        return y if self.small_conv is None else y + self.small_conv(x)

    cost = staticmethod(large_kernels.peripheral_conv)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the running statistics, expand the shared kernel, and add the small kernel to its center."""
        if not isinstance(self.large, SharedConvBN):
            return
        large = self.large.conv
        grid, bias = fold_bn(self.large)
        kernel = expand_shared(grid, large.cells)
        if self.small_conv is not None:
            small, small_bias = fold_bn(self.small_conv)
            kernel, bias = kernel + pad_to_kernel(small, kernel), bias + small_bias
        self.large = conv_from_kernel(large, kernel, bias).train(self.training)
        del self.small_conv
        self.small_conv = None

    def equivalent_kernel(self) -> Tensor:
        """The kernel (c, 1, k, k) of the merged form."""
        return merged_weight(self.large)


class SharedConv2d(DepthwiseConv2d):
    """A k x k convolution that learns one number per cell of `peripheral_cells(k)`: its weight is (c, 1, g, g)."""

    def __init__(self, c: int, k: int, *, stride: int = 1) -> None:
        cells = peripheral_cells(k)
        super().__init__(c, len(cells), stride=stride, padding=k // 2, bias=False)
        self.cells = cells

    def kernel(self) -> Tensor:
        """The kernel (c, 1, k, k) that it applies."""
        return expand_shared(self.weight, self.cells)

    def forward(self, input: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H / stride, W / stride), rounded up."""
        assert not isinstance(self.padding, str), "padding is given as numbers"
        return depthwise_conv2d(input, self.kernel(), self.bias, self.stride, self.padding, self.dilation)


class SharedConvBN(ConvBN):
    """bn(shared_k(x))"""

    conv: SharedConv2d

    def __init__(self, c: int, k: int, *, stride: int = 1) -> None:
        nn.Module.__init__(self)  # `ConvBN.__init__` would build a different convolution
        self.conv = SharedConv2d(c, k, stride=stride)
        self.bn = nn.BatchNorm2d(c)


def expand_shared(grid: Tensor, cells: tuple[int, ...]) -> Tensor:
    """(c, 1, g, g) -> (c, 1, k, k): repeat each weight over its cell, which is cells[i] high and cells[j] wide."""
    tall = torch.cat([grid[:, :, i : i + 1].expand(-1, -1, side, -1) for i, side in enumerate(cells)], dim=2)
    return torch.cat([tall[..., j : j + 1].expand(-1, -1, -1, side) for j, side in enumerate(cells)], dim=3)
