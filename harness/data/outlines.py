"""Where figures lie, as COCO's format tells it: polygons, or lengths of runs; kept as arrays, made runs when needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.detection_annotations import RLE

MIN_COORDINATES = 6
"""Of a polygon: three corners."""


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """Polygons of many figures, each of several parts; and the runs of those that were given so."""

    coordinates: NDArray[np.float64]
    """x and y of all corners of all parts."""
    parts: NDArray[np.int64]
    """(parts + 1,): where a part begins among the numbers."""
    instance_parts: NDArray[np.int64]
    """(figures, 2): the parts of a figure, from and to; none for one that was given as runs."""
    rle_masks: dict[int, RLE]
    """Those, by the number of the figure."""

    def rle(self, figure: int, height: int, width: int) -> RLE:
        """The figure's mask in an image of that size."""
        from pycocotools import mask as runs

        if figure in self.rle_masks:
            return self.rle_masks[figure]
        begin, end = self.instance_parts[figure].tolist()
        polygons = [self.coordinates[self.parts[i] : self.parts[i + 1]].tolist() for i in range(begin, end)]
        merged: RLE = runs.merge(runs.frPyObjects(polygons, height, width))
        return merged


class PolygonsBuilder:
    """Takes figures one by one."""

    def __init__(self) -> None:
        self._numbers: list[NDArray[np.float64]] = []
        self._parts = [0]
        self._first: list[tuple[int, int]] = []
        self._given: dict[int, RLE] = {}

    def add(self, segmentation: Any, sides: tuple[int, int]) -> bool:
        """Take a figure, of an image of that width and height; False, and not taken, for one that covers nothing.

        Raises `ValueError` or `TypeError` for what the format does not know.
        """
        if isinstance(segmentation, dict):
            self._given[len(self._first)] = _compressed_rle(segmentation, sides)
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
        """Take a box, x0, y0, x1, y1, for a figure that has no outline."""
        x0, y0, x1, y1 = corners
        begin = len(self._parts) - 1
        self._numbers.append(np.array([x0, y0, x1, y0, x1, y1, x0, y1], np.float64))
        self._parts.append(self._parts[-1] + 8)
        self._first.append((begin, begin + 1))

    def build(self, order: Sequence[int]) -> Polygons:
        """All figures, put into that order."""
        first = np.array([self._first[i] for i in order], np.int64).reshape(-1, 2)
        given = {at: self._given[i] for at, i in enumerate(order) if i in self._given}
        numbers = np.concatenate(self._numbers) if self._numbers else np.zeros(0)
        return Polygons(numbers, np.array(self._parts), first, given)


def _compressed_rle(segmentation: dict[str, Any], sides: tuple[int, int]) -> RLE:
    """Runs as pycocotools packs them, from either of the ways in which files have them."""
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
