"""The RoI heads: one set in Mask R-CNN, one per stage in Cascade R-CNN.

Built from torchvision's parts, with two corrections: outputs are float32 whatever the precision of the maps, and maps
have their true strides, while torchvision infers them from the first image.

Shapes: R boxes (regions of interest) of all images of a batch.
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
"""Side of the pooled features of box and mask heads (arXiv 1703.06870); masks have twice the side."""
CONVOLUTIONS = 4
"""Number of convolutions of the mask head, and of a box head with convolutions."""
POSITIVE_FRACTION = 0.25
"""Largest fraction of positive boxes in a training sample (arXiv 1504.08083)."""
MIN_SCORE, NMS_IOU, MAX_DETECTIONS = 0.05, 0.5, 100
"""Score threshold, IoU threshold of non-maximum suppression, and most detections per image."""
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4
"""A box of this side is pooled from the map of stride 2**level (arXiv 1612.03144, equation 1)."""
GIOU_WEIGHT = 10.0
"""Weight of the GIoU loss relative to the classification loss, as in RepLKNet's code."""

Sizes = list[tuple[int, int]]
"""Height and width of each image."""
Targets = list[dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class RoIHeadsConfig:
    """Configuration of the RoI heads."""

    classes: int
    """Number of classes without the background, which is class 0 inside the heads."""
    hidden: int = 1024
    """Width of the fully connected layers."""
    body: Literal["fully_connected", "convolutions"] = "fully_connected"
    """Two fully connected layers, or four convolutions with batch norms and one such layer."""
    loss: Literal["smooth_l1", "giou"] = "smooth_l1"
    """Box regression loss: on the four deltas, or on the overlap with the object's box."""
    by_class: bool = True
    """Whether every class has its own box deltas."""
    masks: bool = True
    """Whether there are mask heads."""
    sampled: int = 512
    """Most boxes per image in a training sample."""


class RoIPooler(MultiScaleRoIAlign):  # type: ignore[misc]
    """RoIAlign on the map whose stride suits the size of the box."""

    def __init__(self, pyramid: FeaturePyramid, side: int) -> None:
        super().__init__([str(stride) for stride in pyramid.own_strides], side, sampling_ratio=2)
        levels = [stride.bit_length() - 1 for stride in pyramid.own_strides]
        self.scales = [1 / stride for stride in pyramid.own_strides]
        self.map_levels = LevelMapper(levels[0], levels[-1], CANONICAL_SIDE, CANONICAL_LEVEL)


class BoxPredictor(FastRCNNPredictor):  # type: ignore[misc]
    """torchvision's predictor, in float32, optionally with the same box deltas for all classes."""

    def __init__(self, width: int, heads: RoIHeadsConfig) -> None:
        super().__init__(width, heads.classes + 1)
        self.copies = 1
        if not heads.by_class:
            self.bbox_pred = nn.Linear(width, 4)
            self.copies = heads.classes + 1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, width) -> logits (R, 1 + classes) and deltas (R, 4 * (1 + classes))."""
        logits, deltas = super().forward(x)
        return logits.float(), deltas.float().repeat(1, self.copies)


class RoIMaskPredictor(MaskRCNNPredictor):  # type: ignore[misc]
    """torchvision's predictor, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """(R, channels, 14, 14) -> logits (R, 1 + classes, 28, 28)."""
        logits: Tensor = super().forward(x)
        return logits.float()


