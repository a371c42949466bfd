"""Detection with a network as the backbone: torchvision's FCOS (arXiv 1904.01355) on a feature pyramid.

A level is responsible for boxes whose farthest side is 4 to 8 of its strides from the location, the finest also for all
smaller and the coarsest also for all larger boxes. Images may have any size, and must be normalized already.

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
"""Score threshold of detections, as in FCOS's code; torchvision's 0.2 is for visualization and reduces AP."""
NMS_IOU = 0.6
"""IoU threshold of non-maximum suppression, as in FCOS's code."""


class FCOSDetector(FCOS):  # type: ignore[misc]
    """Backbone, feature pyramid, and a head shared by all levels.

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
        """`classes` does not count the background; `layout` is the memory format of batches that are padded here."""
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
        """As in torchvision. Raises `Diverged` if an output of the head is not finite."""
        require_finite_outputs(level for levels in head_outputs.values() for level in levels)
        detections: list[dict[str, Tensor]] = super().postprocess_detections(head_outputs, *args)
        return detections


class FCOSDetectionHead(FCOSHead):  # type: ignore[misc]
    """torchvision's head, with outputs in float32: bfloat16 cannot distinguish adjacent pixels beyond the 256th."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Maps -> class logits, distances to the four sides and centerness, (N, pixels of all levels, .) each."""
        return {name: output.float() for name, output in super().forward(x).items()}


def require_finite_outputs(outputs: Iterable[Tensor]) -> None:
    """Raise `Diverged` if an output of a head is not finite: otherwise it would silently detect nothing."""
    if not all(output.isfinite().all() for output in outputs):
        raise Diverged("the detection's outputs are not finite after its last step")
