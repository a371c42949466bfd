"""The recipe of a training at full scale, as in the files in `harness/config/recipes/library`.

The proxy of a study (`harness.config.recipes.proxy`) resizes all images once and keeps them in memory. At full scale
they are read again in every epoch, and each is cropped and augmented separately, as in timm. All images are in color.

`FullScaleRecipe` has the fields of every task; `ClassificationRecipe` adds those of a classifier.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.config.recipes.proxy import RANDAUGMENT_PATTERN, StrictModel
from harness.models.spec.network import NetworkSpec
from harness.system.fingerprint import fingerprint

REVISION = 1
"""Part of every fingerprint. Raised when code or a default changes the outcome of the same recipe."""
RGB_CHANNELS = 3
"""Channels of the images at full scale, which are all in color."""
FREE_TO_CHANGE = ("about", "keep_last", "save_minutes")
"""Keys that do not affect the outcome."""

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PerChannel = Annotated[list[float], Field(min_length=3, max_length=3)]
Pair = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class ImageDataConfig(StrictModel):
    """The images and their normalization."""

    train_size: Annotated[int, Field(ge=1)] | None = None
    """Number of training images, a random stratified subset; null for all (`shapes`: 2000)."""
    val_size: Annotated[int, Field(ge=1)] | None = None
    """Number of validation images; null for all (`shapes`: 1000)."""
    rendering: Literal["contours", "textured"] = "contours"
    """Rendering of `shapes`."""
    difficulty: Fraction = 0.5
    """Difficulty of `shapes`: 0 easy, 1 hard."""
    mean: PerChannel = Field(default=[0.485, 0.456, 0.406])
    """Mean of red, green and blue in [0, 1], which is subtracted; by default ImageNet's."""
    std: PerChannel = Field(default=[0.229, 0.224, 0.225])
    """Standard deviation, by which the channels are divided; by default ImageNet's."""

    @field_validator("std")
    @classmethod
    def _check_std(cls, std: list[float]) -> list[float]:
        if min(std) <= 0:
            raise ValueError(f"must be above 0, but got {min(std):g}")
        return std


class ClassificationDataConfig(ImageDataConfig):
    """The images of a classifier."""

    dataset: Literal["shapes", "cifar10", "cifar100", "imagefolder"] = "imagefolder"
    """The data set; `imagefolder` is the layout of ImageNet: folders train and val, each with a folder per class."""
    classes: Annotated[int, Field(ge=2)] | None = None
    """Required number of classes; null for any number."""
    has_val: bool = True
    """Whether there are validation images; ImageNet-22K has none."""


class FullScaleAugmentation(StrictModel):
    """Augmentation of the training images; each is first cropped at random, then resized to the resolution."""

    crop_scale: Pair = Field(default=[0.08, 1.0])
    """Minimum and maximum share of an image's area that the random crop keeps."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    randaugment: Annotated[str, Field(pattern=RANDAUGMENT_PATTERN)] | None = None
    """A RandAugment policy in timm's notation, as `rand-m9-mstd0.5-inc1`."""
    color_jitter: Annotated[float, Field(ge=0)] = 0.0
    """Strength in brightness, contrast and saturation; timm does not apply it together with RandAugment."""
    erasing: Fraction = 0.0
    """Probability of random erasing."""
    erasing_mode: Literal["const", "pixel"] = "pixel"
    """Values of the erased pixels: the mean, or noise."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup; with CutMix, too, each batch has one of the two, with equal probability."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of CutMix."""

    @field_validator("crop_scale")
    @classmethod
    def _check_scale(cls, scale: list[float]) -> list[float]:
        if not scale[0] <= scale[1] <= 1:
            raise ValueError(f"must be a least and a largest share of at most 1, but got {scale}")
        return scale


class ClassificationEvaluation(StrictModel):
    """Preprocessing of the validation images."""

    crop: Annotated[float, Field(gt=0, le=1)] = 0.875
    """Side of the crop relative to that of the resized image."""
    mode: Literal["center", "squash", "border"] = "center"
    """The center of the image; or all of it, squashed to a square, or with a border (timm's `crop_mode`)."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images per batch in each worker; it does not affect the result."""


class FullScaleOptimizer(StrictModel):
    """The optimizer; weight decay is not applied to vectors (norms, biases)."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = 4e-3
    """Peak learning rate at the recipe's `batch_size`; it is not scaled."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = Field(
        default=[0.9, 0.999]
    )
    """Betas of AdamW."""
    eps: Positive = 1e-8
    """Epsilon of AdamW."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; not Nesterov's."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from one group of layers to the previous one; 1 for none."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient; null for no clipping."""


