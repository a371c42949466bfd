"""Detectors small enough for tests, and images for them."""

from typing import Any

import numpy as np
import torch
from tiny_runs import tiny_spec
from torch import Tensor

from harness.data.detection_annotations import Instances, encode_rle
from harness.models.build import build
from harness.models.heads.detection import CASCADE, RCNN, SINGLE_STAGE, FCOSDetector
from harness.models.heads.encoder import Encoder
from harness.models.heads.feature_pyramid import FeaturePyramid
from harness.models.heads.roi_heads import RoIHeadsConfig, Targets
from harness.models.spec.network import NetworkSpec

CLASSES, SIDE = 3, 48
KINDS = ("fcos", "mask_rcnn", "cascade_mask_rcnn")


def tiny_detector(kind: str, spec: NetworkSpec | None = None, **heads: Any) -> FCOSDetector | RCNN:
    """Of a network for colour images; `heads` change those of the boxes."""
    spec = spec or tiny_spec(in_channels=3, C=[8, 8, 16, 16])
    torch.manual_seed(0)
    encoder = Encoder(build(spec), spec, finest=4)
    if kind == "fcos":
        return FCOSDetector(FeaturePyramid(encoder, 64, "convolutions"), classes=CLASSES)
    if kind == "cascade_mask_rcnn":
        heads = {"body": "convolutions", "loss": "giou"} | heads
    head_config = RoIHeadsConfig(CLASSES, **({"hidden": 64, "sampled": 16} | heads))
    return RCNN(
        FeaturePyramid(encoder, 16, "pool"), head_config, cascade=SINGLE_STAGE if kind == "mask_rcnn" else CASCADE
    )


def target(boxes: list[list[int]], labels: list[int], height: int = SIDE, width: int = SIDE) -> dict[str, Tensor]:
    """Figures that fill their boxes."""
    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = 1
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return {"boxes": corners, "labels": torch.tensor(labels, dtype=torch.int64), "masks": masks}


def lit_rectangles(count: int) -> tuple[Tensor, Targets]:
    """Images (count, 3, SIDE, SIDE), each with a rectangle whose colour is its class."""
    rng = torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(count, 3, SIDE, SIDE, generator=rng)
    targets = []
    for i, image in enumerate(images):
        x, y, width, height = 4 + 5 * (i % 3), 6 + 3 * (i % 4), 18 + 4 * (i % 2), 16 + 5 * (i % 3)
        image[i % CLASSES, y : y + height, x : x + width] += 2.0
        targets.append(target([[x, y, x + width, y + height]], [i % CLASSES]))
    return images, targets


def truth_of(targets: Targets) -> list[Instances]:
    return [
        Instances(
            target["boxes"].numpy(),
            target["labels"].numpy(),
            target["masks"].sum((1, 2)).float().numpy(),
            np.zeros(len(target["labels"]), bool),
            tuple(encode_rle(mask.numpy()) for mask in target["masks"]),
        )
        for target in targets
    ]


def fit(model: FCOSDetector | RCNN, images: Tensor, targets: Targets, *, steps: int, lr: float) -> None:
    """Learn some images by heart."""
    torch.manual_seed(0)  # proposals are drawn
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 5) * (1 - step / steps)
        losses = model(images, targets)
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
