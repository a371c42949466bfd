"""The images on which a network is evaluated, with labels for its classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.full_scale import ClassificationDataConfig
from harness.data import DATASETS
from harness.data.image_file import NO_VALUE_RANGE, UnreadableFile
from harness.data.image_folder import classes_of, require_known_classes
from harness.data.image_sources import (
    GENERATED_DATASETS,
    ImageSource,
    InMemoryImages,
    files_in,
    folder_of,
    levels_in,
    naming_option,
    proxy_data,
)
from harness.data.labels import LabelAssignment, assign_by_position, assign_labels
from harness.data.shapes.dataset import VAL_SIZE, make


@dataclass(frozen=True, slots=True, eq=False)
class RelabeledImages:
    """Images with other labels."""

    images: ImageSource
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def image_or_failure(self, i: int) -> Image.Image | UnreadableFile:
        """See `ReadableFiles`."""
        return self.images.image_or_failure(i)


class ValidationImages(NamedTuple):
    """Images for the evaluation of a network."""

    images: ImageSource
    about: str
    """Description of the images."""
    labels: str
    """How their labels were assigned; see `harness.data.labels`."""
    names: tuple[str, ...]
    """The classes that have images."""


def open_validation(
    data: ClassificationDataConfig,
    classes: int,
    resolution: int,
    root: Path | None,
    cache: Path,
    network_classes: Sequence[str] | None = None,
    *,
    is_by_name: bool = True,
) -> ValidationImages:
    """The validation images of a data set, with labels for a network with this number of classes.

    A folder may contain `train` and `val`, or be `val` itself. `network_classes` are the names of the network's
    classes; without `is_by_name` they are ignored. Raises `DataError`s that name `--data`, also if the classes do not
    fit.
    """
    network_classes = network_classes if is_by_name else None
    with naming_option():
        if data.dataset == "imagefolder":
            return _open_val(data, classes, folder_of(data.dataset, root), network_classes, is_by_name=is_by_name)
        small = proxy_data(data, resolution, root)
        names = DATASETS[data.dataset].describe(small).names
        assignment = _assigned(names, network_classes, classes, data.dataset, is_by_name=is_by_name)
        if data.dataset in GENERATED_DATASETS:
            split = make(small, "val", data.val_size or VAL_SIZE)
            about = f"validation images of {data.dataset}, {data.rendering}, difficulty {data.difficulty:g}"
        else:
            split, about = DATASETS[data.dataset].load(small, cache, 0).val, f"test images of {data.dataset}"
    return ValidationImages(_relabeled(InMemoryImages(split), assignment), about, assignment.about, names)


def _open_val(
    data: ClassificationDataConfig, classes: int, root: Path, network_classes: Sequence[str] | None, *, is_by_name: bool
) -> ValidationImages:
    """Images in folders: classes are matched by folder name; without names of the network, those of `train` decide."""
    if (root / "train").is_dir():
        names, split = classes_of(root, "train"), "val"
        require_known_classes(root, names)
    else:
        root, split = (root, "val") if (root / "val").is_dir() else (root.parent, root.name)
        names = classes_of(root, split)
    place = str(root / split)
    if network_classes is None:
        assignment = _assigned(names, None, classes, place, is_by_name=is_by_name)
    else:
        names = classes_of(root, split)
        assignment = assign_labels(names, network_classes, classes, place)
    ordered = [names[i] for i in np.argsort(assignment.labels)]
    files = files_in(root, split, tuple(ordered), data.val_size)
    levels = levels_in([files])
    if levels != NO_VALUE_RANGE and (root / "train").is_dir() and split == "val":
        levels = levels_in([files, files_in(root, "train", classes_of(root, "train"), None)])
    in_order = assignment._replace(labels=tuple(sorted(assignment.labels)))
    about = "" if levels.about is None else f"; {levels.about}"
    relabeled = _relabeled(replace(files, levels=levels), in_order)
    return ValidationImages(relabeled, f"images of {place}{about}", assignment.about, tuple(ordered))


def _assigned(
    names: Sequence[str], network_classes: Sequence[str] | None, classes: int, place: str, *, is_by_name: bool
) -> LabelAssignment:
    if is_by_name:
        return assign_labels(names, network_classes, classes, place)
    return assign_by_position(names, classes, place, "as `--labels position` requests")


def _relabeled(images: ImageSource, assignment: LabelAssignment) -> ImageSource:
    if assignment.labels == tuple(range(len(assignment.labels))):
        return images
    return RelabeledImages(images, np.array(assignment.labels, np.int64)[images.labels])
