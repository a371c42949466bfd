"""The table of detectors, built around a network."""

from collections.abc import Callable

import torch
from torch import nn

from harness.models.heads.encoder import Encoder
from harness.models.heads.fcos import FCOSDetector
from harness.models.heads.feature_pyramid import FeaturePyramid
from harness.models.heads.rcnn import CASCADE, RCNN, SINGLE_STAGE, CascadeStage
from harness.models.heads.roi_heads import RoIHeadsConfig

FCOS_NMS_IOU = 0.5
"""IoU threshold of non-maximum suppression in RepLKNet's configuration of FCOS."""

DetectorBuilder = Callable[[Encoder, int, RoIHeadsConfig, torch.memory_format], nn.Module]


def _fcos(encoder: Encoder, channels: int, heads: RoIHeadsConfig, layout: torch.memory_format) -> nn.Module:
    pyramid = FeaturePyramid(encoder, channels, "convolutions")
    return FCOSDetector(pyramid, classes=heads.classes, overlap=FCOS_NMS_IOU, layout=layout)


def _rcnn(rungs: tuple[CascadeStage, ...]) -> DetectorBuilder:
    def make(encoder: Encoder, channels: int, heads: RoIHeadsConfig, layout: torch.memory_format) -> nn.Module:
        return RCNN(FeaturePyramid(encoder, channels, "pool"), heads, rungs=rungs, layout=layout)

    return make


DETECTORS: dict[str, DetectorBuilder] = {
    "fcos": _fcos,
    "mask_rcnn": _rcnn(SINGLE_STAGE),
    "cascade_mask_rcnn": _rcnn(CASCADE),
}
"""Builders (encoder, width of the feature pyramid, box heads, layout); FCOS uses only `classes` of the box heads."""
