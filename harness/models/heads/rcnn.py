"""Mask R-CNN (arXiv 1703.06870) and Cascade Mask R-CNN (arXiv 1712.00726) with a network as the backbone.

A region proposal network names boxes; a head looks at them one by one. In a cascade, three heads do so one behind the
other: each learns from boxes that overlap with figures more than those of the head before it, which are the ones that
this head has moved. Their opinions of a box's class are averaged; it stands where the last one has moved it.

Shapes: N batch, H W height and width of the image; boxes are x0, y0, x1, y1 in pixels, x1 and y1 just outside.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import clip_boxes_to_image

from harness.models.heads.fcos import require_finite_outputs
from harness.models.heads.feature_pyramid import ASPECT_RATIOS, BoxAnchors, FeaturePyramid, PadToBatch
from harness.models.heads.roi_heads import (
    RCNNStage,
    RoIHeadsConfig,
    Sizes,
    StageSample,
    Targets,
    average_logits,
    select_class_masks,
)

ANCHOR_SCALE = 8.0
"""Side of the anchors in strides: 32 pixels on the finest map of stride 4 (arXiv 1612.03144)."""
PROPOSALS = {"training": 2000, "testing": 1000}
"""Boxes that are proposed, of each map before duplicates are dropped and of an image after."""


class CascadeStage(NamedTuple):
    """What tells a stage from the others."""

    iou_threshold: float
    """Overlap from which on a box is a figure's."""
    delta_scale: float
    """Standard deviation of the moves, in sides of the box; of its size twice that."""
    loss_weight: float
    """Of its losses."""


SINGLE_STAGE = (CascadeStage(0.5, 0.1, 1.0),)
"""Mask R-CNN."""
CASCADE = (CascadeStage(0.5, 0.1, 1.0), CascadeStage(0.6, 0.05, 0.5), CascadeStage(0.7, 0.033, 0.25))
"""Cascade R-CNN; the numbers are those of RepLKNet's code, which has the last moves of the size in 0.067."""


class RCNN(GeneralizedRCNN):  # type: ignore[misc]
    """Backbone, feature pyramid, region proposals, and one look at these or several.

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
        rungs: tuple[CascadeStage, ...] = SINGLE_STAGE,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """`layout` is that of batches that are padded here."""
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
        super().__init__(pyramid, proposals, Cascade(pyramid, heads, rungs), PadToBatch(layout))

    def forward(self, images: Tensor | list[Tensor], targets: Targets | None = None) -> dict[str, Tensor] | Targets:
        """As of the class. Inside, the ground is class 0."""
        if self.training:
            assert targets is not None, "a detector learns from targets"
            shifted = [target | {"labels": target["labels"] + 1} for target in targets]
            losses: dict[str, Tensor] = super().forward(images, shifted)
            return losses
        return [found | {"labels": found["labels"] - 1} for found in super().forward(images)]


class ProposalHead(RPNHead):  # type: ignore[misc]
    """torchvision's, with outputs in float32. Raises `Diverged` in evaluation where one is not finite."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps -> for each, logits of there being something (N, anchors, H', W') and moves (N, 4 * anchors, H', W')."""
        logits, deltas = ([tensor.float() for tensor in outputs] for outputs in super().forward(x))
        if not self.training:
            require_finite_outputs([*logits, *deltas])
        return logits, deltas


class Cascade(nn.Module):
    """Looks at boxes, one behind the other; a single one is Mask R-CNN's."""

    def __init__(self, pyramid: FeaturePyramid, heads: RoIHeadsConfig, rungs: tuple[CascadeStage, ...]) -> None:
        super().__init__()
        self.rungs = rungs
        self.stages = nn.ModuleList(
            RCNNStage(pyramid, heads, matched_at=stage.iou_threshold, unit=stage.delta_scale) for stage in rungs
        )

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes, targets: Targets | None = None
    ) -> tuple[Targets, dict[str, Tensor]]:
        """Maps and proposed boxes -> what is found, in evaluation; the losses, in training."""
        if not self.training:
            return self._detect(maps, boxes, sizes), {}
        assert targets is not None, "a detector learns from targets"
        own, sample = self.roi_stages[0].losses(maps, boxes, sizes, targets)
        losses = [own]
        for before, stage in itertools.pairwise(self.roi_stages):
            own, sample = stage.losses(maps, apply_deltas_to_sample(before, sample, sizes, targets), sizes, targets)
            losses.append(own)
        weighted = zip(itertools.count(), self.rungs, losses, strict=False)
        return [], {f"{name}_{i}": stage.loss_weight * loss for i, stage, own in weighted for name, loss in own.items()}

    @property
    def roi_stages(self) -> list[RCNNStage]:
        """The stages, the first one first."""
        return [stage for stage in self.stages if isinstance(stage, RCNNStage)]

    def _detect(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> Targets:
        logits, deltas = self.roi_stages[0].predict(maps, boxes, sizes)
        opinions = [logits]
        for before, stage in itertools.pairwise(self.roi_stages):
            boxes = apply_deltas(before, boxes, logits[:, 1:].argmax(1) + 1, deltas, sizes)
            logits, deltas = stage.predict(maps, boxes, sizes)
            opinions.append(logits)
        last, said = self.roi_stages[-1], average_logits(opinions)
        rows = zip(*last.postprocess_detections(said, deltas, boxes, sizes), strict=True)
        found = [dict(zip(("boxes", "scores", "labels"), row, strict=True)) for row in rows]
        if last.has_mask():
            self._add_masks(found, maps, sizes)
        return found

    def _add_masks(self, found: Targets, maps: dict[str, Tensor], sizes: Sizes) -> None:
        """What all stages together take for the figure in each box."""
        boxes = [target["boxes"] for target in found]
        opinions = torch.stack([stage.mask_logits(maps, boxes, sizes).sigmoid() for stage in self.roi_stages])
        for target, masks in zip(found, select_class_masks(opinions.mean(0), found), strict=True):
            target["masks"] = masks


def apply_deltas_to_sample(stage: RCNNStage, sample: StageSample, sizes: Sizes, targets: Targets) -> list[Tensor]:
    """The boxes of a sample where the stage moves them; without the figures' own, which the next stage adds itself.

    A figure is moved as its class is, ground as what it is taken for, as in MMDetection.
    """
    labels = torch.cat(sample.labels)
    ways = torch.where(labels > 0, labels, sample.logits[:, 1:].argmax(1) + 1)
    boxes = apply_deltas(stage, sample.boxes, ways, sample.deltas, sizes)
    own = [(old[:, None] == target["boxes"]).all(2).any(1) for old, target in zip(sample.boxes, targets, strict=True)]
    return [tensor[~given] for tensor, given in zip(boxes, own, strict=True)]


def apply_deltas(stage: RCNNStage, boxes: list[Tensor], classes: Tensor, deltas: Tensor, sizes: Sizes) -> list[Tensor]:
    """The boxes where the stage moves them as of the classes `classes`, (R,), cut at the borders of their images."""
    start = torch.cat(boxes)
    own = deltas.detach().view(len(start), -1, 4)[torch.arange(len(start), device=start.device), classes]
    ends = stage.box_coder.decode_single(own, start).split([len(tensor) for tensor in boxes])
    return [clip_boxes_to_image(tensor, size) for tensor, size in zip(ends, sizes, strict=True)]
