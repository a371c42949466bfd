"""The images of a training at full scale: color images by index, and their labels; and what is expected of a folder."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.full_scale import ClassificationDataConfig, ClassificationRecipe, ImageDataConfig
from harness.config.recipes.proxy import ProxyRecipe
from harness.data import DATASETS, Dataset, Split, check
from harness.data.coco import COCO_LAYOUT
from harness.data.data_record import DataRecord, record_data
from harness.data.image_file import (
    NO_VALUE_RANGE,
    SAMPLE,
    UnreadableFile,
    ValueRange,
    image_or_failure_of,
    read_value_range,
)
from harness.data.image_folder import IMAGE_FOLDER_LAYOUT, classes_of, files_of, require_known_classes
from harness.data.read_report import ReadableFiles, check_images
from harness.data.segmentation_files import ADE20K_CLASSES, ADE20K_LAYOUT, CITYSCAPES_CLASSES, CITYSCAPES_LAYOUT
from harness.data.shapes.dataset import VAL_SIZE
from harness.data.shapes.dataset import load as load_annotated
from harness.data.subsets import require_classes, stratified_subset
from harness.errors import DataError

DATA_OPTION = "--data"
SMALLEST_BATCH = 2
"""The smallest `batch_size` of a study's recipe."""
GENERATED_DATASETS = tuple(name for name, source in DATASETS.items() if source.is_generated)


class ImageSource(ReadableFiles, Protocol):
    """The images of a split."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ImageFiles:
    """Images in files, read on access."""

    root: Path
    files: NDArray[np.bytes_]
    """(N,): paths relative to the root; not as Python objects, whose reference counts make workers copy the memory."""
    labels: NDArray[np.int64]
    levels: ValueRange = NO_VALUE_RANGE
    """Range of the values of all splits."""

    def __len__(self) -> int:
        return len(self.labels)

    def image_or_failure(self, i: int) -> Image.Image | UnreadableFile:
        """See `ReadableFiles`."""
        return image_or_failure_of(self.path(i), self.levels)

    def path(self, i: int) -> Path:
        """The file of an image."""
        return self.root / os.fsdecode(self.files[i])

    def recorded(self) -> list[Path]:
        """See `RecordedImages`."""
        return [self.root / os.fsdecode(file) for file in self.files]


@dataclass(frozen=True, slots=True, eq=False)
class InMemoryImages:
    """Images of a data set in memory."""

    split: Split

    @property
    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.split.labels

    def __len__(self) -> int:
        return len(self.split)

    def image_or_failure(self, i: int) -> Image.Image:
        """See `ReadableFiles`."""
        pixels = self.split.images[i].transpose(1, 2, 0)
        pixels = np.ascontiguousarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
        return Image.fromarray(pixels).convert("RGB")

    def recorded(self) -> Split:
        """See `RecordedImages`."""
        return self.split


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationData:
    """The training and validation images of a recipe."""

    classes: int
    train: ImageSource
    val: ImageSource | None
    notes: tuple[str, ...] = ()
    """Messages for the user about the data."""


def record_classification(recipe: ClassificationRecipe, root: Path | None, cache: Path) -> DataRecord:
    """The record of a classifier's data. Raises `DataError`s that name `--data`."""
    pictures = open_classification(recipe, root, cache)
    opened = {"train": pictures.train, "val": pictures.val}
    splits = {split: images for split, images in opened.items() if isinstance(images, ImageFiles | InMemoryImages)}
    folder = None if recipe.data.dataset in GENERATED_DATASETS else folder_of(recipe.data.dataset, root)
    return record_data(recipe.data.dataset, class_names(recipe, root), splits, root=folder)


