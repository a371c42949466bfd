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

from harness.models.heads.fcos import require_finite
from harness.models.heads.feature_pyramid import RATIOS, Anchors, AsTheyCome, Pyramid
from harness.models.heads.roi_heads import BoxHeads, Sample, Sizes, Stage, Targets, mean_opinion, own_masks

ANCHOR_SCALE = 8.0
"""Side of the anchors in strides: 32 pixels on the finest map of stride 4 (arXiv 1612.03144)."""
PROPOSED = {"training": 2000, "testing": 1000}
"""Boxes that are proposed, of each map before duplicates are dropped and of an image after."""


class Rung(NamedTuple):
    """What tells a stage from the others."""

    matched_at: float
    """Overlap from which on a box is a figure's."""
    unit: float
    """Standard deviation of the moves, in sides of the box; of its size twice that."""
    weight: float
    """Of its losses."""


ONE_LOOK = (Rung(0.5, 0.1, 1.0),)
"""Mask R-CNN."""
CASCADE = (Rung(0.5, 0.1, 1.0), Rung(0.6, 0.05, 0.5), Rung(0.7, 0.033, 0.25))
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
        pyramid: Pyramid,
        heads: BoxHeads,
        *,
        rungs: tuple[Rung, ...] = ONE_LOOK,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """`layout` is that of batches that are padded here."""
        proposals = RegionProposalNetwork(
            Anchors(pyramid.strides, ANCHOR_SCALE),
            ProposalHead(pyramid.out_channels, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n=PROPOSED,
            post_nms_top_n=PROPOSED,
            nms_thresh=0.7,
        )
        super().__init__(pyramid, proposals, Cascade(pyramid, heads, rungs), AsTheyCome(layout))

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
        logits, moves = ([each.float() for each in outputs] for outputs in super().forward(x))
        if not self.training:
            require_finite([*logits, *moves])
        return logits, moves


class Cascade(nn.Module):
    """Looks at boxes, one behind the other; a single one is Mask R-CNN's."""

    def __init__(self, pyramid: Pyramid, heads: BoxHeads, rungs: tuple[Rung, ...]) -> None:
        super().__init__()
        self.rungs = rungs
        self.stages = nn.ModuleList(Stage(pyramid, heads, matched_at=rung.matched_at, unit=rung.unit) for rung in rungs)

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes, targets: Targets | None = None
    ) -> tuple[Targets, dict[str, Tensor]]:
        """Maps and proposed boxes -> what is found, in evaluation; the losses, in training."""
        if not self.training:
            return self._found(maps, boxes, sizes), {}
        assert targets is not None, "a detector learns from targets"
        own, sample = self.looks[0].losses(maps, boxes, sizes, targets)
        losses = [own]
        for before, stage in itertools.pairwise(self.looks):
            own, sample = stage.losses(maps, moved_sample(before, sample, sizes, targets), sizes, targets)
            losses.append(own)
        weighted = zip(itertools.count(), self.rungs, losses, strict=False)
        return [], {f"{name}_{i}": rung.weight * loss for i, rung, own in weighted for name, loss in own.items()}

    @property
    def looks(self) -> list[Stage]:
        """The stages, the first one first."""
        return [stage for stage in self.stages if isinstance(stage, Stage)]

    def _found(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> Targets:
        logits, moves = self.looks[0].judged(maps, boxes, sizes)
        opinions = [logits]
        for before, stage in itertools.pairwise(self.looks):
            boxes = moved(before, boxes, logits[:, 1:].argmax(1) + 1, moves, sizes)
            logits, moves = stage.judged(maps, boxes, sizes)
            opinions.append(logits)
        last, said = self.looks[-1], mean_opinion(opinions)
        rows = zip(*last.postprocess_detections(said, moves, boxes, sizes), strict=True)
        found = [dict(zip(("boxes", "scores", "labels"), row, strict=True)) for row in rows]
        if last.has_mask():
            self._add_masks(found, maps, sizes)
        return found

    def _add_masks(self, found: Targets, maps: dict[str, Tensor], sizes: Sizes) -> None:
        """What all stages together take for the figure in each box."""
        boxes = [each["boxes"] for each in found]
        opinions = torch.stack([stage.mask_logits(maps, boxes, sizes).sigmoid() for stage in self.looks])
        for each, masks in zip(found, own_masks(opinions.mean(0), found), strict=True):
            each["masks"] = masks


def moved_sample(stage: Stage, sample: Sample, sizes: Sizes, targets: Targets) -> list[Tensor]:
    """The boxes of a sample where the stage moves them; without the figures' own, which the next stage adds itself.

    A figure is moved as its class is, ground as what it is taken for, as in MMDetection.
    """
    labels = torch.cat(sample.labels)
    ways = torch.where(labels > 0, labels, sample.logits[:, 1:].argmax(1) + 1)
    boxes = moved(stage, sample.boxes, ways, sample.moves, sizes)
    own = [(old[:, None] == each["boxes"]).all(2).any(1) for old, each in zip(sample.boxes, targets, strict=True)]
    return [each[~given] for each, given in zip(boxes, own, strict=True)]


def moved(stage: Stage, boxes: list[Tensor], ways: Tensor, moves: Tensor, sizes: Sizes) -> list[Tensor]:
    """The boxes where the stage moves them as of the classes `ways`, (R,), cut at the borders of their images."""
    start = torch.cat(boxes)
    own = moves.detach().view(len(start), -1, 4)[torch.arange(len(start), device=start.device), ways]
    ends = stage.box_coder.decode_single(own, start).split([len(each) for each in boxes])
    return [clip_boxes_to_image(each, size) for each, size in zip(ends, sizes, strict=True)]
