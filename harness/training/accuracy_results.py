"""What an examination says meanwhile and in the end: plain values."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.training.full_scale.messages import Scores

TRAINING, MERGED = "training", "merged"
"""The forms of a network."""


@dataclass(frozen=True, slots=True)
class AccuracyProgress:
    """How far an examination is."""

    images: int
    total_images: int
    top1: float
    """So far, of the first form; percent."""
    images_per_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class FormAccuracy:
    """One form of the network."""

    scores: Scores
    images_per_s: float
    """Of the network alone, without the reading of images and without its first batch, where there are more."""


@dataclass(frozen=True, slots=True)
class FormDifference:
    """What the merge has changed."""

    predictions: int
    """Images whose first class is another one."""
    logits: float
    """The largest difference of two logits."""
    top1: float
    """Points that the merged form is ahead."""


@dataclass(frozen=True, slots=True)
class AccuracyResult:
    """The result."""

    forms: Mapping[str, FormAccuracy]
    """By `TRAINING_SOURCES` and `MERGED`."""
    difference: FormDifference | None
    """None where one form was looked at."""
    images: int
    """Those that could be read."""
    unreadable: int
    wall_s: float
    waiting: float
    """Share of it that went by in waiting for images."""
    notes: tuple[str, ...] = ()
    """What must be known before a figure is believed."""