def check_classification(recipe: ClassificationRecipe, root: Path | None, cache: Path) -> tuple[str, ...]:
    """Check the images of a recipe before anything is trained or written; returns notes (`harness.data.read_report`).

    Raises `DataError`s that name `--data` for images that cannot be trained on.
    """
    dataset = recipe.data.dataset
    if dataset in GENERATED_DATASETS:
        return ()
    with naming_option():
        if dataset != "imagefolder":
            small = proxy_data(recipe.data, recipe.resolution, root)
            return check(
                small.model_copy(update={"batch_size": SMALLEST_BATCH}), cache
            )  # `BatchPlan` compares the sizes
        require_classes(class_names(recipe, root), str(folder_of(dataset, root)))
        pictures = open_classification(recipe, root, cache)
        splits = {"training": pictures.train} | ({} if pictures.val is None else {"validation": pictures.val})
        return check_images(splits, str(folder_of(dataset, root)))


def count_classes(recipe: ClassificationRecipe, root: Path | None) -> int:
    """The number of classes; no image is read. Raises `DataError`s that name `--data`."""
    classes = len(class_names(recipe, root))
    expected = recipe.data.classes
    if expected is not None and classes != expected:
        rule = f"the images must be of {expected:,} classes, as the recipe requires (`data.classes`)"
        remedy = "Take the data set that the recipe is for, or a copy of the recipe with another number."
        raise DataError(rule, value=classes, place=str(root), remedy=remedy)
    return classes


def class_names(recipe: ClassificationRecipe, root: Path | None) -> tuple[str, ...]:
    """The classes in the order of their labels; no image is read. Raises `DataError`s that name `--data`."""
    with naming_option():
        if recipe.data.dataset == "imagefolder":
            return classes_of(folder_of(recipe.data.dataset, root), "train")
        return DATASETS[recipe.data.dataset].describe(proxy_data(recipe.data, recipe.resolution, root)).names


def count_images(recipe: ClassificationRecipe, root: Path | None) -> int:
    """The number of training images; no image is read."""
    data = recipe.data
    if data.train_size is not None:
        return data.train_size
    if data.dataset != "imagefolder":
        sizes = DATASETS[data.dataset].sizes
        assert sizes is not None, "only a folder of any images decides how many there are"
        return sizes[0]
    with naming_option():
        folder = folder_of(data.dataset, root)
        return len(files_of(folder / "train", classes_of(folder, "train")))


def open_classification(recipe: ClassificationRecipe, root: Path | None, cache: Path) -> ClassificationData:
    """The images of a recipe. Raises `DataError`s that name `--data`."""
    classes = count_classes(recipe, root)
    with naming_option():
        if recipe.data.dataset == "imagefolder":
            return _open_folder(recipe, folder_of(recipe.data.dataset, root), classes)
        dataset = DATASETS[recipe.data.dataset].load(proxy_data(recipe.data, recipe.resolution, root), cache, 0)
    return ClassificationData(classes, InMemoryImages(dataset.train), InMemoryImages(dataset.val))


def _open_folder(recipe: ClassificationRecipe, root: Path, classes: int) -> ClassificationData:
    names = classes_of(root, "train")
    assert len(names) == classes, "counted before"
    if recipe.data.has_val:
        require_known_classes(root, names)
    train = files_in(root, "train", names, recipe.data.train_size)
    val = files_in(root, "val", names, recipe.data.val_size) if recipe.data.has_val else None
    levels = levels_in([train] if val is None else [train, val])
    notes = () if levels.about is None else (levels.about,)
    return ClassificationData(
        classes, replace(train, levels=levels), None if val is None else replace(val, levels=levels), notes
    )


