"""Detectors with a network as the backbone, and their table, from torchvision's parts.

FCOS (arXiv 1904.01355) on a feature pyramid: a level is responsible for boxes whose farthest side is 4 to 8 of its
strides from the location, the finest also for all smaller and the coarsest also for all larger boxes.

Mask R-CNN (arXiv 1703.06870) and Cascade Mask R-CNN (arXiv 1712.00726): a region proposal network proposes boxes; a
head classifies and refines each of them. A cascade has three such heads in sequence: each is trained on the boxes
refined by the head before it, with a higher IoU threshold for positive boxes. The class probabilities of all heads are
averaged; the boxes are those of the last head.

Images may have any size, and must be normalized already.
Shapes: N batch, H W height and width of the image; boxes are x0, y0, x1, y1 in pixels, x1 and y1 just outside.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import clip_boxes_to_image

from harness.errors import Diverged
from harness.models.heads.encoder import Encoder
from harness.models.heads.feature_pyramid import ASPECT_RATIOS, BoxAnchors, FeaturePyramid, PadToBatch, PointAnchors
from harness.models.heads.roi_heads import (
    RCNNStage,
    RoIHeadsConfig,
    Sizes,
    StageSample,
    Targets,
    average_logits,
    select_class_masks,
)

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
        nms_iou: float = NMS_IOU,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """`classes` does not count the background; `layout` is the memory format of batches that are padded here."""
        super().__init__(
            pyramid,
            classes,
            anchor_generator=PointAnchors(pyramid.strides),
            head=FCOSDetectionHead(pyramid.out_channels, 1, classes),
            score_thresh=MIN_SCORE,
            nms_thresh=nms_iou,
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


ANCHOR_SCALE = 8.0
"""Side of the anchors in strides: 32 pixels on the finest map of stride 4 (arXiv 1612.03144)."""
PROPOSALS = {"training": 2000, "testing": 1000}
"""Number of proposals: per map before non-maximum suppression, and per image after it."""


class CascadeStage(NamedTuple):
    """The settings of one stage of a cascade."""

    iou_threshold: float
    """IoU with an object from which a box is positive."""
    delta_scale: float
    """Standard deviation of the center deltas, in sides of the box; twice that for the size."""
    loss_weight: float
    """Weight of the stage's losses."""


SINGLE_STAGE = (CascadeStage(0.5, 0.1, 1.0),)
"""Mask R-CNN."""
CASCADE = (CascadeStage(0.5, 0.1, 1.0), CascadeStage(0.6, 0.05, 0.5), CascadeStage(0.7, 0.033, 0.25))
"""Cascade R-CNN, with the values of RepLKNet's code, except that there the last scale of the size is 0.067."""


