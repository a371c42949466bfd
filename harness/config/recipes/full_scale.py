"""How a network is trained at full scale, as a value: what a file in `harness/config/recipes/library` says.

The proxy of a study (`harness.config.recipes.proxy`) brings all images to one size once and keeps them in memory. At
full scale they are read anew in every epoch, each cropped and distorted on its own, as timm does it. All images are in
colour.

`FullScaleRecipe` holds what every training at full scale has, whatever is learnt; `ClassificationRecipe` is that of a
classifier.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.config.recipes.proxy import RANDAUGMENT_PATTERN, StrictModel
from harness.system.fingerprint import fingerprint

REVISION = 1
"""Part of every fingerprint. Raised when code or a default changes what the same recipe gives."""
FREE_TO_CHANGE = ("about", "keep_last", "save_minutes")
"""Keys that decide nothing of the outcome."""

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PerChannel = Annotated[list[float], Field(min_length=3, max_length=3)]
Pair = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class ImageDataConfig(StrictModel):
    """Images, and how they are made numbers."""

    train_size: Annotated[int, Field(ge=1)] | None = None
    """Number of training images, drawn by lot, every class in its proportion; null for all (of `shapes`: 2000)."""
    val_size: Annotated[int, Field(ge=1)] | None = None
    """Number of validation images; null for all (of `shapes`: 1000)."""
    rendering: Literal["contours", "textured"] = "contours"
    """Of `shapes`."""
    difficulty: Fraction = 0.5
    """Of `shapes`: 0 easy, 1 hard."""
    mean: PerChannel = Field(default=[0.485, 0.456, 0.406])
    """What is taken off red, green and blue in [0, 1]; by default ImageNet's mean."""
    std: PerChannel = Field(default=[0.229, 0.224, 0.225])
    """What they are divided by then; by default ImageNet's standard deviation."""

    @field_validator("std")
    @classmethod
    def _check_std(cls, std: list[float]) -> list[float]:
        if min(std) <= 0:
            raise ValueError(f"must be above 0, but got {min(std):g}")
        return std


class ClassificationDataConfig(ImageDataConfig):
    """The images of a classifier."""

    dataset: Literal["shapes", "cifar10", "cifar100", "imagefolder"] = "imagefolder"
    """Where they come from; `imagefolder` is the layout of ImageNet: folders train and val, a folder per class each."""
    classes: Annotated[int, Field(ge=2)] | None = None
    """How many classes the images must be of; null for any number."""
    has_val: bool = True
    """Whether there are images to validate on; ImageNet-22K has none."""


class FullScaleAugmentation(StrictModel):
    """What is done to the training images; each is cropped at random first, then brought to the resolution."""

    crop_scale: Pair = Field(default=[0.08, 1.0])
    """Least and largest share of an image's area that the random crop keeps."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    flip: Fraction = 0.5
    """Probability of mirroring left to right."""
    randaugment: Annotated[str, Field(pattern=RANDAUGMENT_PATTERN)] | None = None
    """A RandAugment policy in timm's notation, as `rand-m9-mstd0.5-inc1`."""
    color_jitter: Annotated[float, Field(ge=0)] = 0.0
    """Strength in brightness, contrast and saturation; timm leaves it out where there is RandAugment."""
    erasing: Fraction = 0.0
    """Probability of random erasing."""
    erasing_mode: Literal["const", "pixel"] = "pixel"
    """What stands where something was erased: the mean, or noise."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup; where there is CutMix too, each batch has one of the two, drawn evenly."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of CutMix."""

    @field_validator("crop_scale")
    @classmethod
    def _check_scale(cls, scale: list[float]) -> list[float]:
        if not scale[0] <= scale[1] <= 1:
            raise ValueError(f"must be a least and a largest share of at most 1, but got {scale}")
        return scale


class ClassificationEvaluation(StrictModel):
    """How validation images are cut."""

    crop: Annotated[float, Field(gt=0, le=1)] = 0.875
    """Side of the cut relative to that of the resized image."""
    mode: Literal["center", "squash", "border"] = "center"
    """The middle of the image; or all of it, squashed to a square, or with a border (timm's `crop_mode`)."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images at once, in each worker; of no consequence for the result."""


