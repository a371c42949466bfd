"""Detection with a network as the backbone: torchvision's FCOS (arXiv 1904.01355) over a feature pyramid.

Its levels are the maps that the backbone has, with their own strides: a level is answerable for boxes whose farthest
side lies 4 to 8 strides from the middle, the finest for all smaller and the coarsest for all larger ones. Images are
taken as they come, of any size, and normalised already.

Shapes: N batch, H W height and width of the image; boxes are x0, y0, x1, y1 in pixels, x1 and y1 just outside.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork

from harness.downstream.encoder import FIRST_MAP, Encoder
from harness.errors import Diverged
from harness.recipe import Transfer
from harness.spec import NetworkSpec

LEAST_SCORE = 0.05
"""Below it a detection is dropped, as in the code of FCOS; torchvision's 0.2 is for looking at, and cuts AP short."""


class Detector(FCOS):  # type: ignore[misc]
    """Backbone, feature pyramid, and the head that all levels share.

    In training, (images, targets) -> the three losses by name; in evaluation, images -> a mapping of boxes (D, 4),
    scores and labels (D,) for each. Images are float32 (N, in_channels, H, W); each target is a mapping of boxes (B, 4)
    and int64 labels (B,), counted from 0.
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec, transfer: Transfer, *, classes: int) -> None:
        """`network` becomes a part of it and loses its classifier; the ground is no class."""
        encoder = Encoder(network, spec, finest=transfer.finest, frozen=transfer.frozen)
        super().__init__(
            Pyramid(encoder, transfer.channels),
            classes,
            anchor_generator=Cells(list(encoder.stages)),
            head=Head(transfer.channels, 1, classes),
            score_thresh=LEAST_SCORE,
        )
        self.transform = AsTheyCome()

    def postprocess_detections(self, head_outputs: dict[str, list[Tensor]], *args: Any) -> list[dict[str, Tensor]]:
        """As torchvision has it. Raises `Diverged` where an output of the head is not finite."""
        if not all(level.isfinite().all() for levels in head_outputs.values() for level in levels):
            raise Diverged("the detection's outputs are not finite after its last step")
        found: list[dict[str, Tensor]] = super().postprocess_detections(head_outputs, *args)
        return found


class Pyramid(nn.Module):
    """The encoder's maps, brought to one width from the coarsest down to the finest (arXiv 1612.03144)."""

    def __init__(self, encoder: Encoder, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.pyramid = FeaturePyramidNetwork(encoder.out_channels[FIRST_MAP:], channels)
        self.out_channels = channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, in_channels, H, W) -> by stride, maps (N, channels, H', W') from fine to coarse."""
        strides = (str(stride) for stride in self.encoder.stages)
        levels: dict[str, Tensor] = self.pyramid(OrderedDict(zip(strides, self.encoder(x)[FIRST_MAP:], strict=True)))
        return levels


class Head(FCOSHead):  # type: ignore[misc]
    """torchvision's, with outputs in float32: bfloat16 cannot tell one pixel from the next beyond the 256th."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Maps -> logits of classes, distances to the four sides and centredness, (N, pixels of all levels, .) each."""
        return {name: output.float() for name, output in super().forward(x).items()}


class Cells(AnchorGenerator):  # type: ignore[misc]
    """For every pixel of a map, the square of the image for which it stands, as wide as the map's stride.

    torchvision's own takes the stride to be H // H', which is wrong for maps whose side was rounded.
    """

    def __init__(self, strides: list[int]) -> None:
        super().__init__(sizes=tuple((stride,) for stride in strides), aspect_ratios=((1.0,),) * len(strides))
        self.strides = strides

    def forward(self, images: ImageList, maps: list[Tensor]) -> list[Tensor]:
        """Squares (pixels of all maps, 4), the same for every image."""
        cells = torch.cat([_cells(each, stride) for each, stride in zip(maps, self.strides, strict=True)])
        return [cells] * len(images.image_sizes)


def _cells(level: Tensor, stride: int) -> Tensor:
    """(N, channels, H', W') -> float32 (H' * W', 4), row by row."""
    rows, columns = (torch.arange(side, device=level.device) for side in level.shape[2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return stride * torch.stack([x, y, x + 1, y + 1], dim=-1).view(-1, 4).float()


class AsTheyCome(nn.Module):
    """In the place of torchvision's transform, which normalises, resizes and pads image by image."""

    def forward(
        self, images: Tensor, targets: list[dict[str, Tensor]] | None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        """The images and targets themselves."""
        return ImageList(images, [(images.shape[2], images.shape[3])] * len(images)), targets

    def postprocess(self, found: list[dict[str, Tensor]], *_: Any) -> list[dict[str, Tensor]]:
        """The detections themselves."""
        return found
