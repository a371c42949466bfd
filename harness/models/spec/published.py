"""Published numbers of the networks that are presets, for comparison; and the costs of their released code.

Sources: RepLKNet, arXiv 2203.06717 (first version); MobileNetV2, arXiv 1801.04381; ConvNeXt, arXiv 2201.03545. Accuracy
is top-1 on ImageNet-1K's validation set. RepLKNet's tables count multiply-accumulates of the merged network, and
parameters of the merged network with all batch norms folded.
"""

from typing import NamedTuple

from harness.models.spec.family import FAMILIES
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS


class Published(NamedTuple):
    """One row of a published table; None for values that it does not contain."""

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


class Released(NamedTuple):
    """Released weights, and their accuracy on ImageNet-1K's validation set, in percent."""

    preset: str
    resolution: int
    top1: float
    top5: float
    training: str


RELEASED_SOURCE = "the released weights, as measured by mmpretrain"
RELEASED: tuple[Released, ...] = (
    Released("replknet_31b", 224, 83.48, 96.57, "ImageNet-1K"),
    Released("replknet_31b", 384, 84.84, 97.34, "ImageNet-1K"),
    Released("replknet_31b", 224, 85.20, 97.56, "ImageNet-22K, then 1K"),
    Released("replknet_31b", 384, 85.99, 97.75, "ImageNet-22K, then 1K"),
    Released("replknet_31l", 384, 86.63, 98.00, "ImageNet-22K, then 1K"),
    Released("replknet_xl", 320, 87.57, 98.39, "MegData73M, then ImageNet-1K"),
)
"""The paper rounds to one digit; its value for XL is 0.23 points higher."""


class PublishedField(NamedTuple):
    """The effective receptive field of a network in a published table."""

    network: str
    preset: str | None
    """None for a network that is not a preset."""
    r_pct: tuple[float, float, float, float]
    """Area of the squares that hold more than 20, 30, 50 and 99 % of the map, in percent of the image's."""


RANDOM_FIELDS_NOTE = (
    "random weights mislead: users of the paper's code found ResNet's field larger than that of RepLKNet-31 with them"
)
"""Source: issue 15 of the paper's repository."""
FIELDS_PX = 1024
"""Side of the 50 images of ImageNet-1K's validation set used for `PUBLISHED_FIELDS`."""
FIELDS_SOURCE = "arXiv 2203.06717, table 10"
PUBLISHED_FIELDS: tuple[PublishedField, ...] = (
    PublishedField("ResNet-101", None, (1.0, 1.7, 3.5, 23.4)),
    PublishedField("ResNet-152", None, (1.3, 2.1, 4.5, 34.9)),
    PublishedField("RepLKNet-13", "replknet_13", (10.2, 15.8, 28.5, 96.3)),
    PublishedField("RepLKNet-31", "replknet_31b", (15.0, 23.4, 41.4, 98.6)),
)
"""RepLKNets after 120 epochs of ImageNet-1K, ResNets from torchvision. Other versions of the paper differ in the last
digit: only the order of the rows can be checked."""


class PublishedKernel(NamedTuple):
    """Where a trained 13x13 kernel has its magnitude, before and after its 3x3 kernel is added."""

    network: str
    kernel: str
    before_pct: float
    """Percentage of the whole in the central 3x3 taps."""
    after_pct: float
    ratio: float
    """Ratio of after to before outside the 3x3, each rescaled to a maximum of 1."""


PUBLISHED_KERNEL = PublishedKernel("MobileNetV2, last stage", "13+3", 8.3, 22.7, 0.268)
KERNEL_SOURCE = "arXiv 2203.06717, figure 6, read from its numbers"


class CountedCost(NamedTuple):
    """Counted costs of a network built by released code: exact parameters, multiply-accumulates to 1e6; or None."""

    preset: str
    resolution: int
    """Side of the images."""
    params: int
    """In the training form, like all fields that name no form."""
    params_merged: int | None
    gmacs: float
    gmacs_merged: float | None
    params_m_folded: float | None
    """Merged, all batch norms folded: in millions."""
    entries: int | None
    """Number of entries of the state dict."""
    entries_merged: int | None
    source: str


_RELEASED = "RepLKNet's released code, counted"
_TORCHVISION = "torchvision's metadata"

