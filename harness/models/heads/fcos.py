"""Detection with a network as the backbone: torchvision's FCOS (arXiv 1904.01355) over a feature pyramid.

A level is answerable for boxes whose farthest side lies 4 to 8 of its strides from the middle, the finest for all
smaller and the coarsest for all larger ones. Images are taken as they come, of any size, and normalised already.

Shapes: N batch, H W height and width of the image; boxes are x0, y0, x1, y1 in pixels, x1 and y1 just outside.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.fcos import FCOS, FCOSHead

from harness.errors import Diverged
from harness.models.heads.feature_pyramid import FeaturePyramid, PadToBatch, PointAnchors

MIN_SCORE = 0.05
"""Below it a detection is dropped, as in the code of FCOS; torchvision's 0.2 is for looking at, and cuts AP short."""
NMS_IOU = 0.6
"""Of two detections of a class that overlap more, the better scored one stays; as in FCOS's code."""


class FCOSDetector(FCOS):  # type: ignore[misc]
    """Backbone, feature pyramid, and the head that all levels share.

    In training, (images, targets) -> the three losses by name; in evaluation, images -> a mapping of boxes (D, 4),
    scores and labels (D,) for each. Images are float32 (N, in_channels, H, W), or a list of images of several sizes;
    each target is a mapping of boxes (B, 4) and int64 labels (B,), counted from 0.
    """

    def __init__(
        self,
        pyramid: FeaturePyramid,
        *,
        classes: int,
        overlap: float = NMS_IOU,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """The ground is no class; `layout` is that of batches that are padded here."""
        super().__init__(
            pyramid,
            classes,
            anchor_generator=PointAnchors(pyramid.strides),
            head=FCOSDetectionHead(pyramid.out_channels, 1, classes),
            score_thresh=MIN_SCORE,
            nms_thresh=overlap,
        )
        self.transform = PadToBatch(layout)

    def postprocess_detections(self, head_outputs: dict[str, list[Tensor]], *args: Any) -> list[dict[str, Tensor]]:
        """As torchvision has it. Raises `Diverged` where an output of the head is not finite."""
        require_finite_outputs(level for levels in head_outputs.values() for level in levels)
        detections: list[dict[str, Tensor]] = super().postprocess_detections(head_outputs, *args)
        return detections


class FCOSDetectionHead(FCOSHead):  # type: ignore[misc]
    """torchvision's, with outputs in float32: bfloat16 cannot tell one pixel from the next beyond the 256th."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Maps -> logits of classes, distances to the four sides and centredness, (N, pixels of all levels, .) each."""
        return {name: output.float() for name, output in super().forward(x).items()}


def require_finite_outputs(outputs: Iterable[Tensor]) -> None:
    """Raise `Diverged` where an output of a head is not finite: it would find nothing, silently."""
    if not all(output.isfinite().all() for output in outputs):
        raise Diverged("the detection's outputs are not finite after its last step")
