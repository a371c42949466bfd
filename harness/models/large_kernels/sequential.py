"""A small kernel followed by a dilated one, which together cover the area of a large kernel.

Source: VAN (arXiv 2202.09741), section 3.1, where the two and a 1x1 gate the map; here they replace a large kernel,
without the gate. Letters: k side of the covered square, d dilation; both are depth-wise.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.cost import large_kernels
from harness.models.large_kernels.dilated_reparam import insert_zeros
from harness.models.large_kernels.reparam import conv_from_kernel, fold_bn
from harness.models.layers import ConvBN, conv2d
from harness.models.spec.kernel import Kernel, dilated_taps


class SequentialConv(nn.Module):
    """bn(far(near(x))), or biased_far(near(x)) when merged: near 2d - 1 wide, far dilated by d.

    As in VAN, there is nothing between the two. A stride is that of `far`.
    """

    far: nn.Module

    def __init__(self, c: int, kernel: Kernel, *, stride: int = 1, merged: bool = False) -> None:
        super().__init__()
        d, taps = kernel.dilation, dilated_taps(kernel.k, kernel.dilation)
        self.near = conv2d(c, c, 2 * d - 1, groups=c)
        if merged:
            self.far = conv2d(c, c, taps, stride=stride, dilation=d, groups=c, bias=True)
        else:
            self.far = ConvBN(c, c, taps, stride=stride, dilation=d, groups=c)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H / stride, W / stride), rounded up."""
        y: Tensor = self.far(self.near(x))
        return y

    cost = staticmethod(large_kernels.sequential_conv)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the running statistics into the dilated convolution."""
        if isinstance(self.far, ConvBN):
            self.far = conv_from_kernel(self.far.conv, *fold_bn(self.far)).train(self.training)

    def equivalent_kernel(self) -> Tensor:
        """The kernel (c, 1, k, k) of the merged form."""
        near, far = self.near.weight, self.far
        assert isinstance(far, nn.Conv2d), "a merged form consists of convolutions"
        wide = insert_zeros(far.weight, far.dilation[0])
        return F.conv_transpose2d(near.transpose(0, 1), wide, groups=len(near)).transpose(0, 1)
