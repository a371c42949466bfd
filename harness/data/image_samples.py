"""A few images of a folder, read at once and kept nowhere: for looking at networks, not for training them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.dataset import DataInfo, Dataset, Split
from harness.data.image_file import read_sampled_levels
from harness.data.image_folder import decode, image_names
from harness.data.read_report import Lost, reasons_text
from harness.errors import DataError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the networks for colour images are trained with, nearly all."""
LAYOUT = "images, or one folder of images per class, there or in a folder `val`"


def some_images(root: Path, count: int, side: int) -> Dataset:
    """So many images, or all, at that side: the first of every class, then the second of every class, and so on.

    Files that cannot be read are passed over, and told in the notes. Raises `DataError` where none can be read.
    """
    listed = list(_in_turns(root))
    levels = read_sampled_levels(listed)
    names: list[str] = []
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    lost: list[Lost] = []
    for path in listed:
        if len(images) == count:
            break
        decoded = decode(path, side, levels)
        image = decoded.pixels
        if image is None:
            lost.append(Lost(path, decoded.reason))
            continue
        if path.parent.name not in names:
            names.append(path.parent.name)
        images.append(image)
        labels.append(names.index(path.parent.name))
    if not images:
        reasons = f"Unreadable: {reasons_text(lost)}. " if lost else ""
        raise DataError(
            "the folder must hold images that can be read", place=str(root), remedy=f"{reasons}Expected: {LAYOUT}."
        )
    split = Split(np.stack(images), np.array(labels, np.int64))
    notes = [f"{len(lost)} images could not be read and are left out: {reasons_text(lost)}"] if lost else []
    notes += [] if levels.about is None else [levels.about]
    info = DataInfo(len(names), 3, tuple(names))
    return Dataset(info, split, split, mean=IMAGENET_MEAN, std=IMAGENET_STD, notes=tuple(notes))


def _in_turns(root: Path) -> Iterator[Path]:
    """The files by their place in their class folder, classes by name."""
    if not root.is_dir():
        raise DataError("the images must be in an existing folder", place=str(root), remedy=f"Expected: {LAYOUT}.")
    root = root / "val" if (root / "val").is_dir() else root
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    queues = [queue for folder in folders or [root] if (queue := _images(folder))]
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))


def _images(folder: Path) -> list[Path]:
    """Image files by name; hidden ones left out."""
    return [folder / name for name in image_names(folder)]
