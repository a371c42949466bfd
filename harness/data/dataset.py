"""What every data set looks like once it is loaded: plain arrays, memory-mapped, one copy per machine.

Shapes: N images, C channels, H W height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the networks for colour images are trained with, nearly all."""


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What a network must know of a data set before any image is read."""

    classes: int
    channels: int
    names: tuple[str, ...]
    """One name per class, in the order of the labels."""
    digest: str | None = None
    """Of the content of the files; None for generated data, and where it was not asked for (see `identify`)."""
    images: tuple[int, int] | None = None
    """Training and validation images, where these are counted without reading any."""


class Rows:
    """Images (N, C, H, W) chosen from stored ones by their numbers; read when they are asked for, never all at once."""

    def __init__(self, stored: Sequence[NDArray[np.uint8]], index: NDArray[np.int64]) -> None:
        self._stored, self._index = stored, index
        self._starts = np.cumsum([0, *map(len, stored)])

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return len(self), *self._stored[0].shape[1:]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """As an array has it, by a number, a slice or an array of numbers."""
        numbers = self._index[key]
        flat = np.atleast_1d(numbers)
        images = np.empty((len(flat), *self.shape[1:]), np.uint8)
        for stored, start, end in zip(self._stored, self._starts, self._starts[1:], strict=False):
            here = (start <= flat) & (flat < end)
            images[here] = stored[flat[here] - start]
        return images if np.ndim(numbers) else images[0]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The images of one split, and what is known of each; what a data set does not have is None."""

    images: NDArray[np.uint8] | Rows
    """(N, C, H, W); an array where the images are stored as they are used."""
    labels: NDArray[np.int64]
    """(N,)."""
    masks: NDArray[np.uint8] | None = None
    """(N, H, W): 0 for ground, 1 + class for the figure."""
    boxes: NDArray[np.int64] | None = None
    """(N, 4): x0, y0, x1, y1 of the figure in pixels, x1 and y1 just outside."""
    cues: NDArray[np.int64] | None = None
    """(N,): the class for which the figure's texture stands."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The splits of a data set and the statistics of its training images."""

    info: DataInfo
    train: Split
    val: Split
    mean: tuple[float, ...]
    """Per channel, of the training images scaled to [0, 1]."""
    std: tuple[float, ...]
    conflict: Split | None = None
    """Where there are cues: images whose texture stands for another class than their shape."""
    interim_val: int | None = None
    """How many validation images, the first ones, epochs before the last are judged on; None for all."""
    notes: tuple[str, ...] = ()
    """What a person should be told, such as files that could not be read."""


ARRAYS: dict[str, Any] = {
    "images": np.uint8,
    "labels": np.int64,
    "masks": np.uint8,
    "boxes": np.int64,
    "cues": np.int64,
}
"""The arrays of a split and what they are made of."""
