"""What there is to be found in an image, whatever data set it is of: boxes, classes, masks.

Shapes: B figures of an image, H W its height and width; boxes are x0, y0, x1, y1 in pixels of the image as it is kept,
x1 and y1 just outside.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.read_report import UnreadableFile

RLE = dict[str, Any]
"""A mask as pycocotools packs it: `size` (height and width) and `counts` (lengths of runs, as bytes)."""


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """The figures of one image."""

    boxes: NDArray[np.float32]
    """(B, 4), inside the image, each with an area."""
    labels: NDArray[np.int64]
    """(B,), counted from 0."""
    areas: NDArray[np.float32]
    """(B,), of the figures themselves, in pixels; by it they are small, medium or large."""
    is_crowd: NDArray[np.bool_]
    """(B,): whether it is a crowd that nobody counted: not trained on, and wherever found, neither right nor wrong."""
    masks: tuple[RLE, ...] | None = None
    """None where there are none, or none were asked for."""
    lacks_mask: NDArray[np.bool_] | None = None
    """(B,): which figures have their box in place of a mask that is unknown; None for none."""

    @property
    def has_mask(self) -> NDArray[np.bool_]:
        """(B,): whether the mask of each is known."""
        return np.ones(len(self), bool) if self.lacks_mask is None else ~self.lacks_mask

    def __len__(self) -> int:
        return len(self.labels)


class DetectionSource(Protocol):
    """The images of a split, and what is in them."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def image(self, i: int) -> Image.Image | None:
        """An image; None for a file that cannot be read."""
        ...

    def image_or_failure(self, i: int) -> Image.Image | UnreadableFile:
        """An image in color, or why there is none; see `ReadableFiles`."""
        ...

    def instances(self, i: int) -> Instances:
        """What is in it, crowds among it."""
        ...


def encode_rle(mask: NDArray[Any]) -> RLE:
    """A mask (H, W), true or false, as runs."""
    from pycocotools import mask as runs

    packed: RLE = runs.encode(np.asfortranarray(mask, dtype=np.uint8))
    return packed


def decode_rle(masks: tuple[RLE, ...], height: int, width: int) -> NDArray[np.uint8]:
    """Masks (B, H, W) of 0 and 1."""
    from pycocotools import mask as runs

    if not masks:
        return np.zeros((0, height, width), np.uint8)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # pycocotools and numpy 2
        unpacked: NDArray[np.uint8] = runs.decode(list(masks)).transpose(2, 0, 1)
    return unpacked
