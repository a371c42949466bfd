"""The heads that look at boxes one by one: what Mask R-CNN has once, and Cascade R-CNN stage by stage.

Built from torchvision's parts. What it leaves at fault for us is put right here: outputs are float32 whatever the
precision of the maps, and maps have the strides that they have, where torchvision infers them from the first image.

Shapes: R boxes that are looked at, of all images of a batch.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign, generalized_box_iou_loss
from torchvision.ops.poolers import LevelMapper

from harness.models.heads.feature_pyramid import FeaturePyramid

BOX_SIDE, MASK_SIDE = 7, 14
"""Of the part of a map that a head is given (arXiv 1703.06870); masks come out at twice the side."""
CONVOLUTIONS = 4
"""Of the mask head; of a box head with convolutions too."""
POSITIVE_FRACTION = 0.25
"""The share of figures at most among the boxes that a head learns from (arXiv 1504.08083)."""
LEAST_SCORE, OVERLAP, MOST_FOUND = 0.05, 0.5, 100
"""Of detections: the least score, the most overlap within a class, and how many an image has."""
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4
"""A box of that side is looked at on the map of stride 2**level (arXiv 1612.03144, equation 1)."""
GIOU_WEIGHT = 10.0
"""Of the loss of overlaps beside that of classes, as in RepLKNet's code."""

Sizes = list[tuple[int, int]]
"""Height and width of each image."""
Targets = list[dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class RoIHeadsConfig:
    """How the heads are built."""

    classes: int
    """Without the ground, which stands before them as class 0."""
    hidden: int = 1024
    """Width of the fully connected layers."""
    body: Literal["fully_connected", "convolutions"] = "fully_connected"
    """Two fully connected layers, or four convolutions with batch norms and one such layer."""
    loss: Literal["smooth_l1", "giou"] = "smooth_l1"
    """How far a box is off: by its four numbers, or by what it has in common with the figure's."""
    by_class: bool = True
    """Whether every class moves boxes in its own way."""
    masks: bool = True
    """Whether there are mask heads."""
    sampled: int = 512
    """Boxes of an image that a head learns from, at most."""


class RoIPooler(MultiScaleRoIAlign):  # type: ignore[misc]
    """The part of a map that a box covers, on the map whose stride suits the size of the box."""

    def __init__(self, pyramid: FeaturePyramid, side: int) -> None:
        super().__init__([str(stride) for stride in pyramid.own_strides], side, sampling_ratio=2)
        levels = [stride.bit_length() - 1 for stride in pyramid.own_strides]
        self.scales = [1 / stride for stride in pyramid.own_strides]
        self.map_levels = LevelMapper(levels[0], levels[-1], CANONICAL_SIDE, CANONICAL_LEVEL)


class BoxPredictor(FastRCNNPredictor):  # type: ignore[misc]
    """torchvision's, in float32, and with one way to move a box for all classes where this is asked for."""

    def __init__(self, width: int, heads: RoIHeadsConfig) -> None:
        super().__init__(width, heads.classes + 1)
        self.copies = 1
        if not heads.by_class:
            self.bbox_pred = nn.Linear(width, 4)
            self.copies = heads.classes + 1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, width) -> logits (R, 1 + classes) and moves (R, 4 * (1 + classes))."""
        logits, moves = super().forward(x)
        return logits.float(), moves.float().repeat(1, self.copies)


class RoIMaskPredictor(MaskRCNNPredictor):  # type: ignore[misc]
    """torchvision's, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """(R, channels, 14, 14) -> logits (R, 1 + classes, 28, 28)."""
        logits: Tensor = super().forward(x)
        return logits.float()


