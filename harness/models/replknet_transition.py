"""Between stages: more channels, half the side (RepLKNet, section 4.1)."""

from torch import Tensor, nn

from harness.models.cost import replknet
from harness.models.layers import ConvBNReLU


class Transition(nn.ModuleList):
    """1x1 to the next stage's channels, then 3x3 depth-wise of stride 2."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__()
        self.append(ConvBNReLU(c_in, c, 1))
        self.append(ConvBNReLU(c, c, 3, stride=2, groups=c))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c, H / 2, W / 2), rounded up."""
        for layer in self:
            x = layer(x)
        return x

    cost = staticmethod(replknet.transition)
