"""The stem: local detail by several small convolutions before the first stage (RepLKNet, section 4.1)."""

from torch import Tensor, nn

from harness.models.cost import replknet
from harness.models.layers import ConvBNReLU


class Stem(nn.ModuleList):
    """3x3 dense of stride 2, 3x3 depth-wise, 1x1, 3x3 depth-wise of stride 2; of stride 1 for a total stride of 2."""

    def __init__(self, c_in: int, c: int, *, stride: int = 4) -> None:
        super().__init__()
        self.append(ConvBNReLU(c_in, c, 3, stride=2))
        self.append(ConvBNReLU(c, c, 3, groups=c))
        self.append(ConvBNReLU(c, c, 1))
        self.append(ConvBNReLU(c, c, 3, stride=stride // 2, groups=c))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c, H / stride, W / stride), rounded up."""
        for layer in self:
            x = layer(x)
        return x

    cost = staticmethod(replknet.stem)
