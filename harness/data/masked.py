"""Images with a class for every pixel, in two files each: what all such data sets share.

Shapes: H W height and width of an image, another for every image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.imagefolder import ENDINGS, UNREADABLE, open_image
from harness.errors import DataError

IGNORED = 255
"""The label of pixels that count neither in training nor in measuring."""
NAMED = 3
"""Missing files that an error names."""
LEVELS = 256

Mask = NDArray[np.uint8]
"""(H, W): the class of each pixel, or `IGNORED`."""


class Masked(Protocol):
    """The images of a split."""

    def __len__(self) -> int: ...

    def pair(self, i: int) -> tuple[Image.Image, Mask] | None:
        """An image in colour and its mask, of one size; None where one of the two cannot be read.

        Raises `DataError`, naming the file, for a mask that is not the image's.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MaskedFiles:
    """Images and masks in files, read when they are asked for."""

    pairs: Sequence[tuple[Path, Path]]
    """Image and mask."""
    tables: Sequence[Mask]
    """For each pair one of (256,): the class of each value of the mask's file."""
    allowed: Sequence[int]
    """For each pair the largest value that the mask's file may have, besides 255."""

    def __len__(self) -> int:
        return len(self.pairs)

    def pair(self, i: int) -> tuple[Image.Image, Mask] | None:
        """See `Masked`."""
        image_path, mask_path = self.pairs[i]
        image, values = open_image(image_path), _values(mask_path)
        if image is None or values is None:
            return None
        if values.shape != (image.height, image.width):
            raise DataError(
                f"a mask must have the size of its image ({image.width}x{image.height})",
                value=f"{values.shape[1]}x{values.shape[0]}",
                place=str(mask_path),
                remedy="Fetch both files again.",
            )
        most = int(values[values != IGNORED].max(initial=0))
        if most > self.allowed[i]:
            raise DataError(
                f"the values of a mask must be at most {self.allowed[i]}, or {IGNORED}",
                value=most,
                place=str(mask_path),
            )
        return image, self.tables[i][values]


def _values(path: Path) -> Mask | None:
    """What stands in a mask's file, (H, W); None for one that cannot be read."""
    try:
        with Image.open(path) as image:
            image.load()
            found = np.asarray(image)
    except UNREADABLE:
        return None
    if found.ndim != 2:
        raise DataError("a mask must have one channel", value=found.shape[2], place=str(path))
    if int(found.max(initial=0)) >= LEVELS or int(found.min(initial=0)) < 0:
        raise DataError(f"the values of a mask must be 0 to {LEVELS - 1}", value=int(found.max()), place=str(path))
    return found.astype(np.uint8)


def image_files(folder: Path, layout: str) -> list[Path]:
    """The images in a folder, those below it included, by name. Raises `DataError` where there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.name[0] != ".")
    if not found:
        raise DataError(
            "the folder must hold images", place=str(folder), remedy=f"Expected: {layout}. Nothing is downloaded."
        )
    return found


def require_masks(missing: Sequence[Path], images: int, layout: str) -> None:
    """Raise `DataError` where masks are missing, by what their images are called."""
    if missing:
        named = ", ".join(path.name for path in missing[:NAMED])
        raise DataError(
            f"every image must have a mask; of {images:,}, {len(missing):,} have none ({named}"
            f"{', ...' if len(missing) > NAMED else ''})",
            place=str(missing[0].parent),
            remedy=f"Expected: {layout}. Put the masks there, or take the images away.",
        )


def some_of(count: int, size: int | None, key: str) -> list[int]:
    """The numbers of `size` images drawn by lot, ascending; of all for None; a larger draw holds the smaller one.

    Raises `DataError`, naming the recipe's `key`, where there are too few.
    """
    if size is not None and size > count:
        raise DataError(f"`{key}` must be at most the {count:,} images that there are", value=size, place=f"data.{key}")
    return sorted(np.random.default_rng(0).permutation(count)[:size].tolist())
