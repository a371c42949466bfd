"""ConvNeXt (arXiv 2201.03545) with kernels of any size and kind.

Shapes: N batch, H W height and width of the image; stage s has C[s] channels on a map of height H / stem_stride / 2**s.
Modules, names of parameters and initial weights as in timm's ConvNeXt.
"""

from torch import Tensor, nn

from harness.models.convnext_block import ConvNeXtBlock
from harness.models.convnext_patches import ConvNeXtStem, Downsample
from harness.models.drop_path import drop_path_by_stage
from harness.models.layers import LAYER_NORM_EPS
from harness.models.spec.family import FAMILIES
from harness.models.spec.network import NetworkSpec, inner_width


class Stage(nn.Module):
    """The step to a smaller map, where there is one, and blocks."""

    def __init__(self, spec: NetworkSpec, i: int, *, drop_paths: list[float], merged: bool) -> None:
        super().__init__()
        c, has_step = spec.C[i], FAMILIES[spec.family].strides[i] > 1
        self.downsample = Downsample(spec.C[i - 1], c) if has_step else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                ConvNeXtBlock(
                    c,
                    width=inner_width(c, spec.ffn_ratio),
                    kernel=spec.kernel_of(i),
                    shortcut=spec.shortcut,
                    drop_path=p,
                    merged=merged,
                )
                for p in drop_paths
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C[i - 1], H, W) -> (N, C[i], H / 2, W / 2), rounded down; the first stage keeps the side."""
        y: Tensor = self.blocks(self.downsample(x))
        return y


class Head(nn.Module):
    """fc(ln(the mean over the map))"""

    def __init__(self, c: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c, eps=LAYER_NORM_EPS)
        self.fc = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, classes)"""
        y: Tensor = self.fc(self.norm(x.mean((2, 3))))
        return y


class ConvNeXt(nn.Module):
    """Stem, four stages, head."""

    def __init__(self, spec: NetworkSpec, *, merged: bool = False) -> None:
        super().__init__()
        self.stem = ConvNeXtStem(spec.in_channels, spec.C[0], stride=spec.stem_stride)
        drop_paths = drop_path_by_stage(spec)
        self.stages = nn.ModuleList(Stage(spec, i, drop_paths=p, merged=merged) for i, p in enumerate(drop_paths))
        self.head = Head(spec.C[-1], spec.classes)
        self.apply(_initialise)

    def features(self, x: Tensor) -> list[Tensor]:
        """The output maps of all stages: (N, C[s], H_s, W_s) each."""
        maps: list[Tensor] = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, C[-1], H', W')."""
        return self.features(x)[-1]

    def forward_head(self, x: Tensor) -> Tensor:
        """(N, C[-1], H', W') -> logits (N, classes)."""
        y: Tensor = self.head(x)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, classes)."""
        return self.forward_head(self.forward_features(x))


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
