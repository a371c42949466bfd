"""Annotations of an image for detection, of any data set: boxes, classes, masks.

Shapes: B instances of an image, H W its height and width; boxes are x0, y0, x1, y1 in pixels of the stored image, x1
and y1 exclusive.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.read_report import UnreadableFile

RLE = dict[str, Any]
"""A run-length encoded mask of pycocotools: `size` (height and width) and `counts` (lengths of runs, as bytes)."""


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """The instances of one image."""

    boxes: NDArray[np.float32]
    """(B, 4), inside the image, each with an area."""
    labels: NDArray[np.int64]
    """(B,), counted from 0."""
    areas: NDArray[np.float32]
    """(B,): area of each instance (not of its box) in pixels, which classifies it as small, medium or large."""
    is_crowd: NDArray[np.bool_]
    """(B,): COCO's `iscrowd`: ignored in training and evaluation."""
    masks: tuple[RLE, ...] | None = None
    """None if there are no masks, or they were not requested."""
    lacks_mask: NDArray[np.bool_] | None = None
    """(B,): which instances have their box instead of an unknown mask; None for none."""

    @property
    def has_mask(self) -> NDArray[np.bool_]:
        """(B,): whether the mask of each instance is known."""
        return np.ones(len(self), bool) if self.lacks_mask is None else ~self.lacks_mask

    def __len__(self) -> int:
        return len(self.labels)


class DetectionSource(Protocol):
    """The images of a split with their instances."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def image(self, i: int) -> Image.Image | None:
        """An image; None for a file that cannot be read."""
        ...

    def image_or_failure(self, i: int) -> Image.Image | UnreadableFile:
        """An image in color, or the reason why it cannot be read; see `ReadableFiles`."""
        ...

    def instances(self, i: int) -> Instances:
        """The instances of an image, crowds included."""
        ...


def encode_rle(mask: NDArray[Any]) -> RLE:
    """Encode a binary mask (H, W)."""
    from pycocotools import mask as runs

    packed: RLE = runs.encode(np.asfortranarray(mask, dtype=np.uint8))
    return packed


def decode_rle(masks: tuple[RLE, ...], height: int, width: int) -> NDArray[np.uint8]:
    """Decode to masks (B, H, W) of 0 and 1."""
    from pycocotools import mask as runs

    if not masks:
        return np.zeros((0, height, width), np.uint8)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # pycocotools and numpy 2
        unpacked: NDArray[np.uint8] = runs.decode(list(masks)).transpose(2, 0, 1)
    return unpacked
