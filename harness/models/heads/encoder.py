"""A network as the backbone of dense prediction.

It stays in its training form: un-merged weights are the better start for training downstream, as RepLKNet's author
advises, and the whole can be merged when it is trained.

Shapes: N batch, H W height and width of the image; a map of stride s has height H / s, rounded as its family rounds.
"""

import itertools
import operator
from typing import Self

from torch import Tensor, nn

from harness.models.spec.family import FAMILIES
from harness.models.spec.network import NetworkSpec

LAYERS_AFTER_STAGES = ("last", "norm", "head")
"""What classifies; an encoder drops it."""
FIRST_MAP = 2
"""Where segmentation-models-pytorch's decoders look for the finest map: behind the image and a map of stride 2."""


class Encoder(nn.Module):
    """A network without its classifier, as segmentation-models-pytorch wants an encoder.

    `out_channels` and the list that it gives go by index: the image, an empty map, then one map per stride from
    `finest` on (or from the finest that the network has), each the last of its stride. A frozen one does not learn.
    With `normed`, the maps go through batch norms of their own, as RepLKNet-XL's do in its code for dense prediction.
    """

    def __init__(
        self, network: nn.Module, spec: NetworkSpec, *, finest: int, frozen: bool = False, normed: bool = False
    ) -> None:
        """`network` becomes a part of it and loses its classifier."""
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
        """By stride, the stage whose map is read."""
        self.out_channels = [spec.in_channels, 0, *(spec.C[stage] for stage in self.stages.values())]
        self.output_stride = max(self.stages)
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(spec.C[stage]) if normed else nn.Identity() for stage in self.stages.values()
        )

    def train(self, mode: bool = True) -> Self:
        """As of every module; a frozen one keeps the statistics of its batch norms too."""
        return super().train(mode and not self.is_frozen)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, H, W) -> the image, nothing, and the maps from fine to coarse."""
        maps: list[Tensor] = self.network.features(x)  # type: ignore[operator]
        own = (norm(maps[stage]) for norm, stage in zip(self.norms, self.stages.values(), strict=True))
        return [x, x[:, :0], *own]
