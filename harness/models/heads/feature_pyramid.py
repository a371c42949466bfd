"""Parts shared by all detectors: a network's maps as a feature pyramid, anchors, and the padding of images.

Shapes: N batch, H W height and width of the image; boxes are x0, y0, x1, y1 in pixels, x1 and y1 just outside.
"""

from collections import OrderedDict
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from harness.models.heads.encoder import FIRST_MAP, Encoder

SIZE_DIVISIBLE = 32
"""Images of several sizes are padded to a common size, whose sides are multiples of this."""
ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Height / width of the anchors of Faster R-CNN (arXiv 1506.01497)."""

ExtraLevels = Literal["nothing", "pool", "convolutions"]
"""Levels above the coarsest map: none; one map of every second of its pixels (arXiv 1612.03144, for the RPN); or two
maps of strided convolutions, P6 and P7, computed from P5 (arXiv 1904.01355)."""


class FeaturePyramid(nn.Module):
    """The encoder's maps with a common width, combined from the coarsest to the finest (arXiv 1612.03144)."""

    def __init__(self, encoder: Encoder, channels: int, above: ExtraLevels = "nothing") -> None:
        super().__init__()
        more = {"nothing": None, "pool": LastLevelMaxPool(), "convolutions": LastLevelP6P7(channels, channels)}[above]
        self.encoder = encoder
        self.pyramid = FeaturePyramidNetwork(encoder.out_channels[FIRST_MAP:], channels, more)
        self.out_channels = channels
        self.own_strides = list(encoder.stages)
        """Strides of the encoder's maps; they are also the maps' names."""
        added = {"nothing": 0, "pool": 1, "convolutions": 2}[above]
        self.strides = self.own_strides + [self.own_strides[-1] * 2 ** (1 + i) for i in range(added)]
        """Strides of all maps."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, in_channels, H, W) -> maps (N, channels, H', W') by name, from fine to coarse."""
        strides = (str(stride) for stride in self.own_strides)
        levels: dict[str, Tensor] = self.pyramid(OrderedDict(zip(strides, self.encoder(x)[FIRST_MAP:], strict=True)))
        return levels


class PointAnchors(AnchorGenerator):  # type: ignore[misc]
    """For every pixel of a map, the square of the image that it covers, with the map's stride as its side.

    torchvision's generator computes the stride as H // H', which is wrong for maps whose side was rounded.
    """

    def __init__(self, strides: list[int]) -> None:
        super().__init__(sizes=tuple((stride,) for stride in strides), aspect_ratios=((1.0,),) * len(strides))
        self.strides = strides

    def forward(self, images: ImageList, maps: list[Tensor]) -> list[Tensor]:
        """Squares (pixels of all maps, 4), the same for every image."""
        cells = torch.cat([_cells(tensor, stride) for tensor, stride in zip(maps, self.strides, strict=True)])
        return [cells] * len(images.image_sizes)


def _cells(level: Tensor, stride: int) -> Tensor:
    """(N, channels, H', W') -> float32 (H' * W', 4), row by row."""
    rows, columns = (torch.arange(side, device=level.device) for side in level.shape[2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return stride * torch.stack([x, y, x + 1, y + 1], dim=-1).view(-1, 4).float()


class BoxAnchors(AnchorGenerator):  # type: ignore[misc]
    """For every pixel of a map, three boxes of equal area around its corner, with the map's true stride.

    torchvision's generator computes a wrong stride (see `PointAnchors`), and uses the precision of the maps, which may
    be bfloat16.
    """

    def __init__(self, strides: list[int], scale: float) -> None:
        """`scale` is the side of the square anchor, in strides."""
        super().__init__(tuple((scale * stride,) for stride in strides), (ASPECT_RATIOS,) * len(strides))
        self.strides = strides

    def forward(self, images: ImageList, maps: list[Tensor]) -> list[Tensor]:
        """Boxes float32 (anchors of all maps, 4), the same for every image."""
        self.set_cell_anchors(torch.float32, maps[0].device)
        sides = [tuple(tensor.shape[-2:]) for tensor in maps]
        anchors = torch.cat(self.grid_anchors(sides, [(stride, stride) for stride in self.strides]))
        return [anchors.float()] * len(images.image_sizes)


class PadToBatch(nn.Module):
    """Replaces torchvision's GeneralizedRCNNTransform: pads, but does not normalize or resize.

    A batch is not changed. Images of several sizes are put into the upper left corner of a common size.
    """

    def __init__(self, layout: torch.memory_format = torch.contiguous_format) -> None:
        super().__init__()
        self.layout = layout

    def forward(
        self, images: Tensor | list[Tensor], targets: list[dict[str, Tensor]] | None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        """The images, padded with zeros if they have several sizes, with their sizes; and the unchanged targets.

        Masks of targets are not padded, because they are read box by box.
        """
        sizes = [(tensor.shape[-2], tensor.shape[-1]) for tensor in images]
        if isinstance(images, Tensor):
            return ImageList(images, sizes), targets
        height, width = (-(-max(sides) // SIZE_DIVISIBLE) * SIZE_DIVISIBLE for sides in zip(*sizes, strict=True))
        batch = (
            images[0].new_zeros(len(images), images[0].shape[0], height, width).contiguous(memory_format=self.layout)
        )
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        return ImageList(batch, sizes), targets

    def postprocess(self, detections: list[dict[str, Tensor]], *_: Any) -> list[dict[str, Tensor]]:
        """The detections, unchanged."""
        return detections
