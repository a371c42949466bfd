"""A square and two crossed bands, each on its own channels, instead of a large kernel on all channels.

Source: InceptionNeXt (arXiv 2303.16900), section 3.2; there the branches have no norms.
"""

import torch
from torch import Tensor, nn

from harness.models.cost import large_kernels
from harness.models.large_kernels.reparam import conv_from_kernel, fold_bn, in_common_square, merged_weight
from harness.models.layers import ConvBN, conv2d
from harness.models.spec.kernel import Kernel, band_width


class BandsConv(nn.Module):
    """[x_0, bn(conv_3(x_1)), bn(conv_1xk(x_2)), bn(conv_kx1(x_3))], or the same of biased convolutions when merged.

    x_1 to x_3 have `band_ratio` of the channels each; x_0 is the rest and is returned unchanged, not normalized.
    """

    def __init__(self, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> None:
        super().__init__()
        n = band_width(c, kernel.band_ratio)
        self.stride, self.widths = stride, (c - 3 * n, n, n, n)
        self.bands = nn.ModuleList(
            conv2d(n, n, sides, stride=stride, groups=n, bias=True)
            if merged
            else ConvBN(n, n, sides, stride=stride, groups=n)
            for sides in (3, (1, kernel.k), (kernel.k, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H / stride, W / stride), rounded up."""
        idle, *banded = x.split_with_sizes(self.widths, dim=1)
        idle = idle[:, :, :: self.stride, :: self.stride]
        return torch.cat([idle, *(band(part) for band, part in zip(self.bands, banded, strict=True))], dim=1)

    cost = staticmethod(large_kernels.bands_conv)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the running statistics into each convolution."""
        for i, band in enumerate(self.bands):
            if isinstance(band, ConvBN):
                self.bands[i] = conv_from_kernel(band.conv, *fold_bn(band)).train(self.training)

    def equivalent_kernel(self) -> Tensor:
        """The kernels (3 n, 1, k, k) that the merged form applies to the channels of the bands only."""
        return torch.cat(in_common_square([merged_weight(band) for band in self.bands]))