class RCNN(GeneralizedRCNN):  # type: ignore[misc]
    """Backbone, feature pyramid, region proposals, and one or several stages of box heads.

    In training, (images, targets) -> losses by name; in evaluation, images -> a mapping of boxes (D, 4), scores and
    labels (D,) for each, and of masks (D, 1, 28, 28), from 0 to 1 in the box. Images are float32
    (N, in_channels, H, W), or a list of images of several sizes; each target is a mapping of boxes (B, 4), int64 labels
    (B,), counted from 0, and masks (B, H, W), 0 or 1, where there are mask heads.
    """

    def __init__(
        self,
        pyramid: FeaturePyramid,
        heads: RoIHeadsConfig,
        *,
        cascade: tuple[CascadeStage, ...] = SINGLE_STAGE,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """`layout` is the memory format of batches that are padded here."""
        proposals = RegionProposalNetwork(
            BoxAnchors(pyramid.strides, ANCHOR_SCALE),
            ProposalHead(pyramid.out_channels, len(ASPECT_RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n=PROPOSALS,
            post_nms_top_n=PROPOSALS,
            nms_thresh=0.7,
        )
        super().__init__(pyramid, proposals, Cascade(pyramid, heads, cascade), PadToBatch(layout))

    def forward(self, images: Tensor | list[Tensor], targets: Targets | None = None) -> dict[str, Tensor] | Targets:
        """See the class. Internally, the background is class 0."""
        if self.training:
            assert targets is not None, "training needs targets"
            shifted = [target | {"labels": target["labels"] + 1} for target in targets]
            losses: dict[str, Tensor] = super().forward(images, shifted)
            return losses
        return [detections | {"labels": detections["labels"] - 1} for detections in super().forward(images)]


class ProposalHead(RPNHead):  # type: ignore[misc]
    """torchvision's head, with outputs in float32. Raises `Diverged` in evaluation if one is not finite."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps -> for each, objectness logits (N, anchors, H', W') and box deltas (N, 4 * anchors, H', W')."""
        logits, deltas = ([tensor.float() for tensor in outputs] for outputs in super().forward(x))
        if not self.training:
            require_finite_outputs([*logits, *deltas])
        return logits, deltas


class Cascade(nn.Module):
    """A sequence of R-CNN stages; with a single one it is Mask R-CNN."""

    def __init__(self, pyramid: FeaturePyramid, heads: RoIHeadsConfig, cascade: tuple[CascadeStage, ...]) -> None:
        super().__init__()
        self.cascade = cascade
        self.stages = nn.ModuleList(
            RCNNStage(pyramid, heads, iou_threshold=stage.iou_threshold, delta_scale=stage.delta_scale)
            for stage in cascade
        )

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes, targets: Targets | None = None
    ) -> tuple[Targets, dict[str, Tensor]]:
        """Maps and proposed boxes -> detections in evaluation; losses in training."""
        if not self.training:
            return self._detect(maps, boxes, sizes), {}
        assert targets is not None, "training needs targets"
        stage_losses, sample = self.roi_stages[0].losses(maps, boxes, sizes, targets)
        losses = [stage_losses]
        for before, stage in itertools.pairwise(self.roi_stages):
            refined = apply_deltas_to_sample(before, sample, sizes, targets)
            stage_losses, sample = stage.losses(maps, refined, sizes, targets)
            losses.append(stage_losses)
        stages = zip(itertools.count(), self.cascade, losses, strict=False)
        return [], {f"{name}_{i}": s.loss_weight * loss for i, s, terms in stages for name, loss in terms.items()}

    @property
    def roi_stages(self) -> list[RCNNStage]:
        """The stages, in order."""
        return [stage for stage in self.stages if isinstance(stage, RCNNStage)]

    def _detect(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> Targets:
        logits, deltas = self.roi_stages[0].predict(maps, boxes, sizes)
        all_logits = [logits]
        for before, stage in itertools.pairwise(self.roi_stages):
            boxes = apply_deltas(before, boxes, logits[:, 1:].argmax(1) + 1, deltas, sizes)
            logits, deltas = stage.predict(maps, boxes, sizes)
            all_logits.append(logits)
        last, mean_logits = self.roi_stages[-1], average_logits(all_logits)
        rows = zip(*last.postprocess_detections(mean_logits, deltas, boxes, sizes), strict=True)
        detections = [dict(zip(("boxes", "scores", "labels"), row, strict=True)) for row in rows]
        if last.has_mask():
            self._add_masks(detections, maps, sizes)
        return detections

    def _add_masks(self, detections: Targets, maps: dict[str, Tensor], sizes: Sizes) -> None:
        """Add to each detection the mask probabilities, averaged over all stages."""
        boxes = [target["boxes"] for target in detections]
        probabilities = torch.stack([stage.mask_logits(maps, boxes, sizes).sigmoid() for stage in self.roi_stages])
        for target, masks in zip(detections, select_class_masks(probabilities.mean(0), detections), strict=True):
            target["masks"] = masks


def apply_deltas_to_sample(stage: RCNNStage, sample: StageSample, sizes: Sizes, targets: Targets) -> list[Tensor]:
    """The boxes of a sample, refined by the stage; without the ground-truth boxes, which the next stage adds itself.

    Positive boxes use the deltas of their class, negative boxes those of their predicted class, as in MMDetection.
    """
    labels = torch.cat(sample.labels)
    classes = torch.where(labels > 0, labels, sample.logits[:, 1:].argmax(1) + 1)
    boxes = apply_deltas(stage, sample.boxes, classes, sample.deltas, sizes)
    pairs = zip(sample.boxes, targets, strict=True)
    is_target = [(old[:, None] == target["boxes"]).all(2).any(1) for old, target in pairs]
    return [tensor[~mask] for tensor, mask in zip(boxes, is_target, strict=True)]


def apply_deltas(stage: RCNNStage, boxes: list[Tensor], classes: Tensor, deltas: Tensor, sizes: Sizes) -> list[Tensor]:
    """The boxes after the stage's deltas for the classes `classes` (R,), clipped at the borders of their images."""
    start = torch.cat(boxes)
    selected = deltas.detach().view(len(start), -1, 4)[torch.arange(len(start), device=start.device), classes]
    refined = stage.box_coder.decode_single(selected, start).split([len(tensor) for tensor in boxes])
    return [clip_boxes_to_image(tensor, size) for tensor, size in zip(refined, sizes, strict=True)]


FCOS_NMS_IOU = 0.5
"""IoU threshold of non-maximum suppression in RepLKNet's configuration of FCOS."""

DetectorBuilder = Callable[[Encoder, int, RoIHeadsConfig, torch.memory_format], nn.Module]


def _fcos(encoder: Encoder, channels: int, heads: RoIHeadsConfig, layout: torch.memory_format) -> nn.Module:
    pyramid = FeaturePyramid(encoder, channels, "convolutions")
    return FCOSDetector(pyramid, classes=heads.classes, nms_iou=FCOS_NMS_IOU, layout=layout)


def _rcnn(cascade: tuple[CascadeStage, ...]) -> DetectorBuilder:
    def make(encoder: Encoder, channels: int, heads: RoIHeadsConfig, layout: torch.memory_format) -> nn.Module:
        return RCNN(FeaturePyramid(encoder, channels, "pool"), heads, cascade=cascade, layout=layout)

    return make


DETECTORS: dict[str, DetectorBuilder] = {
    "fcos": _fcos,
    "mask_rcnn": _rcnn(SINGLE_STAGE),
    "cascade_mask_rcnn": _rcnn(CASCADE),
}
"""Builders (encoder, width of the feature pyramid, box heads, layout); FCOS uses only `classes` of the box heads."""