class RCNNStage(RoIHeads):  # type: ignore[misc]
    """One R-CNN stage: class logits, box deltas and masks.

    `select_training_samples` and `postprocess_detections` are torchvision's; its `forward` is divided into several
    methods here.
    """

    def __init__(
        self, pyramid: FeaturePyramid, heads: RoIHeadsConfig, *, iou_threshold: float = 0.5, delta_scale: float = 0.1
    ) -> None:
        """A box is positive from `iou_threshold` on; `delta_scale` scales center deltas, in sides of the box."""
        width = pyramid.out_channels
        super().__init__(
            RoIPooler(pyramid, BOX_SIDE),
            _body(width, heads),
            BoxPredictor(heads.hidden, heads),
            iou_threshold,
            iou_threshold,
            heads.sampled,
            POSITIVE_FRACTION,
            (1 / delta_scale, 1 / delta_scale, 0.5 / delta_scale, 0.5 / delta_scale),
            MIN_SCORE,
            NMS_IOU,
            MAX_DETECTIONS,
        )
        self.loss = heads.loss
        if heads.masks:
            self.mask_roi_pool = RoIPooler(pyramid, MASK_SIDE)
            self.mask_head = MaskRCNNHeads(width, (width,) * CONVOLUTIONS, 1)
            self.mask_predictor = RoIMaskPredictor(width, width, heads.classes + 1)

    def predict(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Logits (R, 1 + classes) and deltas (R, 4 * (1 + classes)) of boxes, which are a list per image."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(maps, boxes, sizes)))
        return logits, deltas

    def mask_logits(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> Tensor:
        """Mask logits (R, 1 + classes, 28, 28) of the boxes."""
        logits: Tensor = self.mask_predictor(self.mask_head(self.mask_roi_pool(maps, boxes, sizes)))
        return logits

    def losses(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes, targets: Targets
    ) -> tuple[dict[str, Tensor], "StageSample"]:
        """The losses on a sample of the boxes and the ground-truth boxes; and that sample, for the next stage."""
        boxes, matched, labels, target_deltas = self.select_training_samples(list(boxes), targets)
        logits, deltas = self.predict(maps, boxes, sizes)
        classifier, regression = fastrcnn_loss(logits, deltas, labels, target_deltas)
        if self.loss == "giou":
            regression = self._overlap_loss(deltas, boxes, labels, target_deltas)
        losses = {"classifier": classifier, "boxes": regression}
        if self.has_mask():
            losses["masks"] = self._mask_loss(maps, boxes, sizes, targets, matched, labels)
        return losses, StageSample(boxes, labels, logits.detach(), deltas.detach())

    def _overlap_loss(
        self, deltas: Tensor, boxes: list[Tensor], labels: list[Tensor], target_deltas: tuple[Tensor, ...]
    ) -> Tensor:
        """GIoU loss (arXiv 1902.09630) of the refined positive boxes, divided by the number of sampled boxes."""
        label = torch.cat(labels)
        positive = torch.where(label > 0)[0]
        start = torch.cat(boxes)[positive]
        selected = deltas.view(len(label), -1, 4)[positive, label[positive]]
        both = selected, torch.cat(target_deltas)[positive]
        refined, objects = (self.box_coder.decode_single(tensor, start) for tensor in both)
        loss: Tensor = generalized_box_iou_loss(refined, objects, reduction="sum")
        return GIOU_WEIGHT * loss / len(label)

    def _mask_loss(
        self,
        maps: dict[str, Tensor],
        boxes: list[Tensor],
        sizes: Sizes,
        targets: Targets,
        matched: list[Tensor],
        labels: list[Tensor],
    ) -> Tensor:
        """Cross-entropy per pixel of the object's class in the positive boxes whose object has a mask."""
        has_mask = [_has_mask(target)[tensor] for target, tensor in zip(targets, matched, strict=True)]
        positive = [torch.where((label > 0) & tensor)[0] for label, tensor in zip(labels, has_mask, strict=True)]
        positive_boxes = [tensor[index] for tensor, index in zip(boxes, positive, strict=True)]
        objects = [tensor[index] for tensor, index in zip(matched, positive, strict=True)]
        logits = self.mask_logits(maps, positive_boxes, sizes)
        masks, classes = ([target[name] for target in targets] for name in ("masks", "labels"))
        loss: Tensor = maskrcnn_loss(logits, positive_boxes, masks, classes, objects)
        return loss


def _has_mask(target: dict[str, Tensor]) -> Tensor:
    """(B,): whether each object has a mask; for an image without objects (1,), because matched indices are then 0."""
    has_mask = target.get("has_mask")
    if has_mask is None:
        has_mask = torch.ones(len(target["boxes"]), dtype=torch.bool, device=target["boxes"].device)
    return has_mask if len(has_mask) else has_mask.new_zeros(1)


@dataclass(frozen=True, slots=True, eq=False)
class StageSample:
    """The training sample of a stage, image by image, with the stage's predictions."""

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
    """Select from masks by class (R, 1 + classes, 28, 28) that of each detection's class: (D, 1, 28, 28) per image."""
    labels = torch.cat([target["labels"] for target in detections])
    masks = probabilities[torch.arange(len(labels), device=labels.device), labels][:, None]
    return list(torch.split(masks, [len(target["labels"]) for target in detections]))


def average_logits(logits: list[Tensor]) -> Tensor:
    """Logits whose softmax is the mean softmax of several logits (R, 1 + classes); a single one is returned as is."""
    if len(logits) == 1:
        return logits[0]
    mean = torch.stack([F.softmax(stage_logits, -1) for stage_logits in logits]).mean(0)
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