COUNTED: tuple[CountedCost, ...] = (
    CountedCost("replknet_3", 224, 71_906_408, 71_894_376, 12.939, 12.939, 71.756, None, None, _RELEASED),
    CountedCost("replknet_7", 224, 72_712_552, 72_375_656, 13.141, 13.063, 72.237, None, None, _RELEASED),
    CountedCost("replknet_13", 224, 74_156_392, 73_819_496, 13.514, 13.436, 73.681, None, None, _RELEASED),
    CountedCost("replknet_25", 224, 78_709_096, 78_372_200, 14.887, 14.809, 78.234, None, None, _RELEASED),
    CountedCost("replknet_31b", 224, 79_864_168, 79_527_272, 15.431, 15.354, 79.389, 1171, 931, _RELEASED),
    CountedCost("replknet_31b", 384, 79_864_168, 79_527_272, 45.347, 45.119, None, None, None, _RELEASED),
    CountedCost("replknet_31l", 384, 172_671_016, 172_165_672, 96.332, 95.989, None, 1171, 931, _RELEASED),
    CountedCost("replknet_xl", 320, 335_435_752, 335_399_656, 128.730, 128.730, None, 1027, None, _RELEASED),
    CountedCost("mobilenet_v2", 224, 3_504_872, None, 0.301, None, None, None, None, _TORCHVISION),
    CountedCost("convnext_t", 224, 28_589_128, None, 4.456, None, None, None, None, _TORCHVISION),
    CountedCost("convnext_s", 224, 50_223_688, None, 8.684, None, None, None, None, _TORCHVISION),
)


class CostGrowth(NamedTuple):
    """Growth of a network's cost with larger kernels, in percent."""

    base: str
    large: str
    macs: float
    params: float
    tolerance: float
    """In percentage points; the paper divides numbers that are rounded to three digits."""
    source: str


GROWTH = CostGrowth("replknet_3", "replknet_31b", 18.6, 10.4, 0.3, "arXiv 2203.06717, section 3, guideline 1")


class InBoundsShare(NamedTuple):
    """The percentage of the large kernels' multiply-accumulates whose tap is on the map."""

    preset: str
    resolution: int
    whole: float
    stages: tuple[float, ...] | None = None


IN_BOUNDS: tuple[InBoundsShare, ...] = (
    InBoundsShare("replknet_31b", 224, 45.7, (74.3, 55.0, 26.9, 29.0)),
    InBoundsShare("replknet_31b", 384, 64.9),
    InBoundsShare("replknet_31b", 1024, 85.7),
)
"""Counted tap by tap over the layers of the released code."""


class PublishedShapeBias(NamedTuple):
    """The published shape bias of a network, or of humans."""

    network: str
    training: str
    share: float
    """Share of all decisions."""
    class_mean: float
    """The mean of the 16 classes' shares."""


SHAPE_BIAS_SOURCE = "arXiv 2203.06717, figure 5, decoded from its vector coordinates"
SHAPE_BIAS: tuple[PublishedShapeBias, ...] = (
    PublishedShapeBias("RepLKNet-31B", "ImageNet-1K", 0.2995, 0.2876),
    PublishedShapeBias("RepLKNet-31B", "ImageNet-22K", 0.4106, 0.3807),
    PublishedShapeBias("Swin-B", "ImageNet-1K", 0.2216, 0.2090),
    PublishedShapeBias("Swin-B", "ImageNet-22K", 0.3154, 0.3008),
    PublishedShapeBias("RepLKNet-3", "ImageNet-1K", 0.2464, 0.2293),
    PublishedShapeBias("ResNet-152", "ImageNet-1K", 0.2447, 0.2174),
    PublishedShapeBias("humans", "", 0.9587, 0.9538),
)


def preset_of(spec: NetworkSpec) -> str | None:
    """The name of the preset with these layers, if there is one; stochastic depth may differ."""
    layers = spec.replace(drop_path=0.0)
    return next((name for name, preset in PRESETS.items() if preset.replace(drop_path=0.0) == layers), None)


def published(spec: NetworkSpec) -> tuple[Published, ...]:
    """The published rows of a network, in the order of the table."""
    name = preset_of(spec)
    return tuple(row for row in PUBLISHED if row.preset == name)


class PublishedAccuracy(NamedTuple):
    """The accuracy of a network on ImageNet-1K's validation set, in percent."""

    top1: float
    top5: float | None
    training: str
    source: str


def accuracies(spec: NetworkSpec, resolution: int) -> tuple[PublishedAccuracy, ...]:
    """The accuracies of a network at this resolution: of its released weights, else as published."""
    name = preset_of(spec)
    released = [row for row in RELEASED if (row.preset, row.resolution) == (name, resolution)]
    if released:
        return tuple(PublishedAccuracy(row.top1, row.top5, row.training, RELEASED_SOURCE) for row in released)
    rows = [row for row in published(spec) if row.resolution == resolution]
    return tuple(PublishedAccuracy(row.top1, None, row.training, row.source) for row in rows)


def has_published_field(spec: NetworkSpec) -> bool:
    """Whether the network's effective receptive field is published."""
    name = preset_of(spec)
    return name is not None and any(row.preset == name for row in PUBLISHED_FIELDS)


def resolutions(spec: NetworkSpec) -> tuple[int, ...]:
    """The image sides at which to report a network: as published; else by the stem's stride."""
    sides = tuple(dict.fromkeys(row.resolution for row in published(spec)))
    is_for_small_images = spec.stem_stride < max(FAMILIES[spec.family].stem_strides)
    return sides or (64 if is_for_small_images else 224,)