class FullScaleOptimizer(StrictModel):
    """The optimiser; vectors (norms, biases) are not decayed."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = 4e-3
    """Peak learning rate at the recipe's `batch_size`; it is not scaled."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = Field(
        default=[0.9, 0.999]
    )
    """Of AdamW."""
    eps: Positive = 1e-8
    """Of AdamW."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD; not Nesterov's."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from one group of layers to the group before it; 1 for none."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient; null for no clipping."""


class FullScaleSchedule(StrictModel):
    """The learning rate, step by step: up, then down.

    A cosine begins where the warm-up ends. The others go by all steps, and the warm-up multiplies them, as in
    MMSegmentation and MMDetection.
    """

    name: Literal["cosine", "poly", "step"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 10.0
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """In the place of `warmup_epochs`; null for those."""
    warmup: Literal["linear", "constant"] = "linear"
    """Whether the warm-up rises in a line, or stays where it begins."""
    warmup_start: Fraction = 0.0
    """Where it begins, as a share of the rate."""
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    """Where cosine and poly end."""
    power: Positive = 1.0
    """Of poly: the rate falls with this power of the steps that are left."""
    milestones: list[Annotated[int, Field(ge=1)]] = Field(default=[])
    """Of step: the epochs behind which the rate falls."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Of step: by what it is multiplied there."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.name == "step") != bool(self.milestones):
            raise ValueError("`milestones` must be given with `name: step`, and with no other schedule")
        return self


class FullScaleRecipe(StrictModel, ABC):
    """The budget and the optimisation of a training at full scale."""

    about: str
    """What it is for, and where it was published, in a line."""
    batch_size: Annotated[int, Field(ge=2)]
    """Images per step of the optimiser, over all workers: the batch that `optimizer.lr` is meant for."""
    micro_batch: Annotated[int, Field(ge=2)] = 64
    """Most images at once in a worker; gradients are gathered until `batch_size` images are seen."""
    optimizer: FullScaleOptimizer = FullScaleOptimizer()
    schedule: FullScaleSchedule = FullScaleSchedule()
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Stochastic depth of the last block; null for the network's own."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of the weights' moving average, as 0.9999; null for none."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    compile: bool = False
    """Have `torch.compile` compile the network."""
    sync_bn: bool = True
    """Whether batch norms see the images of all workers, where these are on GPUs."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    keep_last: Annotated[int, Field(ge=1, le=1000)] = 3
    """How many checkpoints are kept, besides the best weights."""
    save_minutes: Positive = 30.0
    """A checkpoint is written after every epoch, and so often within one."""

    @property
    @abstractmethod
    def intervals(self) -> int:
        """Epochs; where a training counts its steps, the parts between two validations, which stand for epochs."""

    @property
    def is_iteration_based(self) -> bool:
        """Whether one pass over the images follows the other without regard to where a round ends."""
        return False

    def steps_per_interval(self, images: int) -> int:
        """The steps of a round over so many images; those that are left over wait for another one."""
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
        """Plain values of all that decides the outcome, without those at their default."""
        left_out: dict[str, Any] = dict.fromkeys(FREE_TO_CHANGE, True) | {"evaluation": {"batch_size"}}
        values = self.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
        return {name: value for name, value in values.items() if value != {}}

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; equal for equal recipes, however spelled."""
        return fingerprint([REVISION, self.canonical()])


class EpochBasedRecipe(FullScaleRecipe):
    """A training that is as long as so many passes over the images."""

    epochs: Annotated[int, Field(ge=1)]

    @property
    def intervals(self) -> int:
        """Its epochs."""
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
    """The data, the budget and the optimisation of a classifier's training at full scale."""

    task: ClassVar[str] = "classification"
    """See `harness.training.tasks.TASKS`; the file of a classifier's recipe does not name it."""
    data: ClassificationDataConfig = ClassificationDataConfig()
    resolution: Annotated[int, Field(ge=8, le=4096)] = 224
    """Side of the square images in pixels."""
    augmentation: FullScaleAugmentation = FullScaleAugmentation()
    evaluation: ClassificationEvaluation = ClassificationEvaluation()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    needs_weights: bool = False
    """Whether it goes on from a trained network, given by `--weights`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.data.has_val and self.data.dataset != "imagefolder":
            raise ValueError(f"`data.has_val` must be true of {self.data.dataset}, which has images to validate on")
        return self
