"""How a detector is trained, as a value: what a file in `harness/config/recipes/library/downstream` says of one."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.config.recipes.full_scale import EpochBasedRecipe, Fraction, ImageDataConfig
from harness.config.recipes.proxy import NORM_GROUPS, StrictModel

Side = Annotated[int, Field(ge=8, le=8192)]
"""In pixels."""
MIN_FCOS_CHANNELS = 2 * NORM_GROUPS
"""Channels of which FCOS's are a multiple."""
Sides = Annotated[list[Side], Field(min_length=1)]


class DetectionDataConfig(ImageDataConfig):
    """Images, and what is to be found in them."""

    dataset: Literal["coco", "shapes"] = "coco"
    """Where they come from; `coco` is the layout of COCO, for any classes."""
    keep_empty: bool = False
    """Whether training images without a figure are trained on; MMDetection leaves them out."""
    side: Annotated[int, Field(ge=8, le=4096)] = 64
    """Of `shapes`, in pixels."""
    rendering: Literal["contours", "textured"] = "textured"
    """Of `shapes`."""


class DetectionAugmentation(StrictModel):
    """How training images are shown."""

    flip: Fraction = 0.5
    """Probability of mirroring left to right."""
    short: Sides = Field(default=[800])
    """The shorter side of an image; one of these, drawn by lot."""
    longest: Side = 1333
    """The most that the longer side may have; where it would have more, the shorter one gets less."""
    crop: Fraction = 0.0
    """Probability of a random crop, as DETR has it (arXiv 2005.12872)."""
    crop_from: Sides = Field(default=[400, 500, 600])
    """The shorter side before the crop; one of these."""
    crop_sides: Annotated[list[Side], Field(min_length=2, max_length=2)] = Field(default=[384, 600])
    """Least and largest side of the crop."""

    @field_validator("crop_sides")
    @classmethod
    def _check_crop(cls, sides: list[int]) -> list[int]:
        if sides[0] > sides[1]:
            raise ValueError(f"must be a least and a largest side, but got {sides}")
        return sides


class DetectionEvaluation(StrictModel):
    """How validation images are shown."""

    short: Side = 800
    longest: Side = 1333
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Images at once, in each worker; of little consequence: they are padded to a common size."""


class DetectorConfig(StrictModel):
    """The detector on the network's maps."""

    name: Literal["fcos", "mask_rcnn", "cascade_mask_rcnn"] = "mask_rcnn"
    """FCOS (arXiv 1904.01355), Mask R-CNN (1703.06870), or Cascade Mask R-CNN (1712.00726)."""
    channels: Annotated[int, Field(ge=1, le=4096)] = 256
    """Width of the feature pyramid."""
    finest: Literal[4, 8] = 4
    """Stride of the finest map; 8 in FCOS's paper, 4 in the others'."""
    normed: bool = False
    """Whether the network's maps are normalised on their way to the pyramid, as RepLKNet-XL's are."""
    frozen: bool = False
    """Whether the network stays as it is, and only the detector learns."""
    masks: bool = True
    """Whether masks are learnt besides boxes; FCOS has none."""
    hidden: Annotated[int, Field(ge=1, le=8192)] = 1024
    """Width of the fully connected layers of box heads."""
    body: Literal["fully_connected", "convolutions"] = "fully_connected"
    """Of box heads: two fully connected layers, or four convolutions with batch norms and one such layer."""
    loss: Literal["smooth_l1", "giou"] = "smooth_l1"
    """Of box heads: how far a box is off."""
    by_class: bool = True
    """Whether box heads move boxes in another way for each class."""
    sampled: Annotated[int, Field(ge=8, le=4096)] = 512
    """Boxes of an image that a box head learns from, at most."""

    @property
    def has_mask_head(self) -> bool:
        """Whether the images must come with masks."""
        return self.masks and self.name != "fcos"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "fcos" and self.channels % MIN_FCOS_CHANNELS:
            raise ValueError(
                f"`channels` must be a multiple of {MIN_FCOS_CHANNELS} with `name: fcos`, which normalises channels in "
                f"{NORM_GROUPS} groups on maps of a single pixel too, but got {self.channels}"
            )
        return self


class DetectionRecipe(EpochBasedRecipe):
    """The data, the detector, the budget and the optimisation."""

    task: Literal["detection"]
    data: DetectionDataConfig = DetectionDataConfig()
    detector: DetectorConfig = DetectorConfig()
    views: DetectionAugmentation = DetectionAugmentation()
    evaluation: DetectionEvaluation = DetectionEvaluation()