def levels_in(folders: Sequence[ImageFiles]) -> ValueRange:
    """The range of the values of all images of these folders, if a sample of them has more than 8 bits."""
    sample = [folder.path(i) for folder in folders for i in range(0, len(folder), max(1, len(folder) // SAMPLE))]
    if read_value_range(sample) == NO_VALUE_RANGE:
        return NO_VALUE_RANGE
    return read_value_range([folder.path(i) for folder in folders for i in range(len(folder))])


def files_in(root: Path, split: str, names: tuple[str, ...], size: int | None) -> ImageFiles:
    """The images of a split in a folder of classes: a stratified subset of this size, or all."""
    files = files_of(root / split, names)
    labels = np.array([label for _, label in files], np.int64)
    chosen = stratified_subset(labels, size, seed=0, key=f"{split}_size")
    paths = np.array([os.fsencode(file) for file, _ in files])
    return ImageFiles(root / split, paths[chosen], labels[chosen])


def proxy_data(data: ClassificationDataConfig, resolution: int, root: Path | None) -> ProxyRecipe:
    """The data of a recipe as a proxy recipe; images of a distributed data set at their original size."""
    source = DATASETS[data.dataset]
    if source.is_generated:
        return _described(data, data.dataset, resolution)
    side = resolution if source.distributed is None else source.distributed.side
    return _described(data, data.dataset, side, str(folder_of(data.dataset, root)))


def _described(data: ImageDataConfig, dataset: str, side: int, folder: str | None = None) -> ProxyRecipe:
    return ProxyRecipe(
        dataset=dataset,
        root=folder,
        rendering=data.rendering,
        difficulty=data.difficulty,
        train_size=data.train_size,
        val_size=data.val_size,
        final_val_size=data.val_size or (VAL_SIZE if dataset in GENERATED_DATASETS else None),
        resample="none",
        resolution=side,
    )


def load_shapes(data: ImageDataConfig, side: int, cache: Path) -> Dataset:
    """The `shapes` images of a recipe with that side, with labels, masks and boxes."""
    return load_annotated(_described(data, "shapes", side), cache, 0, annotated=True)


def folder_of(dataset: str, root: Path | None) -> Path:
    """The folder that `--data` names. Raises `DataError` if there is none."""
    if root is None:
        raise DataError(f"`{DATA_OPTION}` must name the folder of the images", value=dataset, place="the recipe")
    path = root.expanduser().resolve()
    if not path.is_dir():
        raise DataError(f"`{DATA_OPTION}` must be an existing folder", value=str(root), remedy="Nothing is downloaded.")
    return path


@contextmanager
def naming_option() -> Iterator[None]:
    """Make errors about a proxy's data name the command-line option instead of the key."""
    try:
        yield
    except DataError as error:
        if error.place is not None and error.place.startswith("proxy."):
            error.place = "data" + error.place.removeprefix("proxy") if error.place.endswith("_size") else DATA_OPTION
        raise


class ExpectedImages(NamedTuple):
    """The expected images of a recipe."""

    layout: str
    """Layout of the folder."""
    name: str | None
    """Name of the data set; None for a folder of any images."""
    images: int | None
    """Number of training images; None if neither the recipe nor the name determines it."""
    classes: int | None


IMAGENET_SIZES = {1000: ("ImageNet-1K", 1_281_167), 21_841: ("ImageNet-22K", 14_197_122)}
"""Name and number of training images, by the number of classes, as they are distributed."""
EXPECTED_BY_DATASET = {
    **{
        name: ExpectedImages(
            distributed.layout, distributed.title, source.sizes and source.sizes[0], distributed.classes
        )
        for name, source in DATASETS.items()
        if (distributed := source.distributed) is not None
    },
    "ade20k": ExpectedImages(ADE20K_LAYOUT, "ADE20K", 20_210, ADE20K_CLASSES),
    "cityscapes": ExpectedImages(CITYSCAPES_LAYOUT, "Cityscapes", 2_975, len(CITYSCAPES_CLASSES)),
    "coco": ExpectedImages(COCO_LAYOUT, "COCO 2017 without its empty images", 117_266, 80),
}


def is_data_present(dataset: str, folder: Path | None) -> bool:
    """Whether the images can be read: they are generated, or their folder exists."""
    return dataset in GENERATED_DATASETS or (folder is not None and folder.expanduser().is_dir())


def expected_images(data: ImageDataConfig, dataset: str) -> ExpectedImages:
    """The images of a recipe whose data set is read from a folder."""
    expected = EXPECTED_BY_DATASET.get(dataset)
    if expected is None:
        classes = data.classes if isinstance(data, ClassificationDataConfig) else None
        name, images = IMAGENET_SIZES.get(classes or 0, (None, None))
        expected = ExpectedImages(IMAGE_FOLDER_LAYOUT, name, images, classes)
    return expected if data.train_size is None else expected._replace(images=data.train_size)
