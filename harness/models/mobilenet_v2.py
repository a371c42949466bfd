"""MobileNetV2 with a large kernel in every block (arXiv 1801.04381, table 2): the network of RepLKNet's ablations.

Shapes: N batch, H W height and width of the image; stage s has C[s] channels. The first block of a stage has its
stride. There is no dropout before the classifier.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.cost import families
from harness.models.large_kernels import large_kernel
from harness.models.layers import ConvBN, ConvBNReLU6, DropPath, StagedNetwork, drop_path_by_stage
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import Kernel
from harness.models.spec.network import NetworkSpec


class InvertedResidual(nn.Module):
    """x + pw2(relu6(large_kernel(relu6(pw1(x)))))

    Without pw1 if width is c_in; without the "x +" if the shapes differ, or with shortcut=False.
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

    cost = staticmethod(families.inverted_residual)


class MobileNetV2(StagedNetwork):
    """Stem, seven stages, and a head of a 1x1 convolution, the pooling and the classifier."""

    def __init__(self, spec: NetworkSpec, *, merged: bool = False) -> None:
        super().__init__()
        c = families.MOBILENET_STEM * spec.C[0]
        self.stem = ConvBNReLU6(spec.in_channels, c, 3, stride=spec.stem_stride)
        self.stages = nn.ModuleList()
        for i, drop_paths in enumerate(drop_path_by_stage(spec)):
            self.stages.append(_stage(spec, i, c, drop_paths, merged))
            c = spec.C[i]
        self.last = ConvBNReLU6(c, families.MOBILENET_LAST * c, 1)
        self.head: nn.Module = nn.Linear(families.MOBILENET_LAST * c, spec.classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, 4 C[-1], H', W')."""
        y: Tensor = self.last(self.features(x)[-1])
        return y

    def forward_head(self, x: Tensor) -> Tensor:
        """(N, 4 C[-1], H', W') -> logits (N, classes)."""
        y: Tensor = self.head(x.mean((2, 3)))
        return y


def _stage(spec: NetworkSpec, i: int, c_in: int, drop_paths: list[float], merged: bool) -> nn.Sequential:
    """The blocks of stage i; the first one has c_in input channels and the stride."""
    blocks: list[nn.Module] = []
    for j, p in enumerate(drop_paths):
        c_from = spec.C[i] if j else c_in
        blocks.append(
            InvertedResidual(
                c_from,
                spec.C[i],
                width=families.expanded_width(spec, i, c_from),
                kernel=spec.kernel_of(i),
                stride=1 if j else FAMILIES[spec.family].strides[i],
                shortcut=spec.at("shortcut", i),
                drop_path=p,
                merged=merged,
            )
        )
    return nn.Sequential(*blocks)
