"""The detectors by name, in one table, around a network."""

from collections.abc import Callable

import torch
from torch import nn

from harness.models.heads.encoder import Encoder
from harness.models.heads.fcos import Detector
from harness.models.heads.feature_pyramid import Pyramid
from harness.models.heads.rcnn import CASCADE, ONE_LOOK, RCNN, Rung
from harness.models.heads.roi_heads import BoxHeads

FCOS_OVERLAP = 0.5
"""Above which the better scored of two detections of a class stays alone, in RepLKNet's configuration of FCOS."""

Maker = Callable[[Encoder, int, BoxHeads, torch.memory_format], nn.Module]


def _fcos(encoder: Encoder, channels: int, heads: BoxHeads, layout: torch.memory_format) -> nn.Module:
    pyramid = Pyramid(encoder, channels, "convolutions")
    return Detector(pyramid, classes=heads.classes, overlap=FCOS_OVERLAP, layout=layout)


def _rcnn(rungs: tuple[Rung, ...]) -> Maker:
    def make(encoder: Encoder, channels: int, heads: BoxHeads, layout: torch.memory_format) -> nn.Module:
        return RCNN(Pyramid(encoder, channels, "pool"), heads, rungs=rungs, layout=layout)

    return make


DETECTORS: dict[str, Maker] = {
    "fcos": _fcos,
    "mask_rcnn": _rcnn(ONE_LOOK),
    "cascade_mask_rcnn": _rcnn(CASCADE),
}
"""Makers (encoder, width of the feature pyramid, box heads, layout); of the box heads FCOS takes the classes alone."""
