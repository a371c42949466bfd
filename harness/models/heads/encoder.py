"""A network as the backbone of dense prediction.

It stays in its training form: RepLKNet's author recommends unmerged weights as the initialization of downstream
training, and the whole model can be merged after it.

Shapes: N batch, H W height and width of the image; a map of stride s has height H / s, rounded as its family rounds.
"""

import itertools
import operator
from typing import Self

from torch import Tensor, nn

from harness.models.spec.family import FAMILIES
from harness.models.spec.network import NetworkSpec

LAYERS_AFTER_STAGES = ("last", "norm", "head")
"""Layers of the classifier; an encoder drops them."""
FIRST_MAP = 2
"""Index of the finest map for segmentation-models-pytorch's decoders: after the image and a map of stride 2."""


class Encoder(nn.Module):
    """A network without its classifier, with the interface of an encoder of segmentation-models-pytorch.

    `out_channels` and the returned list have the same order: the image, an empty map, then one map per stride from
    `finest` (or from the finest of the network), each the last one of its stride. A frozen encoder is not trained.
    With `normed`, each map has its own batch norm, as in RepLKNet-XL's code for dense prediction.
    """

    def __init__(
        self, network: nn.Module, spec: NetworkSpec, *, finest: int, frozen: bool = False, normed: bool = False
    ) -> None:
        """`network` becomes a submodule and loses its classifier."""
        super().__init__()
        self.network = network
        for name in LAYERS_AFTER_STAGES:
            if hasattr(network, name):
                setattr(network, name, nn.Identity())
        self.is_frozen = frozen
        self.requires_grad_(not frozen)
        strides = itertools.accumulate(FAMILIES[spec.family].strides, operator.mul, initial=spec.stem_stride)
        last = {stride: stage for stage, stride in enumerate(itertools.islice(strides, 1, None))}
        self.stages = {stride: stage for stride, stage in last.items() if stride >= finest}
        """By stride, the stage whose map is used."""
        self.out_channels = [spec.in_channels, 0, *(spec.C[stage] for stage in self.stages.values())]
        self.output_stride = max(self.stages)
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(spec.C[stage]) if normed else nn.Identity() for stage in self.stages.values()
        )

    def train(self, mode: bool = True) -> Self:
        """As in `nn.Module`; a frozen encoder stays in evaluation mode, which keeps its batch-norm statistics."""
        return super().train(mode and not self.is_frozen)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, H, W) -> the image, an empty map, and the maps from fine to coarse."""
        maps: list[Tensor] = self.network.features(x)  # type: ignore[operator]
        outputs = (norm(maps[stage]) for norm, stage in zip(self.norms, self.stages.values(), strict=True))
        return [x, x[:, :0], *outputs]
