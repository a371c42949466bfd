"""The recipe of a detector's training, as in the files in `harness/config/recipes/library/downstream`."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.config.recipes.full_scale import EpochBasedRecipe, Fraction, ImageDataConfig
from harness.config.recipes.proxy import NORM_GROUPS, StrictModel

Side = Annotated[int, Field(ge=8, le=8192)]
"""Side in pixels."""
MIN_FCOS_CHANNELS = 2 * NORM_GROUPS
"""The number of which FCOS's channels must be a multiple."""
Sides = Annotated[list[Side], Field(min_length=1)]


class DetectionDataConfig(ImageDataConfig):
    """The images and their annotations."""

    dataset: Literal["coco", "shapes"] = "coco"
    """The data set; `coco` is the layout of COCO, for any classes."""
    keep_empty: bool = False
    """Whether training images without objects are used; MMDetection leaves them out."""
    side: Annotated[int, Field(ge=8, le=4096)] = 64
    """Side of the images of `shapes` in pixels."""
    rendering: Literal["contours", "textured"] = "textured"
    """Rendering of `shapes`."""


class DetectionAugmentation(StrictModel):
    """Augmentation of the training images."""

    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    short: Sides = Field(default=[800])
    """Length of an image's shorter side; one of these, chosen at random."""
    longest: Side = 1333
    """Maximum length of the longer side; if it would be longer, the image is resized to this instead."""
    crop: Fraction = 0.0
    """Probability of a random crop, as in DETR (arXiv 2005.12872)."""
    crop_from: Sides = Field(default=[400, 500, 600])
    """Length of the shorter side before the crop; one of these."""
    crop_sides: Annotated[list[Side], Field(min_length=2, max_length=2)] = Field(default=[384, 600])
    """Minimum and maximum side of the crop."""

    @field_validator("crop_sides")
    @classmethod
    def _check_crop(cls, sides: list[int]) -> list[int]:
        if sides[0] > sides[1]:
            raise ValueError(f"must be a least and a largest side, but got {sides}")
        return sides


class DetectionEvaluation(StrictModel):
    """Preprocessing of the validation images."""

    short: Side = 800
    longest: Side = 1333
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Images per batch in each worker; it hardly affects the result: images are padded to a common size."""


class DetectorConfig(StrictModel):
    """The detector on the network's feature maps."""

    name: Literal["fcos", "mask_rcnn", "cascade_mask_rcnn"] = "mask_rcnn"
    """FCOS (arXiv 1904.01355), Mask R-CNN (1703.06870), or Cascade Mask R-CNN (1712.00726)."""
    channels: Annotated[int, Field(ge=1, le=4096)] = 256
    """Width of the feature pyramid."""
    finest: Literal[4, 8] = 4
    """Stride of the finest map; 8 in FCOS's paper, 4 in the others'."""
    normed: bool = False
    """Whether the network's maps are normalized before the pyramid, as in RepLKNet-XL."""
    frozen: bool = False
    """Whether the network is frozen, and only the detector is trained."""
    masks: bool = True
    """Whether masks are learned in addition to boxes; FCOS has none."""
    hidden: Annotated[int, Field(ge=1, le=8192)] = 1024
    """Width of the fully connected layers of box heads."""
    body: Literal["fully_connected", "convolutions"] = "fully_connected"
    """Layers of box heads: two fully connected ones, or four convolutions with batch norms and one fully connected."""
    loss: Literal["smooth_l1", "giou"] = "smooth_l1"
    """Regression loss of box heads."""
    by_class: bool = True
    """Whether box heads predict separate box deltas for each class."""
    sampled: Annotated[int, Field(ge=8, le=4096)] = 512
    """Maximum number of boxes per image on which a box head is trained."""

    @property
    def has_mask_head(self) -> bool:
        """Whether the detector learns masks, so that the data set must have them."""
        return self.masks and self.name != "fcos"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "fcos" and self.channels % MIN_FCOS_CHANNELS:
            raise ValueError(
                f"`channels` must be a multiple of {MIN_FCOS_CHANNELS} with `name: fcos`, which normalizes channels in "
                f"{NORM_GROUPS} groups on maps of a single pixel too, but got {self.channels}"
            )
        return self


class DetectionRecipe(EpochBasedRecipe):
    """The data, the detector, the budget and the optimization."""

    task: Literal["detection"]
    data: DetectionDataConfig = DetectionDataConfig()
    detector: DetectorConfig = DetectorConfig()
    views: DetectionAugmentation = DetectionAugmentation()
    evaluation: DetectionEvaluation = DetectionEvaluation()
