"""Progress and result of measuring accuracy, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.training.full_scale.messages import Scores

TRAINING, MERGED = "training", "merged"
"""Names of the forms of a network."""


@dataclass(frozen=True, slots=True)
class AccuracyProgress:
    """Progress of a measurement."""

    images: int
    total_images: int
    top1: float
    """Top-1 of the first form so far, in percent."""
    images_per_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class FormAccuracy:
    """Accuracy and speed of one form of the network."""

    scores: Scores
    images_per_s: float
    """Speed of the network only, without reading images; without its first batch, unless it is the only one."""


@dataclass(frozen=True, slots=True)
class FormDifference:
    """Differences between the merged form and the training form."""

    predictions: int
    """Number of images with a different top-1 prediction."""
    logits: float
    """The largest difference of two logits."""
    top1: float
    """Top-1 of the merged form minus that of the training form, in percentage points."""


@dataclass(frozen=True, slots=True)
class AccuracyResult:
    """Accuracy of a network on a set of images."""

    forms: Mapping[str, FormAccuracy]
    """Results by form: `TRAINING`, `MERGED`, or both."""
    difference: FormDifference | None
    """None if only one form was evaluated."""
    images: int
    """Number of images that could be read."""
    unreadable: int
    wall_s: float
    waiting: float
    """Share of `wall_s` spent waiting for images."""
    notes: tuple[str, ...] = ()
    """Warnings about metrics that can mislead."""
