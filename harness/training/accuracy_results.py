"""What an examination says meanwhile and in the end: plain values."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.training.full_scale.messages import Scores

TRAINING, MERGED = "training", "merged"
"""The forms of a network."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How far an examination is."""

    images: int
    of: int
    top1: float
    """So far, of the first form; percent."""
    images_per_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the network."""

    scores: Scores
    images_per_s: float
    """Of the network alone, without the reading of images and without its first batch, where there are more."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the merge has changed."""

    predictions: int
    """Images whose first class is another one."""
    logits: float
    """The largest difference of two logits."""
    top1: float
    """Points that the merged form is ahead."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The result."""

    forms: Mapping[str, Form]
    """By `TRAINING` and `MERGED`."""
    difference: Difference | None
    """None where one form was looked at."""
    images: int
    """Those that could be read."""
    unreadable: int
    wall_s: float
    waiting: float
    """Share of it that went by in waiting for images."""
    notes: tuple[str, ...] = ()
    """What must be known before a figure is believed."""
