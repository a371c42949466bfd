"""The recipe of a study's runs.

Network, seed and recipe together determine the outcome of a run. Nothing else is part of a recipe: neither the machine,
nor the number of workers, nor a time limit.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.config.measures import MeasureName
from harness.system.fingerprint import fingerprint

REVISION = 5
"""Part of every fingerprint. Raised when code or a default changes the outcome of the same recipe, so that stored runs
are not mistaken for runs of the new recipe."""


class StrictModel(BaseModel):
    """Base class of all parts of a study file: a frozen value that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Optimizer(StrictModel):
    """The optimizer and its peak learning rate."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.2
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Nesterov momentum of SGD; the first beta of AdamW."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; null for no clipping. Without it, a channel that is constant over a batch, as may
    happen on maps of few pixels, lets every batch norm above it multiply the gradient by up to 316, in all by 1e15."""


class Schedule(StrictModel):
    """The learning rate over a run: linear warm-up, then a cosine down to `final` times the peak, step by step."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0


RANDAUGMENT_PATTERN = r"^rand(-(m\d+|n\d+|p\d+(\.\d+)?|mstd\d+(\.\d+)?|mmax\d+|inc[01]|t(weights|3a|3aw)))*$"
"""The policies that timm's `rand_augment_transform` accepts."""
NORM_GROUPS = 32
"""Number of groups of each group norm in torchvision's FCOS."""


class Augmentation(StrictModel):
    """Augmentation of the training images, in batches on the device; all off by default except flips."""

    flip: bool = True
    """Mirror each image left to right with probability one half."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Largest shift in pixels, with reflected borders (the "random crop" of CIFAR recipes)."""
    randaugment: Annotated[str, Field(pattern=RANDAUGMENT_PATTERN)] | None = None
    """A RandAugment policy in timm's notation, as `rand-m9-mstd0.5-inc1`."""
    random_erasing: Annotated[float, Field(ge=0, le=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0


SegmentationHead = Literal["deeplabv3plus", "upernet"]
"""The keys of `harness.models.heads.segmentation.SEGMENTATION_HEADS`."""


class Transfer(StrictModel):
    """Dense prediction with the trained network as the backbone (guideline 4): the data set's masks, or its boxes.

    The loss is cross-entropy per pixel, or FCOS's losses; the optimizer is AdamW with warm-up and a cosine schedule.
    Data, flips, shifts and precision are those of the recipe. The defaults suit proxies of few pixels.
    """

    head: Literal[SegmentationHead, "fcos"] = "deeplabv3plus"
    """A segmentation decoder of segmentation-models-pytorch, or torchvision's detector FCOS."""
    channels: Annotated[int, Field(ge=1, le=4096)] = 64
    """Width of the decoder or of the detector's feature pyramid; 256 in the papers of all heads, 512 in RepLKNet's
    UPerNet."""
    finest: Literal[2, 4, 8] = 4
    """Stride of the finest map that the head reads; if the network has none as fine, its finest."""
    frozen: bool = False
    """Whether the backbone is frozen, including its batch norms' statistics, and only the head is trained."""
    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=2)] = 16
    lr: Annotated[float, Field(gt=0)] = 3e-3
    """Peak learning rate of AdamW, for both backbone and decoder; 2e-4 in RepLKNet's segmentation and FCOS."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Weight decay of AdamW; the default is that of RepLKNet's segmentation."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all steps in which the learning rate rises."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; null for no clipping."""

    @property
    def learns(self) -> Literal["masks", "boxes"]:
        """The annotations on which the head is trained."""
        return "boxes" if self.head == "fcos" else "masks"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.head == "fcos" and self.channels % NORM_GROUPS:
            raise ValueError(
                f"`channels` must be a multiple of {NORM_GROUPS} with `head: fcos`, whose group norms have as many "
                f"groups, but got {self.channels}"
            )
        return self


