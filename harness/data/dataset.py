"""A loaded data set: plain arrays, memory-mapped, one copy per machine.

Shapes: N images, C channels, H W height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation with which nearly all networks for color images are trained."""


@dataclass(frozen=True, slots=True)
class DataInfo:
    """The properties of a data set that are available before any image is read."""

    classes: int
    channels: int
    names: tuple[str, ...]
    """One name per class, in the order of the labels."""
    digest: str | None = None
    """Digest of the content of the files; None for generated data, and if it was not requested (see `identify`)."""
    images: tuple[int, int] | None = None
    """Numbers of training and validation images, if they are known without reading any."""


class Rows:
    """Images (N, C, H, W) selected from stored arrays by index; read on access, never all at once."""

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
        """Index like an array: by an integer, a slice or an array of integers."""
        numbers = self._index[key]
        flat = np.atleast_1d(numbers)
        images = np.empty((len(flat), *self.shape[1:]), np.uint8)
        for stored, start, end in zip(self._stored, self._starts, self._starts[1:], strict=False):
            inside = (start <= flat) & (flat < end)
            images[inside] = stored[flat[inside] - start]
        return images if np.ndim(numbers) else images[0]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The images of one split with their labels and annotations; those that a data set lacks are None."""

    images: NDArray[np.uint8] | Rows
    """(N, C, H, W); an array if the images are stored as they are used."""
    labels: NDArray[np.int64]
    """(N,)."""
    masks: NDArray[np.uint8] | None = None
    """(N, H, W): 0 for the background, 1 + class for the object."""
    boxes: NDArray[np.int64] | None = None
    """(N, 4): x0, y0, x1, y1 of the object in pixels, x1 and y1 exclusive."""
    cues: NDArray[np.int64] | None = None
    """(N,): the class of the object's texture."""

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
    """With cues: images whose texture is of another class than their shape."""
    interim_val: int | None = None
    """Number of validation images, the first ones, that are used before the last epoch; None for all."""
    notes: tuple[str, ...] = ()
    """Messages for the user about the data, such as unreadable files."""


ARRAYS: dict[str, Any] = {
    "images": np.uint8,
    "labels": np.int64,
    "masks": np.uint8,
    "boxes": np.int64,
    "cues": np.int64,
}
"""The arrays of a split and their dtypes."""
