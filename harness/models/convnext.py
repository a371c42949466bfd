"""ConvNeXt (arXiv 2201.03545) with kernels of any size and kind, leaf to root: stem, step, block, stage, head, network.

Shapes: N batch, H W height and width of the image; stage s has C[s] channels on a map of height H / stem_stride / 2**s.
Modules, names of parameters and initial weights are those of timm's ConvNeXt if the kernel is plain without a parallel
small kernel, or merged.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.cost import families
from harness.models.large_kernels import large_kernel
from harness.models.large_kernels.reparam import Mergeable, ReparamConv
from harness.models.layers import LAYER_NORM_EPS, DropPath, LayerNorm2d, StagedNetwork, conv2d, drop_path_by_stage
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import Kernel
from harness.models.spec.network import NetworkSpec, inner_width


class ConvNeXtStem(nn.Sequential):
    """ln(conv(x)), with kernel size = stride: (N, c_in, H, W) -> (N, c, H / stride, W / stride), rounded down."""

    def __init__(self, c_in: int, c: int, *, stride: int = 4) -> None:
        super().__init__(nn.Conv2d(c_in, c, stride, stride), LayerNorm2d(c))

    cost = staticmethod(families.convnext_stem)


class Downsample(nn.Sequential):
    """conv(ln(x)), with a 2x2 kernel of stride 2: (N, c_in, H, W) -> (N, c, H / 2, W / 2), rounded down."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__(LayerNorm2d(c_in), nn.Conv2d(c_in, c, 2, 2))

    cost = staticmethod(families.downsample)


class ConvNeXtMLP(nn.Module):
    """fc2(gelu(fc1(x)))"""

    def __init__(self, c: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(c, width)
        self.fc2 = nn.Linear(width, c)

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)"""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class ConvNeXtBlock(nn.Module):
    """x + gamma mlp(ln(conv_dw(x)))

    gamma scales each channel and is initialized to 1e-6; with shortcut=False (otherwise the output would vanish) to 1.
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
        if families.is_single(kernel, merged=merged):
            groups = c if kernel.depthwise else 1
            self.conv_dw = conv2d(c, c, kernel.k, dilation=kernel.dilation, groups=groups, bias=True)
        else:
            self.conv_dw = large_kernel(c, kernel, merged=merged)
        self.norm = nn.LayerNorm(c, eps=LAYER_NORM_EPS)
        self.mlp = ConvNeXtMLP(c, width)
        self.gamma = nn.Parameter(torch.full((c,), 1e-6 if shortcut else 1.0))
        self.drop_path = DropPath(drop_path if shortcut else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H, W)"""
        y = self.conv_dw(x).permute(0, 2, 3, 1)
        y = self.gamma * self.mlp(self.norm(y))
        residual: Tensor = self.drop_path(y.permute(0, 3, 1, 2))
        return x + residual if self.shortcut else residual

    cost = staticmethod(families.convnext_block)

    def merge(self) -> None:
        """Merge the large kernel; if it becomes a single convolution, that replaces `conv_dw`, as in ConvNeXt."""
        if isinstance(self.conv_dw, Mergeable):
            self.conv_dw.merge()
        if isinstance(self.conv_dw, ReparamConv) and self.conv_dw.lkb_reparam is not None:
            self.conv_dw = self.conv_dw.lkb_reparam


class ConvNeXtStage(nn.Module):
    """Downsampling (except in the first stage) and blocks."""

    def __init__(self, spec: NetworkSpec, i: int, *, drop_paths: list[float], merged: bool) -> None:
        super().__init__()
        c, has_step = spec.C[i], FAMILIES[spec.family].strides[i] > 1
        self.downsample = Downsample(spec.C[i - 1], c) if has_step else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                ConvNeXtBlock(
                    c,
                    width=inner_width(c, spec.at("ffn_ratio", i)),
                    kernel=spec.kernel_of(i),
                    shortcut=spec.at("shortcut", i),
                    drop_path=p,
                    merged=merged,
                )
                for p in drop_paths
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C[i - 1], H, W) -> (N, C[i], H / 2, W / 2), rounded down; the first stage keeps the size."""
        y: Tensor = self.blocks(self.downsample(x))
        return y


class ConvNeXtHead(nn.Module):
    """fc(ln(the mean over the map))"""

    def __init__(self, c: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c, eps=LAYER_NORM_EPS)
        self.fc = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, classes)"""
        y: Tensor = self.fc(self.norm(x.mean((2, 3))))
        return y


class ConvNeXt(StagedNetwork):
    """Stem, four stages, head."""

    def __init__(self, spec: NetworkSpec, *, merged: bool = False) -> None:
        super().__init__()
        self.stem = ConvNeXtStem(spec.in_channels, spec.C[0], stride=spec.stem_stride)
        drop_paths = drop_path_by_stage(spec)
        self.stages = nn.ModuleList(
            ConvNeXtStage(spec, i, drop_paths=p, merged=merged) for i, p in enumerate(drop_paths)
        )
        self.head = ConvNeXtHead(spec.C[-1], spec.classes)
        self.apply(_initialize)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, C[-1], H', W')."""
        return self.features(x)[-1]

    def forward_head(self, x: Tensor) -> Tensor:
        """(N, C[-1], H', W') -> logits (N, classes)."""
        y: Tensor = self.head(x)
        return y


def _initialize(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
