"""Annotations of an image for detection, of any data set: boxes, classes, masks.

Masks in COCO's format, polygons or run-length encoded, are stored as arrays and encoded on access.

Shapes: B instances of an image, H W its height and width; boxes are x0, y0, x1, y1 in pixels of the stored image, x1
and y1 exclusive.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.data.read_report import ReadableFiles

RLE = dict[str, Any]
"""A run-length encoded mask of pycocotools: `size` (height and width) and `counts` (lengths of runs, as bytes)."""
MIN_COORDINATES = 6
"""Minimum number of coordinates of a polygon: three corners."""


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


class DetectionSource(ReadableFiles, Protocol):
    """The images of a split with their instances."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """Polygons of many instances, each of several parts; and the masks of instances with run-length encoding."""

    coordinates: NDArray[np.float64]
    """x and y of all corners of all parts."""
    parts: NDArray[np.int64]
    """(parts + 1,): index of each part's first coordinate."""
    instance_parts: NDArray[np.int64]
    """(instances, 2): first part of an instance, and the one after its last; equal with run-length encoding."""
    rle_masks: dict[int, RLE]
    """The masks of instances with run-length encoding, by instance."""

    def rle(self, instance: int, height: int, width: int) -> RLE:
        """The instance's mask in an image of that size."""
        from pycocotools import mask as runs

        if instance in self.rle_masks:
            return self.rle_masks[instance]
        begin, end = self.instance_parts[instance].tolist()
        polygons = [self.coordinates[self.parts[i] : self.parts[i + 1]].tolist() for i in range(begin, end)]
        merged: RLE = runs.merge(runs.frPyObjects(polygons, height, width))
        return merged


class PolygonsBuilder:
    """Builds `Polygons` from instances that are added one by one."""

    def __init__(self) -> None:
        self._numbers: list[NDArray[np.float64]] = []
        self._parts = [0]
        self._first: list[tuple[int, int]] = []
        self._rle_masks: dict[int, RLE] = {}

    def add(self, segmentation: Any, sides: tuple[int, int]) -> bool:
        """Add an instance of an image of that width and height; False, and not added, if it has no valid polygon.

        Raises `ValueError` or `TypeError` for an invalid segmentation.
        """
        if isinstance(segmentation, dict):
            self._rle_masks[len(self._first)] = _compressed_rle(segmentation, sides)
            self._first.append((0, 0))
            return True
        if not isinstance(segmentation, list):
            raise TypeError("`segmentation` must be a list of polygons, or runs")
        polygons = [np.array(polygon, np.float64) for polygon in segmentation]
        if any(polygon.ndim != 1 or len(polygon) % 2 or not np.isfinite(polygon).all() for polygon in polygons):
            raise ValueError("`segmentation` must be polygons, each a list x, y, x, y and so on")
        polygons = [polygon for polygon in polygons if len(polygon) >= MIN_COORDINATES]
        if not polygons:
            return False
        begin = len(self._parts) - 1
        for polygon in polygons:
            self._numbers.append(polygon)
            self._parts.append(self._parts[-1] + len(polygon))
        self._first.append((begin, begin + len(polygons)))
        return True

    def add_box(self, corners: Sequence[float]) -> None:
        """Add a box, x0, y0, x1, y1, for an instance without an outline."""
        x0, y0, x1, y1 = corners
        begin = len(self._parts) - 1
        self._numbers.append(np.array([x0, y0, x1, y0, x1, y1, x0, y1], np.float64))
        self._parts.append(self._parts[-1] + 8)
        self._first.append((begin, begin + 1))

    def build(self, order: Sequence[int]) -> Polygons:
        """All instances, in that order."""
        first = np.array([self._first[i] for i in order], np.int64).reshape(-1, 2)
        rle_masks = {at: self._rle_masks[i] for at, i in enumerate(order) if i in self._rle_masks}
        numbers = np.concatenate(self._numbers) if self._numbers else np.zeros(0)
        return Polygons(numbers, np.array(self._parts), first, rle_masks)


def _compressed_rle(segmentation: dict[str, Any], sides: tuple[int, int]) -> RLE:
    """Run-length encoding of pycocotools, from either of the two forms in files."""
    from pycocotools import mask as runs

    height, width = (int(side) for side in segmentation["size"])
    if (width, height) != sides:
        raise ValueError(f"`segmentation` must be of the image's size {sides[::-1]}, but is of {(height, width)}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if any(not isinstance(count, int) or count < 0 for count in counts) or sum(counts) != height * width:
            raise ValueError("`counts` of a segmentation must be lengths that fill the image")
        packed: RLE = runs.frPyObjects(segmentation, height, width)
        return packed
    if not isinstance(counts, str):
        raise TypeError("`counts` of a segmentation must be a list or a string")
    return {"size": [height, width], "counts": counts.encode()}
