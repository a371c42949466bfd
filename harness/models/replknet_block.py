"""The large-kernel block: pre-norm, a large convolution between two point-wise ones (RepLKNet, section 4.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.batchnorm_folding import fold_ahead
from harness.models.cost import replknet
from harness.models.large_kernels import large_kernel
from harness.models.layers import ConvBN, ConvBNReLU, DropPath
from harness.models.spec.kernel import Kernel


class RepLKBlock(nn.Module):
    """x + pw2(relu(large_kernel(pw1(bn(x)))))

    shortcut=False drops the "x +" of this block alone; the ConvFFN behind it keeps its own.
    """

    def __init__(
        self,
        c: int,
        *,
        width: int,
        kernel: Kernel,
        shortcut: bool = True,
        drop_path: float = 0.0,
        merged: bool = False,
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.prelkb_bn = nn.BatchNorm2d(c)
        self.pw1 = ConvBNReLU(c, width, 1)
        self.large_kernel = large_kernel(width, kernel, merged=merged)
        self.pw2 = ConvBN(width, c, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H, W)"""
        y = self.pw1(self.prelkb_bn(x))
        y = self.pw2(F.relu(self.large_kernel(y)))
        residual: Tensor = self.drop_path(y)
        return x + residual if self.shortcut else residual

    cost = staticmethod(replknet.rep_lk)

    @torch.no_grad()
    def fold(self) -> None:
        """Let the first convolution take over the pre-norm."""
        self.add_module("prelkb_bn", fold_ahead(self.prelkb_bn, self.pw1.conv))
