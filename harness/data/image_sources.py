"""The one seam between a training at full scale and its images: colour pictures by number, and their labels."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.full_scale import FullData, FullRecipe, ImageData
from harness.config.recipes.proxy import Recipe
from harness.data import DATASETS, Dataset, Split, check
from harness.data.cifar import SIDE
from harness.data.data_record import DataRecord, Source, record_data
from harness.data.image_file import NO_LEVELS, SAMPLE, Levels, read_levels
from harness.data.image_folder import LAYOUT, classes_of, files_of
from harness.data.labels import Assignment, assign_labels, by_position
from harness.data.preflight import check_images, require_classes
from harness.data.read_report import Lost, image_or_none, look_at_file
from harness.data.shapes.dataset import TRAIN_SIZE, VAL_SIZE, make
from harness.data.shapes.dataset import load as load_annotated
from harness.data.subsets import subset
from harness.errors import DataError

OPTION = "--data"
SMALLEST_BATCH = 2
"""Of a study's recipe."""
GENERATED = ("shapes",)
TRAIN_SIZES = {"shapes": TRAIN_SIZE, "cifar10": 50_000, "cifar100": 50_000}
"""Where a recipe leaves the number open."""


class Images(Protocol):
    """The images of a split."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,)."""
        ...

    def picture(self, i: int) -> Image.Image | None:
        """An image in colour; None for a file that cannot be read."""
        ...

    def __len__(self) -> int: ...

    def look(self, i: int) -> Image.Image | Lost:
        """An image in color, or why there is none; see `Files`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Folder:
    """Images in files, read when they are asked for."""

    root: Path
    files: NDArray[np.bytes_]
    """(N,): below the root; no objects, whose counters the processes that read would each make copies of."""
    labels: NDArray[np.int64]
    levels: Levels = NO_LEVELS
    """Of the images of all splits."""

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, i: int) -> Image.Image | None:
        """See `Images`."""
        return image_or_none(self.look(i))

    def look(self, i: int) -> Image.Image | Lost:
        """See `Images`."""
        return look_at_file(self.path(i), self.levels)

    def path(self, i: int) -> Path:
        """The file of an image."""
        return self.root / os.fsdecode(self.files[i])

    def paths(self) -> list[Path]:
        """All files, in the order of the images."""
        return [self.root / os.fsdecode(file) for file in self.files]


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Images of a data set that lies in memory."""

    split: Split

    @property
    def labels(self) -> NDArray[np.int64]:
        """See `Images`."""
        return self.split.labels

    def __len__(self) -> int:
        return len(self.split)

    def picture(self, i: int) -> Image.Image:
        """See `Images`."""
        return self.look(i)

    def look(self, i: int) -> Image.Image:
        """See `Images`."""
        pixels = self.split.images[i].transpose(1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)).convert(
            "RGB"
        )


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


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """All images of a recipe."""

    classes: int
    train: Images
    val: Images | None
    notes: tuple[str, ...] = ()
    """What a person should be told."""


def record_pictures(recipe: FullRecipe, root: Path | None, cache: Path) -> DataRecord:
    """What a classifier is trained on. Raises `DataError`s that name `--data`."""
    pictures = open_pictures(recipe, root, cache)
    splits = {split: each for split, each in (("train", pictures.train), ("val", pictures.val)) if each is not None}
    return record_data(
        recipe.data.dataset,
        class_names(recipe, root),
        {split: _source(each) for split, each in splits.items()},
        images={split: len(each.labels) for split, each in splits.items()},
        root=None if recipe.data.dataset in GENERATED else folder_of(recipe.data.dataset, root),
    )


def check_pictures(recipe: FullRecipe, root: Path | None, cache: Path) -> tuple[str, ...]:
    """Notes on the images of a recipe, found before anything is trained or written; see `harness.data.preflight`.

    Raises `DataError`s that name `--data` for images that no training could go on with.
    """
    dataset = recipe.data.dataset
    if dataset in GENERATED:
        return ()
    with _about_option():
        if dataset != "imagefolder":
            small = _small(recipe.data, recipe.resolution, root)
            return check(small.model_copy(update={"batch_size": SMALLEST_BATCH}), cache)  # `Pace` compares the sizes
        require_classes(class_names(recipe, root), str(folder_of(dataset, root)))
        pictures = open_pictures(recipe, root, cache)
        splits = {"training": pictures.train} | ({} if pictures.val is None else {"validation": pictures.val})
        return check_images(splits, str(folder_of(dataset, root)))


def _source(images: Images) -> Source:
    assert isinstance(images, Folder | Stored), "the two kinds of images"
    return images.paths() if isinstance(images, Folder) else images.split


def count_classes(recipe: FullRecipe, root: Path | None) -> int:
    """The number of classes; no image is read. Raises `DataError`s that name `--data`."""
    classes = len(class_names(recipe, root))
    wanted = recipe.data.classes
    if wanted is not None and classes != wanted:
        raise DataError(
            f"the images must be of {wanted:,} classes, as the recipe says (`data.classes`)",
            value=classes,
            place=str(root),
            remedy="Take the data set that the recipe is for, or a copy of the recipe with another number.",
        )
    return classes


