"""The images that a network is evaluated on, with the labels that they have among its classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.full_scale import FullData
from harness.data import DATASETS
from harness.data.image_file import NO_LEVELS
from harness.data.image_folder import classes_of
from harness.data.image_sources import (
    GENERATED,
    Images,
    Stored,
    files_in,
    folder_of,
    levels_in,
    naming_option,
    proxy_data,
    require_known_classes,
)
from harness.data.labels import Assignment, assign_labels, by_position
from harness.data.read_report import Lost
from harness.data.shapes.dataset import VAL_SIZE, make


@dataclass(frozen=True, slots=True, eq=False)
class Relabeled:
    """Images with other labels."""

    images: Images
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, i: int) -> Image.Image | None:
        """See `Images`."""
        return self.images.picture(i)

    def look(self, i: int) -> Image.Image | Lost:
        """See `Images`."""
        return self.images.look(i)


class Validation(NamedTuple):
    """Images that a network is to be evaluated on."""

    images: Images
    about: str
    """Which they are."""
    labels: str
    """How their labels were found; see `harness.data.labels`."""
    names: tuple[str, ...]
    """The classes that have images."""


def open_validation(
    data: FullData,
    classes: int,
    resolution: int,
    root: Path | None,
    cache: Path,
    known: Sequence[str] | None = None,
    *,
    is_by_name: bool = True,
) -> Validation:
    """The validation images of a data set alone, with the labels of a network of so many classes.

    A folder may hold `train` and `val`, or be `val` itself. `known` are the names of the network's classes; without
    `is_by_name` they are left aside. Raises `DataError`s that name `--data`, also where the classes do not fit.
    """
    known = known if is_by_name else None
    with naming_option():
        if data.dataset == "imagefolder":
            return _open_val(data, classes, folder_of(data.dataset, root), known, is_by_name=is_by_name)
        small = proxy_data(data, resolution, root)
        names = DATASETS[data.dataset].describe(small).names
        given = _assigned(names, known, classes, data.dataset, is_by_name=is_by_name)
        if data.dataset in GENERATED:
            split = make(small, "val", data.val_size or VAL_SIZE)
            about = f"validation images of {data.dataset}, {data.rendering}, difficulty {data.difficulty:g}"
        else:
            split, about = DATASETS[data.dataset].load(small, cache, 0).val, f"test images of {data.dataset}"
    return Validation(_relabeled(Stored(split), given), about, given.about, names)


def _open_val(data: FullData, classes: int, root: Path, known: Sequence[str] | None, *, is_by_name: bool) -> Validation:
    """Classes are found by the names of their folders; those of `train` decide where the network has no names."""
    if (root / "train").is_dir():
        names, split = classes_of(root, "train"), "val"
        require_known_classes(root, names)
    else:
        root, split = (root, "val") if (root / "val").is_dir() else (root.parent, root.name)
        names = classes_of(root, split)
    place = str(root / split)
    if known is None:
        given = _assigned(names, None, classes, place, is_by_name=is_by_name)
    else:
        names = classes_of(root, split)
        given = assign_labels(names, known, classes, place)
    ordered = [names[i] for i in np.argsort(given.labels)]
    files = files_in(root, split, tuple(ordered), data.val_size)
    levels = levels_in([files])
    if levels != NO_LEVELS and (root / "train").is_dir() and split == "val":
        levels = levels_in([files, files_in(root, "train", classes_of(root, "train"), None)])
    sound = given._replace(labels=tuple(sorted(given.labels)))
    about = "" if levels.about is None else f"; {levels.about}"
    shown = _relabeled(replace(files, levels=levels), sound)
    return Validation(shown, f"images of {place}{about}", given.about, tuple(ordered))


def _assigned(
    names: Sequence[str], known: Sequence[str] | None, classes: int, place: str, *, is_by_name: bool
) -> Assignment:
    if is_by_name:
        return assign_labels(names, known, classes, place)
    return by_position(names, classes, place, "as `--labels position` says")


def _relabeled(images: Images, given: Assignment) -> Images:
    if given.labels == tuple(range(len(given.labels))):
        return images
    return Relabeled(images, np.array(given.labels, np.int64)[images.labels])