class ProxyRecipe(StrictModel):
    """The data, the budget and the optimization of a run."""

    dataset: str = "shapes"
    """A key of `harness.data.DATASETS`."""
    root: str | None = None
    """Folder of a data set that is not generated; relative to the study file. It is not part of the fingerprint: a run
    is identified by the content of its data."""
    rendering: Literal["contours", "textured"] = "contours"
    """For `shapes`: dashed outlines among fragments of others, or textured silhouettes on a textured background."""
    difficulty: Annotated[float, Field(ge=0, le=1)] = 0.5
    """For `shapes`: 0 easy, 1 hard."""
    cue_correlation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """For textured `shapes`: probability that a training image has the texture of its class, else a random one."""
    train_size: Annotated[int, Field(ge=1)] | None = None
    """Number of training images; null for all (`shapes`: 2000)."""
    val_size: Annotated[int, Field(ge=1)] | None = None
    """Number of validation images of all epochs except the last; null for all (`shapes`: 1000)."""
    final_val_size: Annotated[int, Field(ge=1)] | None = None
    """Number of validation images of the last epoch, including the first `val_size`; null for 8 times `val_size`, or
    all if there are fewer. It decides the sampling error of an accuracy: 0.3 points for 90 % of 8,000 images."""
    data_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of a generated data set and of the choice of a subset; with `resample`, the seed of the run is mixed in."""
    resample: Literal["split", "bootstrap", "none"] = "split"
    """The images of a run. split: images by the run's seed, the same for all networks: newly generated, or a new
    stratified split of the training and validation images of a folder. bootstrap: training images drawn from these with
    replacement, validation images from the rest. none: the same images for all seeds, with the folder's own split."""
    resolution: Annotated[int, Field(ge=8, le=4096)] = 64
    """Side of the square images in pixels."""
    epochs: Annotated[int, Field(ge=0)] = 10
    """Passes over the training images; with 0 the network is only built and measured, with its initial weights."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the exponential moving average of the weights, which is validated and kept instead of the last weights;
    null for none. A transfer starts from it and has none of its own."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    measures: list[MeasureName] = Field(default=[])
    """Measures of the trained network in addition to latency and memory: Brier score; effective receptive field; error
    of the merged form; shape bias (textured `shapes`); images per second; time and memory of a training step; scores of
    the network before its training (`zero_cost`)."""
    transfer: Transfer | None = None
    """Transfer after the training: the network as the backbone of a segmentation (metric `miou`) or of a detector
    (metric `ap`); null for none."""

    @field_validator("measures")
    @classmethod
    def _check_measures(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError(f"must name each measure once, but got {', '.join(names)}")
        return sorted(names)  # so that their order changes no fingerprint

    @model_validator(mode="after")
    def _check(self) -> "ProxyRecipe":
        if "shape_bias" in self.measures and (self.dataset, self.rendering) != ("shapes", "textured"):
            raise ValueError(
                "`measures` must leave shape_bias out where no image has a texture of another class than its shape; "
                "`dataset: shapes` with `rendering: textured` has such"
            )
        if self.schedule.warmup_epochs >= self.epochs > 0 and self.schedule.warmup_epochs > 0:
            raise ValueError(
                f"`schedule.warmup_epochs` must be below `epochs` ({self.epochs}), "
                f"but got {self.schedule.warmup_epochs:g}"
            )
        if self.resample == "bootstrap" and self.dataset == "shapes":
            raise ValueError(
                "`resample` must be split or none where images are generated: with split, every seed has images of its "
                "own, which no resampling of a fixed set can better"
            )
        if self.final_val_size is not None and self.final_val_size < (self.val_size or 1):
            raise ValueError(
                f"`final_val_size` must be at least `val_size` ({self.val_size}), but got {self.final_val_size}"
            )
        if self.transfer is not None and self.train_size == 1:  # of one image, a map pooled to a pixel has no variance
            raise ValueError("`train_size` must be at least 2 where there is `transfer`, but got 1")
        return self

    def image_seed(self, seed: int) -> int:
        """Seed of the images of a run with this seed, for any network; `data_seed` without resampling."""
        if self.resample == "none":
            return self.data_seed
        return int(fingerprint(["images", self.data_seed, seed]), base=16)

    def canonical(self) -> dict[str, Any]:
        """Plain values without defaults, so that a new option does not change old fingerprints."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; equal for equal recipes, in any spelling and with any folder of the data."""
        return fingerprint([REVISION, {key: value for key, value in self.canonical().items() if key != "root"}])
