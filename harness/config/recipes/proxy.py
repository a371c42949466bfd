"""How a network is trained, as a value.

The recipe is all that decides the outcome of a run besides its network and its seed, and nothing else: where it runs,
on how many workers and for how long at most is not part of it.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.system.fingerprint import fingerprint

REVISION = 5
"""Part of every fingerprint. Raised when code or a default changes what the same recipe gives, so that the store never
takes a run of the old meaning for one of the new."""


class StrictModel(BaseModel):
    """A frozen value whose unknown keys are errors; the base of everything that a study file can say."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Optimizer(StrictModel):
    """The optimiser and its peak learning rate."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.2
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Nesterov momentum of SGD; the first beta of AdamW."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; null for no clipping. Without it, a channel that is the same all over a batch, as
    on maps of few pixels, lets every batch norm above it multiply the gradient by up to 316, to 1e15 in the end."""


class Schedule(StrictModel):
    """The learning rate over a run: linear warm-up, then a cosine down to `final` times the peak, step by step."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0


RANDAUGMENT_PATTERN = r"^rand(-(m\d+|n\d+|p\d+(\.\d+)?|mstd\d+(\.\d+)?|mmax\d+|inc[01]|t(weights|3a|3aw)))*$"
"""The policies that timm's `rand_augment_transform` reads."""
NORM_GROUPS = 32
"""Of each group norm in torchvision's FCOS."""


class Augmentation(StrictModel):
    """What is done to the training images, in batches on the device; all off by default except shifts and flips."""

    flip: bool = True
    """Mirror each image left to right with probability one half."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Largest shift in pixels, with reflected borders (the "random crop" of CIFAR recipes)."""
    randaugment: Annotated[str, Field(pattern=RANDAUGMENT_PATTERN)] | None = None
    """A RandAugment policy in timm's notation, as `rand-m9-mstd0.5-inc1`."""
    random_erasing: Annotated[float, Field(ge=0, le=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0


class Transfer(StrictModel):
    """Dense prediction with the trained network as the backbone (guideline 4): the data set's masks, or its boxes.

    Cross-entropy per pixel, or FCOS's losses; AdamW, its learning rate warmed up and then brought down by a cosine.
    Data, flips, shifts and precision are those of the recipe. The defaults suit proxies of few pixels.
    """

    head: Literal["deeplabv3plus", "upernet", "fcos"] = "deeplabv3plus"
    """The decoder of a segmentation, of segmentation-models-pytorch; or FCOS, which detects, of torchvision."""
    channels: Annotated[int, Field(ge=1, le=4096)] = 64
    """Width of the decoder or of the detector's feature pyramid; 256 in the papers of all heads, 512 in RepLKNet's
    UPerNet."""
    finest: Literal[2, 4, 8] = 4
    """Stride of the finest map that the head reads; where the network has none so fine, its finest."""
    frozen: bool = False
    """Whether the backbone stays as it is, its batch norms' statistics included, and only the head learns."""
    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=2)] = 16
    lr: Annotated[float, Field(gt=0)] = 3e-3
    """Peak learning rate of AdamW, for backbone and decoder alike; 2e-4 in RepLKNet's segmentation and FCOS."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """As in RepLKNet's segmentation."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all steps in which the learning rate rises."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; null for no clipping."""

    @property
    def learns(self) -> Literal["masks", "boxes"]:
        """What of the data set the head is trained on."""
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
    """The data, the budget and the optimisation of a run."""

    dataset: str = "shapes"
    """A key of `harness.data.DATASETS`."""
    root: str | None = None
    """Folder of a data set that is not generated; relative to the study file. Where it is does not count for the
    fingerprint: a run is identified by the content of its data."""
    rendering: Literal["contours", "textured"] = "contours"
    """Of `shapes`: dashed outlines among fragments of others', or textured silhouettes on textured ground."""
    difficulty: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of `shapes`: 0 easy, 1 hard."""
    cue_correlation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of `shapes`, textured: how often the texture agrees with the class in training."""
    train_size: Annotated[int, Field(ge=1)] | None = None
    """Number of training images; null for all (of `shapes`: 2000)."""
    val_size: Annotated[int, Field(ge=1)] | None = None
    """Number of validation images of all epochs but the last; null for all (of `shapes`: 1000)."""
    final_val_size: Annotated[int, Field(ge=1)] | None = None
    """Number of validation images of the last epoch, the first `val_size` among them; null for 8 times as many, or as
    many as there are. They decide the sampling error of an accuracy: 0.3 points for 90 % of 8,000 images."""
    data_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of a generated data set and of the choice of a subset; with `resample`, the seed of the run is mixed in."""
    resample: Literal["split", "bootstrap", "none"] = "split"
    """Which images a run gets. split: its own by its seed, the same for all networks: generated anew, or training and
    validation images of a folder put together and parted again by class. bootstrap: training images drawn from these
    with replacement, validation images from the rest. none: the same for all seeds, the folder's own split."""
    resolution: Annotated[int, Field(ge=8, le=4096)] = 64
    """Side of the square images in pixels."""
    epochs: Annotated[int, Field(ge=0)] = 10
    """Passes over the training images; with 0 the network is only built and measured, with its first weights."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    measures: list[Literal["erf", "merge_error", "shape_bias", "throughput", "train_step"]] = Field(default=[])
    """What is measured on the trained network besides latency and memory: the effective receptive field; how far the
    merged form is off; shape against texture, of `shapes`, textured; images per second; time and memory of a step."""
    transfer: Transfer | None = None
    """Behind the training: the network as the backbone of a segmentation, measured as `miou`, or of a detector,
    measured as `ap`; null for none."""

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
        """What decides the images of the run with this seed, whatever its network; `data_seed` without resampling."""
        if self.resample == "none":
            return self.data_seed
        return int(fingerprint(["images", self.data_seed, seed]), base=16)

    def canonical(self) -> dict[str, Any]:
        """Plain values without those at their default, so that a new option leaves old fingerprints alone."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; equal for equal recipes, however spelled, wherever the data are."""
        return fingerprint([REVISION, {key: value for key, value in self.canonical().items() if key != "root"}])