class FullScaleSchedule(StrictModel):
    """The learning rate by step: a warm-up, then a decay.

    A cosine starts at the end of the warm-up. The other schedules cover all steps and are multiplied by the warm-up, as
    in MMSegmentation and MMDetection.
    """

    name: Literal["cosine", "poly", "step"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 10.0
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Length of the warm-up in steps; null to use `warmup_epochs`."""
    warmup: Literal["linear", "constant"] = "linear"
    """Whether the warm-up increases linearly, or stays at its start."""
    warmup_start: Fraction = 0.0
    """Start of the warm-up, as a share of the learning rate."""
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    """Final learning rate of `cosine` and `poly`."""
    power: Positive = 1.0
    """For `poly`: the learning rate decays with this power of the remaining share of the steps."""
    milestones: list[Annotated[int, Field(ge=1)]] = Field(default=[])
    """For `step`: the epochs after which the learning rate is reduced."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """For `step`: the factor by which it is multiplied there."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.name == "step") != bool(self.milestones):
            raise ValueError("`milestones` must be given with `name: step`, and with no other schedule")
        return self


class FullScaleRecipe(StrictModel, ABC):
    """The budget and the optimization of a training at full scale."""

    about: str
    """Purpose and source of the recipe, in one line."""
    batch_size: Annotated[int, Field(ge=2)]
    """Images per optimizer step, over all workers: the batch size for which `optimizer.lr` is meant."""
    micro_batch: Annotated[int, Field(ge=2)] = 64
    """Maximum number of images at once in a worker; gradients are accumulated up to `batch_size` images."""
    optimizer: FullScaleOptimizer = FullScaleOptimizer()
    schedule: FullScaleSchedule = FullScaleSchedule()
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Stochastic depth of the last block; null for the network's own."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of the moving average of the weights, as 0.9999; null for none."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them: less memory, a third more time."""
    compile: bool = False
    """Have `torch.compile` compile the network."""
    sync_bn: bool = True
    """Whether batch norms use the images of all workers (on GPUs only)."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    keep_last: Annotated[int, Field(ge=1, le=1000)] = 3
    """Number of checkpoints that are kept, in addition to the best weights."""
    save_minutes: Positive = 30.0
    """Minutes between checkpoints within an epoch; one is also written after every epoch."""

    @property
    @abstractmethod
    def intervals(self) -> int:
        """Number of epochs; in an iteration-based training, of the parts between two validations, its "epochs"."""

    @property
    def is_iteration_based(self) -> bool:
        """Whether passes over the images follow each other regardless of where an interval ends."""
        return False

    def steps_per_interval(self, images: int) -> int:
        """Steps of an interval with this number of images; an incomplete last batch is left out."""
        return images // self.batch_size

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.schedule.min_lr > self.optimizer.lr:
            raise ValueError(
                f"`schedule.min_lr` must be at most `optimizer.lr` ({self.optimizer.lr:g}), "
                f"but got {self.schedule.min_lr:g}"
            )
        return self

    def canonical(self) -> dict[str, Any]:
        """Plain values of all keys that affect the outcome, without defaults."""
        left_out: dict[str, Any] = dict.fromkeys(FREE_TO_CHANGE, True) | {"evaluation": {"batch_size"}}
        values = self.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
        return {name: value for name, value in values.items() if value != {}}

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; equal for equal recipes, in any spelling."""
        return fingerprint([REVISION, self.canonical()])


class EpochBasedRecipe(FullScaleRecipe):
    """A recipe whose length is a number of passes over the images."""

    epochs: Annotated[int, Field(ge=1)]

    @property
    def intervals(self) -> int:
        """Number of epochs."""
        return self.epochs

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.schedule.warmup_steps is None and self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"`schedule.warmup_epochs` must be below `epochs` ({self.epochs}), "
                f"but got {self.schedule.warmup_epochs:g}; `schedule.warmup_steps` counts steps"
            )
        return self


class ClassificationRecipe(EpochBasedRecipe):
    """The data, the budget and the optimization of a classifier's training at full scale."""

    task: ClassVar[str] = "classification"
    """A key of `harness.training.tasks.TASKS`; the file of a classifier's recipe does not contain it."""
    data: ClassificationDataConfig = ClassificationDataConfig()
    resolution: Annotated[int, Field(ge=8, le=4096)] = 224
    """Side of the square images in pixels."""
    augmentation: FullScaleAugmentation = FullScaleAugmentation()
    evaluation: ClassificationEvaluation = ClassificationEvaluation()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    needs_weights: bool = False
    """Whether it starts from a trained network, which `--weights` names."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.data.has_val and self.data.dataset != "imagefolder":
            raise ValueError(f"`data.has_val` must be true of {self.data.dataset}, which has images to validate on")
        return self


def adapt_to_data(spec: NetworkSpec, recipe: ClassificationRecipe, classes: int) -> NetworkSpec:
    """The network as it is trained: with the data set's classes, color images, and the recipe's stochastic depth."""
    drop_path = spec.drop_path if recipe.drop_path is None else recipe.drop_path
    return spec.replace(classes=classes, in_channels=RGB_CHANNELS, drop_path=drop_path)
