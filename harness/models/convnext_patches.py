"""ConvNeXt's steps to smaller maps: one patch of the map becomes one pixel (arXiv 2201.03545, sections 2.2 and 2.6).

Names of parameters as in timm's ConvNeXt.
"""

from torch import Tensor, nn

from harness.models.cost import convnext
from harness.models.layers import LayerNorm2d


class ConvNeXtStem(nn.ModuleList):
    """ln(conv(x)), with a kernel of the side of the stride"""

    def __init__(self, c_in: int, c: int, *, stride: int = 4) -> None:
        super().__init__([nn.Conv2d(c_in, c, stride, stride), LayerNorm2d(c)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c, H / stride, W / stride), rounded down."""
        for layer in self:
            x = layer(x)
        return x

    cost = staticmethod(convnext.convnext_stem)


class Downsample(nn.ModuleList):
    """conv(ln(x)), with a 2x2 kernel of stride 2"""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__([LayerNorm2d(c_in), nn.Conv2d(c_in, c, 2, 2)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c, H / 2, W / 2), rounded down."""
        for layer in self:
            x = layer(x)
        return x

    cost = staticmethod(convnext.downsample)
