"""The feed-forward block behind each large-kernel block: two point-wise convolutions (RepLKNet, section 4.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.batchnorm_folding import fold_ahead
from harness.models.cost import replknet
from harness.models.layers import ConvBN, DropPath


class ConvFFN(nn.Module):
    """x + pw2(gelu(pw1(bn(x))))"""

    def __init__(self, c: int, *, width: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.preffn_bn = nn.BatchNorm2d(c)
        self.pw1 = ConvBN(c, width, 1)
        self.pw2 = ConvBN(width, c, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H, W)"""
        y: Tensor = self.drop_path(self.pw2(F.gelu(self.pw1(self.preffn_bn(x)))))
        return x + y

    cost = staticmethod(replknet.conv_ffn)

    @torch.no_grad()
    def fold(self) -> None:
        """Let the first convolution take over the pre-norm."""
        self.add_module("preffn_bn", fold_ahead(self.preffn_bn, self.pw1.conv))
