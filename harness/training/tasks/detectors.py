"""The detectors of a recipe's `detector.name`, in one table, around a network."""

from collections.abc import Callable

import torch
from torch import nn

from harness.config.recipes.detection import DetectionRecipe, DetectorPlan
from harness.models.heads.encoder import Encoder
from harness.models.heads.fcos import Detector
from harness.models.heads.feature_pyramid import Above, Pyramid
from harness.models.heads.rcnn import CASCADE, ONE_LOOK, RCNN, Rung
from harness.models.heads.roi_heads import BoxHeads
from harness.models.spec.network import NetworkSpec

FCOS_OVERLAP = 0.5
"""Above which the better scored of two detections of a class stays alone, in RepLKNet's configuration of FCOS."""

Maker = Callable[..., nn.Module]


def _fcos(encoder: Encoder, plan: DetectorPlan, classes: int, layout: torch.memory_format) -> nn.Module:
    pyramid = Pyramid(encoder, plan.channels, "convolutions")
    return Detector(pyramid, classes=classes, overlap=FCOS_OVERLAP, layout=layout)


def _rcnn(rungs: tuple[Rung, ...]) -> Maker:
    def make(encoder: Encoder, plan: DetectorPlan, classes: int, layout: torch.memory_format) -> nn.Module:
        heads = BoxHeads(
            classes,
            hidden=plan.hidden,
            body=plan.body,
            loss=plan.loss,
            by_class=plan.by_class,
            masks=plan.masks,
            sampled=plan.sampled,
        )
        above: Above = "pool"
        return RCNN(Pyramid(encoder, plan.channels, above), heads, rungs=rungs, layout=layout)

    return make


DETECTORS: dict[str, Maker] = {
    "fcos": _fcos,
    "mask_rcnn": _rcnn(ONE_LOOK),
    "cascade_mask_rcnn": _rcnn(CASCADE),
}
"""Makers (encoder, plan, classes, layout) by `DetectorPlan.name`."""


def build_detector(network: nn.Module, spec: NetworkSpec, recipe: DetectionRecipe, classes: int) -> nn.Module:
    """The detector around a network, which becomes a part of it and loses its classifier.

    The weights besides the network's come from torch's global stream.
    """
    plan = recipe.detector
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    encoder = Encoder(network, spec, finest=plan.finest, frozen=plan.frozen, normed=plan.normed)
    return DETECTORS[plan.name](encoder, plan, classes, layout)
