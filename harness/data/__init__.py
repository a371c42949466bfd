"""The table of data sets. Importing this package imports numpy, but not torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import cifar, image_folder
from harness.data.dataset import DataInfo, Dataset, Rows, Split
from harness.data.shapes import dataset as shapes_dataset
from harness.errors import DataError

__all__ = [
    "DATASETS",
    "DataInfo",
    "Dataset",
    "DatasetSource",
    "Distributed",
    "Rows",
    "Split",
    "check",
    "describe",
    "identify",
    "images_at_most",
    "load",
    "require_same_digest",
]


class Distributed(NamedTuple):
    """What is known of a distributed data set before it is there."""

    title: str
    layout: str
    """The expected content of `proxy.root`, or of the folder of `--data`."""
    classes: int
    side: int
    """Side of its images in pixels; at full scale they are read in this size, and resized like files."""


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """The functions of a data set."""

    describe: Callable[[ProxyRecipe], DataInfo]
    """Returns classes and channels without reading an image."""
    load: Callable[[ProxyRecipe, Path, int], Dataset]
    """Loads the images of the run with this seed from the cache folder, which it fills first if needed."""
    identify: Callable[[ProxyRecipe, Path | None], DataInfo]
    """As `describe`, with the digest of the content if it is read from disk."""
    check: Callable[[ProxyRecipe, Path, str | None], tuple[str, ...]] | None = None
    """See `check`; None for generated data, which follow from the recipe."""
    annotations: tuple[Literal["masks", "boxes"], ...] = ()
    """Annotations of its images for dense prediction, in addition to the class."""
    sizes: tuple[int, int] | None = None
    """Numbers of training and validation images, if the recipe does not set them; None if its folder decides."""
    distributed: Distributed | None = None
    """What is known of a data set that is read as it is distributed; None for generated data and for any folder."""

    @property
    def is_generated(self) -> bool:
        """Whether the images follow from the recipe, so that no folder is read."""
        return self.check is None


DATASETS: dict[str, DatasetSource] = {
    "shapes": DatasetSource(
        shapes_dataset.describe,
        shapes_dataset.load,
        shapes_dataset.identify,
        annotations=("masks", "boxes"),
        sizes=(shapes_dataset.TRAIN_SIZE, shapes_dataset.VAL_SIZE),
    ),
    **{
        f"cifar{classes}": DatasetSource(
            cifar.describe,
            cifar.load,
            cifar.identify,
            cifar.check,
            sizes=(50_000, 10_000),
            distributed=Distributed(f"CIFAR-{classes}", cifar.describe_layout(f"cifar{classes}"), classes, cifar.SIDE),
        )
        for classes in (10, 100)
    },
    "imagefolder": DatasetSource(image_folder.describe, image_folder.load, image_folder.identify, image_folder.check),
}


def describe(recipe: ProxyRecipe) -> DataInfo:
    """Classes and channels of the recipe's data set.

    Raises `DataError` if it is missing, or lacks the annotations that a transfer learns.
    """
    return _source(recipe).describe(recipe)


def identify(recipe: ProxyRecipe, cache: Path | None = None) -> DataInfo:
    """As `describe`, with the digest of the content of data that are read from disk; see `harness.data.content`.

    `cache` is the folder of prepared data sets, where the digests of single files are kept. Raises `DataError`.
    """
    return _source(recipe).identify(recipe, cache)


def check(recipe: ProxyRecipe, cache: Path, digest: str | None = None) -> tuple[str, ...]:
    """Check that `load` and a training accept the data set, without writing anything; returns notes.

    It is the same code that `load` and a training use. Of large data sets a sample is decoded; a data set with that
    digest which is already in the cache was checked when it was prepared. Raises `DataError`.
    """
    source = _source(recipe)
    return () if source.check is None else source.check(recipe, cache, digest)


def images_at_most(recipe: ProxyRecipe, info: DataInfo) -> tuple[int | None, int | None]:
    """Maximum numbers of training and validation images of runs; None if any number is generated, or not known."""
    if recipe.dataset == "shapes":
        return recipe.train_size or shapes_dataset.TRAIN_SIZE, None
    return info.images or (None, None)


def require_same_digest(info: DataInfo, digest: str | None, recipe: ProxyRecipe) -> None:
    """Raise `DataError` if the data set does not have that digest, which a run was trained on."""
    if info.digest != digest:
        rule = f"the data set must be the one of the run (content {digest or 'unknown'})"
        remedy = "Its files were changed, added, moved or removed. Restore them, or train a new run on them."
        raise DataError(rule, value=f"content {info.digest}", place=recipe.root, remedy=remedy)


def load(recipe: ProxyRecipe, cache: Path, seed: int) -> Dataset:
    """The images of a run with this seed and any network, memory-mapped from `cache`; see `ProxyRecipe.resample`.

    Raises `DataError` if the data set is missing or does not have the expected layout.
    """
    return _source(recipe).load(recipe, cache, seed)


def _source(recipe: ProxyRecipe) -> DatasetSource:
    if recipe.dataset not in DATASETS:
        rule = "`proxy.dataset` must be a known data set"
        remedy = f"Data sets: {', '.join(DATASETS)}."
        raise DataError(rule, value=recipe.dataset, place="proxy.dataset", remedy=remedy)
    source = DATASETS[recipe.dataset]
    if recipe.transfer is not None and recipe.transfer.learns not in source.annotations:
        needed = recipe.transfer.learns
        having = ", ".join(name for name, dataset in DATASETS.items() if needed in dataset.annotations)
        rule = f"`proxy.dataset` must have {needed} where `proxy.transfer` has the head {recipe.transfer.head}"
        raise DataError(rule, value=recipe.dataset, place="proxy.transfer", remedy=f"With {needed}: {having}.")
    return source
