"""The recipe of a segmentation's training, as in the files in `harness/config/recipes/library/downstream`.

Terms and defaults are those of MMSegmentation, with which RepLKNet's published results were obtained.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.config.recipes.full_scale import Fraction, FullScaleRecipe, ImageDataConfig, Pair, Positive
from harness.config.recipes.proxy import SegmentationHead, StrictModel

Side = Annotated[int, Field(ge=8, le=8192)]
"""Side in pixels."""
Sides = Annotated[list[Side], Field(min_length=2, max_length=2)]
"""Height and width."""


class SegmentationDataConfig(ImageDataConfig):
    """Images with a class for every pixel."""

    dataset: Literal["cityscapes", "ade20k", "shapes"]
    """The data set; `cityscapes` and `ade20k` in the layout in which they are distributed."""
    rendering: Literal["contours", "textured"] = "textured"
    """Rendering of `shapes`."""
    side: Annotated[int, Field(ge=8, le=4096)] = 64
    """Side of the images of `shapes` in pixels."""


class SegmentationHeadConfig(StrictModel):
    """The decoder on the network's feature maps, from segmentation-models-pytorch."""

    head: SegmentationHead = "upernet"
    """UPerNet (arXiv 1807.10221), or DeepLabv3+ (1802.02611)."""
    channels: Annotated[int, Field(ge=1, le=4096)] = 512
    """Width of the decoder."""
    finest: Literal[2, 4, 8] = 4
    """Stride of the finest map that it reads; if the network has none as fine, its finest."""
    frozen: bool = False
    """Whether the network is frozen, and only the decoder is trained."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the decoder's channels that are dropped in training before the classifier."""
    auxiliary: Annotated[float, Field(ge=0)] = 0.4
    """Weight of the loss of a small auxiliary head on the map before the coarsest one; 0 for no such head."""
    auxiliary_channels: Annotated[int, Field(ge=1, le=4096)] = 256
    """Width of the auxiliary head."""


class SegmentationAugmentation(StrictModel):
    """Augmentation of the training images: random resize, crop, flip, and photometric distortion."""

    short: Side = 512
    """Length of an image's shorter side at scale 1, unless `longest` limits it."""
    longest: Side = 2048
    """Maximum length of the longer side at scale 1."""
    scales: Pair = Field(default=[0.5, 2.0])
    """Minimum and maximum scale."""
    crop: Sides = Field(default=[512, 512])
    """Height and width of the crop; smaller images are padded, and the padding is ignored."""
    most_of_one: Fraction = 0.75
    """Largest share of a crop that one class should have; ten crops are tried."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    distort: bool = True
    """Whether brightness, contrast, saturation and hue are changed at random, as in SSD (arXiv 1512.02325)."""

    @field_validator("scales")
    @classmethod
    def _check_scales(cls, scales: list[float]) -> list[float]:
        if scales[0] > scales[1]:
            raise ValueError(f"must be a least and a largest scale, but got {scales}")
        return scales


class SegmentationEvaluation(StrictModel):
    """Inference on validation images: resized as in training at scale 1; then whole, or with a sliding window."""

    mode: Literal["whole", "slide"] = "whole"
    window: Sides | None = None
    """For `slide`: height and width of the window."""
    stride: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] | None = None
    """For `slide`: steps of the window, down and right; predictions of overlapping windows are averaged."""
    scales: Annotated[list[Positive], Field(min_length=1)] = Field(default=[1.0])
    """Scales of test-time augmentation; the predictions at all scales are averaged."""
    flip: bool = False
    """Whether flipped images are predicted, too, and averaged."""
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Images per batch in each worker, if they are of one size; it does not affect the result."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        slides = self.mode == "slide"
        if (self.window is not None) != slides or (self.stride is not None) != slides:
            raise ValueError("`window` and `stride` must be given with `mode: slide`, and only there")
        if self.window is not None and self.stride is not None:
            for stride, side in zip(self.stride, self.window, strict=True):
                if stride > side:
                    raise ValueError(f"`stride` must be at most {side}, the window's side, but got {stride}")
        return self


class SegmentationRecipe(FullScaleRecipe):
    """The data, the decoder, the budget and the optimization of a segmentation's training."""

    task: Literal["segmentation"]
    data: SegmentationDataConfig
    segmenter: SegmentationHeadConfig = SegmentationHeadConfig()
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the images; null if `iterations` is given."""
    iterations: Annotated[int, Field(ge=1)] | None = None
    """Number of optimizer steps."""
    validate_every: Annotated[int, Field(ge=1)] | None = None
    """Number of `iterations` between two validations."""
    views: SegmentationAugmentation = SegmentationAugmentation()
    evaluation: SegmentationEvaluation = SegmentationEvaluation()

    @property
    def intervals(self) -> int:
        """Number of epochs, or of parts between two validations."""
        if self.iterations is not None and self.validate_every is not None:
            return self.iterations // self.validate_every
        assert self.epochs is not None, "checked by the validator"
        return self.epochs

    @property
    def is_iteration_based(self) -> bool:
        """Whether the length of the training is given in iterations."""
        return self.iterations is not None

    def steps_per_interval(self, images: int) -> int:
        """See `FullScaleRecipe`."""
        return super().steps_per_interval(images) if self.validate_every is None else self.validate_every

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("either `epochs` or `iterations` must be given, and not both")
        if (self.iterations is None) != (self.validate_every is None):
            raise ValueError("`validate_every` must be given with `iterations`, and only there")
        if self.iterations is not None and self.validate_every is not None and self.iterations % self.validate_every:
            raise ValueError(
                f"`validate_every` must divide `iterations` ({self.iterations}), but got {self.validate_every}"
            )
        warmup = self.schedule.warmup_steps
        if warmup is None and self.schedule.warmup_epochs >= self.intervals:
            raise ValueError(
                f"`schedule.warmup_epochs` must be below the {self.intervals} epochs (or parts between validations), "
                f"but got {self.schedule.warmup_epochs:g}; `schedule.warmup_steps` counts steps"
            )
        if self.iterations is not None and warmup is not None and warmup >= self.iterations:
            raise ValueError(
                f"`schedule.warmup_steps` must be below `iterations` ({self.iterations}), but got {warmup}"
            )
        return self