def class_names(recipe: FullRecipe, root: Path | None) -> tuple[str, ...]:
    """The classes in the order of their labels; no image is read. Raises `DataError`s that name `--data`."""
    with _about_option():
        if recipe.data.dataset == "imagefolder":
            return classes_of(folder_of(recipe.data.dataset, root), "train")
        return DATASETS[recipe.data.dataset].describe(_small(recipe.data, recipe.resolution, root)).names


def count_images(recipe: FullRecipe, root: Path | None) -> int:
    """The number of training images; none is read."""
    data = recipe.data
    if data.train_size is not None:
        return data.train_size
    if data.dataset != "imagefolder":
        return TRAIN_SIZES[data.dataset]
    with _about_option():
        folder = folder_of(data.dataset, root)
        return len(files_of(folder / "train", classes_of(folder, "train")))


def open_pictures(recipe: FullRecipe, root: Path | None, cache: Path) -> Pictures:
    """The images of a recipe. Raises `DataError`s that name `--data`."""
    classes = count_classes(recipe, root)
    with _about_option():
        if recipe.data.dataset == "imagefolder":
            return _open_folder(recipe, folder_of(recipe.data.dataset, root), classes)
        dataset = DATASETS[recipe.data.dataset].load(_small(recipe.data, recipe.resolution, root), cache, 0)
    return Pictures(classes, Stored(dataset.train), Stored(dataset.val))


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
    with _about_option():
        if data.dataset == "imagefolder":
            return _open_val(data, classes, folder_of(data.dataset, root), known, is_by_name=is_by_name)
        small = _small(data, resolution, root)
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
        _check_known(root, names)
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
    files = _files(root, split, tuple(ordered), data.val_size)
    levels = _levels([files])
    if levels != NO_LEVELS and (root / "train").is_dir() and split == "val":
        levels = _levels([files, _files(root, "train", classes_of(root, "train"), None)])
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


def _open_folder(recipe: FullRecipe, root: Path, classes: int) -> Pictures:
    names = classes_of(root, "train")
    assert len(names) == classes, "counted before"
    if recipe.data.has_val:
        _check_known(root, names)
    train = _files(root, "train", names, recipe.data.train_size)
    val = _files(root, "val", names, recipe.data.val_size) if recipe.data.has_val else None
    levels = _levels([train] if val is None else [train, val])
    notes = () if levels.about is None else (levels.about,)
    return Pictures(classes, replace(train, levels=levels), None if val is None else replace(val, levels=levels), notes)


def _levels(folders: Sequence[Folder]) -> Levels:
    """The range of all images of these folders, where a sample of them has more than 8 bits."""
    sample = [folder.path(i) for folder in folders for i in range(0, len(folder), max(1, len(folder) // SAMPLE))]
    if read_levels(sample) == NO_LEVELS:
        return NO_LEVELS
    return read_levels([folder.path(i) for folder in folders for i in range(len(folder))])


def _check_known(root: Path, names: Sequence[str]) -> None:
    unknown = sorted(set(classes_of(root, "val")) - set(names))
    if unknown:
        raise DataError(
            "every class of `val` must be a class of `train`", value=unknown[0], place=str(root / "val"), remedy=LAYOUT
        )


def _files(root: Path, split: str, names: tuple[str, ...], size: int | None) -> Folder:
    files = files_of(root / split, names)
    labels = np.array([label for _, label in files], np.int64)
    chosen = subset(labels, size, seed=0, key=f"{split}_size")
    paths = np.array([os.fsencode(file) for file, _ in files])
    return Folder(root / split, paths[chosen], labels[chosen])


def _small(data: FullData, resolution: int, root: Path | None) -> Recipe:
    """The data of a recipe as a study's proxy names them; real images at the size that they have."""
    if data.dataset in GENERATED:
        return _described(data, data.dataset, resolution)
    return _described(data, data.dataset, SIDE, str(folder_of(data.dataset, root)))


def _described(data: ImageData, dataset: str, side: int, folder: str | None = None) -> Recipe:
    return Recipe(
        dataset=dataset,
        root=folder,
        rendering=data.rendering,
        difficulty=data.difficulty,
        train_size=data.train_size,
        val_size=data.val_size,
        final_val_size=data.val_size or (VAL_SIZE if dataset in GENERATED else None),
        resample="none",
        resolution=side,
    )


def load_shapes(data: ImageData, side: int, cache: Path) -> Dataset:
    """The `shapes` of a recipe at that side, with labels, masks and boxes."""
    return load_annotated(_described(data, "shapes", side), cache, 0, annotated=True)


def folder_of(dataset: str, root: Path | None) -> Path:
    """The folder that `--data` names. Raises `DataError` where there is none."""
    if root is None:
        raise DataError(f"`{OPTION}` must name the folder of the images", value=dataset, place="the recipe")
    found = root.expanduser().resolve()
    if not found.is_dir():
        raise DataError(f"`{OPTION}` must be an existing folder", value=str(root), remedy="Nothing is downloaded.")
    return found


@contextmanager
def _about_option() -> Iterator[None]:
    """Let errors about a proxy's data name the option that stands for them here."""
    try:
        yield
    except DataError as error:
        if error.place is not None and error.place.startswith("proxy."):
            error.place = "data" + error.place.removeprefix("proxy") if error.place.endswith("_size") else OPTION
        raise
