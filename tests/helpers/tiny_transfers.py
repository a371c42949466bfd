"""Segmentations and detectors small enough for tests."""

from typing import Any

import torch
from tiny_runs import tiny_spec

from harness.config.recipes.proxy import Transfer
from harness.models.build import build
from harness.models.heads.detection import FCOSDetector
from harness.models.heads.encoder import Encoder
from harness.models.heads.feature_pyramid import FeaturePyramid
from harness.models.heads.segmentation import Segmenter
from harness.models.spec.family import FAMILIES
from harness.models.spec.network import NetworkSpec

CLASSES = 9
"""Of `shapes`, the ground among them."""
TRANSFER: dict[str, Any] = {"epochs": 1, "channels": 8}
DETECTION: dict[str, Any] = {"head": "fcos", "epochs": 1, "channels": 32}


def segmenter(spec: NetworkSpec | None = None, *, side: int = 16, **changes: Any) -> Segmenter:
    spec = spec or tiny_spec()
    torch.manual_seed(0)
    plan = Transfer(**(TRANSFER | changes))
    encoder = Encoder(build(spec), spec, finest=plan.finest, frozen=plan.frozen)
    return Segmenter(encoder, plan.head, plan.channels, classes=CLASSES, side=side)


def detector(spec: NetworkSpec | None = None, **changes: Any) -> FCOSDetector:
    spec = spec or tiny_spec()
    torch.manual_seed(0)
    plan = Transfer(**(DETECTION | changes))
    encoder = Encoder(build(spec), spec, finest=plan.finest, frozen=plan.frozen)
    return FCOSDetector(FeaturePyramid(encoder, plan.channels), classes=CLASSES - 1)


def small_spec(family: str, stem_stride: int) -> NetworkSpec:
    """A network of the family with another width on every map."""
    stages = FAMILIES[family].stages
    return NetworkSpec(
        family=family,
        B=(1,) * stages,
        C=tuple(range(8, 8 + 2 * stages, 2)),
        K=(5,) * stages,
        reparam=(3,) * stages,
        ffn_ratio=2,
        stem_stride=stem_stride,
        in_channels=1,
        classes=8,
    )
