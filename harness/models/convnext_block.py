"""ConvNeXt's block: a large kernel, then a layer norm and two linear layers at every pixel (arXiv 2201.03545).

Names of parameters as in timm's ConvNeXt, where the kernel is plain and has no parallel small one, or is merged.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.cost import convnext
from harness.models.large_kernels import large_kernel
from harness.models.large_kernels.reparam import Mergeable, ReparamConv
from harness.models.layers import LAYER_NORM_EPS, DropPath, conv2d
from harness.models.spec.kernel import Kernel


class ConvNeXtBlock(nn.Module):
    """x + gamma mlp(ln(conv_dw(x)))

    gamma scales each channel and starts at 1e-6; with shortcut=False, where nothing else would pass, at 1.
    """

    conv_dw: nn.Module

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
        if convnext.is_single(kernel, merged=merged):
            groups = c if kernel.depthwise else 1
            self.conv_dw = conv2d(c, c, kernel.k, dilation=kernel.dilation, groups=groups, bias=True)
        else:
            self.conv_dw = large_kernel(c, kernel, merged=merged)
        self.norm = nn.LayerNorm(c, eps=LAYER_NORM_EPS)
        self.mlp = MLP(c, width)
        self.gamma = nn.Parameter(torch.full((c,), 1e-6 if shortcut else 1.0))
        self.drop_path = DropPath(drop_path if shortcut else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H, W)"""
        y = self.conv_dw(x).permute(0, 2, 3, 1)
        y = self.gamma * self.mlp(self.norm(y))
        residual: Tensor = self.drop_path(y.permute(0, 3, 1, 2))
        return x + residual if self.shortcut else residual

    cost = staticmethod(convnext.convnext_block)

    def merge(self) -> None:
        """Take the merged kernel for good, where it is one convolution as ConvNeXt's own."""
        if isinstance(self.conv_dw, Mergeable):
            self.conv_dw.merge()
        if isinstance(self.conv_dw, ReparamConv) and self.conv_dw.lkb_reparam is not None:
            self.conv_dw = self.conv_dw.lkb_reparam


class MLP(nn.Module):
    """fc2(gelu(fc1(x)))"""

    def __init__(self, c: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(c, width)
        self.fc2 = nn.Linear(width, c)

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)"""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y
