"""MobileNetV2's block: expansion, a large kernel, and a projection without an activation (arXiv 1801.04381)."""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.cost import mobilenet_v2
from harness.models.large_kernels import large_kernel
from harness.models.layers import ConvBN, ConvBNReLU6, DropPath
from harness.models.spec.kernel import Kernel


class InvertedResidual(nn.Module):
    """x + pw2(relu6(large_kernel(relu6(pw1(x)))))

    Without pw1 where width is c_in; without the "x +" where the shapes differ, and with shortcut=False.
    """

    def __init__(
        self,
        c_in: int,
        c: int,
        *,
        width: int,
        kernel: Kernel,
        stride: int = 1,
        shortcut: bool = True,
        drop_path: float = 0.0,
        merged: bool = False,
    ) -> None:
        super().__init__()
        self.shortcut = shortcut and stride == 1 and c_in == c
        self.pw1 = nn.Identity() if width == c_in else ConvBNReLU6(c_in, width, 1)
        self.large_kernel = large_kernel(width, kernel, stride=stride, merged=merged)
        self.pw2 = ConvBN(width, c, 1)
        self.drop_path = DropPath(drop_path if self.shortcut else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c, H / stride, W / stride), rounded up."""
        y = self.pw1(x)
        y = self.pw2(F.relu6(self.large_kernel(y)))
        residual: Tensor = self.drop_path(y)
        return x + residual if self.shortcut else residual

    cost = staticmethod(mobilenet_v2.inverted_residual)
