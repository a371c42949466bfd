"""How a network is trained, as a value.

The recipe is all that decides the outcome of a run besides its network and its seed, and nothing else: where it runs,
on how many workers and for how long at most is not part of it.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.fingerprint import fingerprint

REVISION = 4
"""Part of every fingerprint. Raised when code or a default changes what the same recipe gives, so that the store never
takes a run of the old meaning for one of the new."""


class Strict(BaseModel):
    """A frozen value whose unknown keys are errors; the base of everything that a study file can say."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Optimizer(Strict):
    """The optimiser and its peak learning rate."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.2
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Nesterov momentum of SGD; the first beta of AdamW."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; null for no clipping. Without it, a channel that is the same all over a batch, as
    happens on maps of few pixels, lets every batch norm above it multiply the gradient by up to 316, to 1e15 in the end."""


class Schedule(Strict):
    """The learning rate over a run: linear warm-up, then a cosine down to `final` times the peak, step by step."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0


RANDAUGMENT = r"^rand(-(m\d+|n\d+|p\d+(\.\d+)?|mstd\d+(\.\d+)?|mmax\d+|inc[01]|t(weights|3a|3aw)))*$"
"""The policies that timm's `rand_augment_transform` reads."""


class Augmentation(Strict):
    """What is done to the training images, in batches on the device; all off by default except shifts and flips."""

    flip: bool = True
    """Mirror each image left to right with probability one half."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Largest shift in pixels, with reflected borders (the "random crop" of CIFAR recipes)."""
    randaugment: Annotated[str, Field(pattern=RANDAUGMENT)] | None = None
    """A RandAugment policy in timm's notation, as `rand-m9-mstd0.5-inc1`."""
    random_erasing: Annotated[float, Field(ge=0, le=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0


class Recipe(Strict):
    """The data, the budget and the optimisation of a run."""

    dataset: str = "shapes"
    """A key of `harness.data.DATASETS`."""
    root: str | None = None
    """Folder of a data set that is not generated."""
    rendering: Literal["contours", "textured"] = "contours"
    """Of `shapes`: dashed outlines among fragments of others', or textured silhouettes on textured ground."""
    difficulty: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of `shapes`: 0 easy, 1 hard."""
    cue_correlation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of `shapes`, textured: how often the texture agrees with the class in training."""
    train_size: Annotated[int, Field(ge=1)] | None = None
    """Number of training images; null for all (of `shapes`: 2000)."""
    val_size: Annotated[int, Field(ge=1)] | None = None
    """Number of validation images; null for all (of `shapes`: 1000)."""
    data_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of a generated data set and of the choice of a subset; not the seed of the run."""
    resolution: Annotated[int, Field(ge=8, le=4096)] = 64
    """Side of the square images in pixels."""
    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.schedule.warmup_epochs >= self.epochs and self.schedule.warmup_epochs > 0:
            raise ValueError(
                f"`schedule.warmup_epochs` must be below `epochs` ({self.epochs}), "
                f"but got {self.schedule.warmup_epochs:g}"
            )
        return self

    def canonical(self) -> dict[str, Any]:
        """Plain values without those at their default, so that a new option leaves old fingerprints alone."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; equal for equal recipes, however spelled."""
        return fingerprint([REVISION, self.canonical()])
