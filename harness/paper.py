"""Published figures of the networks that are presets, to stand beside ours.

Sources: RepLKNet, arXiv 2203.06717 (first version); MobileNetV2, arXiv 1801.04381; ConvNeXt, arXiv 2201.03545. Accuracy
is top-1 on ImageNet-1K's validation set. RepLKNet's tables count multiply-accumulates of the merged network, and
parameters of the merged network with all batch norms folded.
"""

from typing import NamedTuple

from harness.presets import PRESETS
from harness.spec import NetworkSpec


class Published(NamedTuple):
    """One row of a published table; None for what it does not say."""

    preset: str
    resolution: int
    """Side of the images."""
    params_m: float | None
    """Parameters, in millions."""
    gmacs: float | None
    """Multiply-accumulates of one image, in units of 1e9."""
    top1: float
    training: str
    source: str


_TABLE_5 = ("ImageNet-1K, 120 epochs", "arXiv 2203.06717, table 5")
_TABLE_6 = "arXiv 2203.06717, table 6"
_MOBILENET = ("ImageNet-1K, 100 epochs", "arXiv 2203.06717, table 3")
_CONVNEXT = ("ImageNet-1K, 300 epochs", "arXiv 2201.03545, table 1")

PUBLISHED: tuple[Published, ...] = (
    Published("replknet_3", 224, 71.8, 12.9, 82.11, *_TABLE_5),
    Published("replknet_7", 224, 72.2, 13.1, 82.73, *_TABLE_5),
    Published("replknet_13", 224, 73.7, 13.4, 83.02, *_TABLE_5),
    Published("replknet_25", 224, 78.2, 14.8, 83.00, *_TABLE_5),
    Published("replknet_31b", 224, 79.3, 15.3, 83.07, *_TABLE_5),
    Published("replknet_31b", 224, 79, 15.3, 83.5, "ImageNet-1K", _TABLE_6),
    Published("replknet_31b", 224, None, None, 85.2, "ImageNet-22K, then 1K", _TABLE_6),
    Published("replknet_31b", 384, 79, 45.1, 84.8, "ImageNet-1K", _TABLE_6),
    Published("replknet_31b", 384, None, None, 86.0, "ImageNet-22K, then 1K", _TABLE_6),
    Published("replknet_31l", 384, 172, 96.0, 86.6, "ImageNet-22K, then 1K", _TABLE_6),
    Published("replknet_xl", 320, 335, 128.7, 87.8, "MegData73M, then ImageNet-1K", _TABLE_6),
    Published("mobilenet_v2", 224, 3.4, 0.3, 72.0, "ImageNet-1K", "arXiv 1801.04381, table 4"),
    Published("mobilenet_v2", 224, None, None, 71.76, *_MOBILENET),
    Published("mobilenet_v2_9", 224, None, None, 72.67, *_MOBILENET),
    Published("mobilenet_v2_13", 224, None, None, 72.53, *_MOBILENET),
    Published("convnext_t", 224, 29, 4.5, 82.1, *_CONVNEXT),
    Published("convnext_s", 224, 50, 8.7, 83.1, *_CONVNEXT),
)


def preset_of(spec: NetworkSpec) -> str | None:
    """The name of the preset with these layers, if there is one; stochastic depth may differ."""
    layers = spec.replace(drop_path=0.0)
    return next((name for name, known in PRESETS.items() if known.replace(drop_path=0.0) == layers), None)


def published(spec: NetworkSpec) -> tuple[Published, ...]:
    """What is published of a network, in the order of the table."""
    name = preset_of(spec)
    return tuple(row for row in PUBLISHED if row.preset == name)