class RCNNStage(RoIHeads):  # type: ignore[misc]
    """One look at the boxes: which class each is of, how it is to be moved, and the mask in it.

    torchvision's, whose `select_training_samples` and `postprocess_detections` are used as they are; what its `forward`
    does in one go is in parts here.
    """

    def __init__(
        self, pyramid: FeaturePyramid, heads: RoIHeadsConfig, *, matched_at: float = 0.5, unit: float = 0.1
    ) -> None:
        """A box is a figure's from the overlap `matched_at` on; `unit` is a step of its middle, in sides of the box."""
        width = pyramid.out_channels
        super().__init__(
            RoIPooler(pyramid, BOX_SIDE),
            _body(width, heads),
            BoxPredictor(heads.hidden, heads),
            matched_at,
            matched_at,
            heads.sampled,
            POSITIVE_FRACTION,
            (1 / unit, 1 / unit, 0.5 / unit, 0.5 / unit),
            LEAST_SCORE,
            OVERLAP,
            MOST_FOUND,
        )
        self.loss = heads.loss
        if heads.masks:
            self.mask_roi_pool = RoIPooler(pyramid, MASK_SIDE)
            self.mask_head = MaskRCNNHeads(width, (width,) * CONVOLUTIONS, 1)
            self.mask_predictor = RoIMaskPredictor(width, width, heads.classes + 1)

    def predict(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Logits (R, 1 + classes) and moves (R, 4 * (1 + classes)) of boxes, given image by image."""
        logits, moves = self.box_predictor(self.box_head(self.box_roi_pool(maps, boxes, sizes)))
        return logits, moves

    def mask_logits(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> Tensor:
        """(R, 1 + classes, 28, 28)."""
        logits: Tensor = self.mask_predictor(self.mask_head(self.mask_roi_pool(maps, boxes, sizes)))
        return logits

    def losses(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes, targets: Targets
    ) -> tuple[dict[str, Tensor], "StageSample"]:
        """The losses on a sample of the boxes and of the figures themselves, and what of it a next stage needs."""
        boxes, matched, labels, wanted = self.select_training_samples(list(boxes), targets)
        logits, deltas = self.predict(maps, boxes, sizes)
        classifier, regression = fastrcnn_loss(logits, deltas, labels, wanted)
        if self.loss == "giou":
            regression = self._overlap_loss(deltas, boxes, labels, wanted)
        losses = {"classifier": classifier, "boxes": regression}
        if self.has_mask():
            losses["masks"] = self._mask_loss(maps, boxes, sizes, targets, matched, labels)
        return losses, StageSample(boxes, labels, logits.detach(), deltas.detach())

    def _overlap_loss(
        self, deltas: Tensor, boxes: list[Tensor], labels: list[Tensor], wanted: tuple[Tensor, ...]
    ) -> Tensor:
        """Generalised overlap (arXiv 1902.09630) of the moved boxes that are figures, over all that were sampled."""
        label = torch.cat(labels)
        chosen = torch.where(label > 0)[0]
        start = torch.cat(boxes)[chosen]
        own = deltas.view(len(label), -1, 4)[chosen, label[chosen]]
        moved, figures = (self.box_coder.decode_single(tensor, start) for tensor in (own, torch.cat(wanted)[chosen]))
        apart: Tensor = generalized_box_iou_loss(moved, figures, reduction="sum")
        return GIOU_WEIGHT * apart / len(label)

    def _mask_loss(
        self,
        maps: dict[str, Tensor],
        boxes: list[Tensor],
        sizes: Sizes,
        targets: Targets,
        matched: list[Tensor],
        labels: list[Tensor],
    ) -> Tensor:
        """Cross-entropy per pixel in the boxes that are figures, of the figure's class; where its mask is known."""
        known = [_has_mask(target)[tensor] for target, tensor in zip(targets, matched, strict=True)]
        chosen = [torch.where((label > 0) & tensor)[0] for label, tensor in zip(labels, known, strict=True)]
        inside = [tensor[which] for tensor, which in zip(boxes, chosen, strict=True)]
        whose = [tensor[which] for tensor, which in zip(matched, chosen, strict=True)]
        logits = self.mask_logits(maps, inside, sizes)
        masks, classes = ([target[name] for target in targets] for name in ("masks", "labels"))
        loss: Tensor = maskrcnn_loss(logits, inside, masks, classes, whose)
        return loss


def _has_mask(target: dict[str, Tensor]) -> Tensor:
    """(B,): whether the mask of each figure is known; an image without figures has one that nothing is matched with."""
    known = target.get("has_mask")
    known = (
        torch.ones(len(target["boxes"]), dtype=torch.bool, device=target["boxes"].device) if known is None else known
    )
    return known if len(known) else known.new_zeros(1)


@dataclass(frozen=True, slots=True, eq=False)
class StageSample:
    """Boxes that a stage has learnt from, image by image, and what it made of them."""

    boxes: list[Tensor]
    labels: list[Tensor]
    logits: Tensor
    deltas: Tensor


def _body(channels: int, heads: RoIHeadsConfig) -> nn.Module:
    if heads.body == "fully_connected":
        return TwoMLPHead(channels * BOX_SIDE**2, heads.hidden)  # type: ignore[no-any-return]
    side = (channels, BOX_SIDE, BOX_SIDE)
    body: nn.Module = FastRCNNConvFCHead(side, [channels] * CONVOLUTIONS, [heads.hidden], nn.BatchNorm2d)
    return body


def select_class_masks(probabilities: Tensor, detections: list[dict[str, Tensor]]) -> list[Tensor]:
    """Of masks by class (R, 1 + classes, 28, 28), that of each found box's class: (D, 1, 28, 28) for every image."""
    labels = torch.cat([target["labels"] for target in detections])
    own = probabilities[torch.arange(len(labels), device=labels.device), labels][:, None]
    return list(torch.split(own, [len(target["labels"]) for target in detections]))


def average_logits(logits: list[Tensor]) -> Tensor:
    """Logits whose softmax is the mean of those of several logits (R, 1 + classes); of one, itself."""
    if len(logits) == 1:
        return logits[0]
    mean = torch.stack([F.softmax(opinion, -1) for opinion in logits]).mean(0)
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
