"""Functions shared by the data sets in a folder of the user: its path, smallest size, subsets, resizing."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.proxy import ProxyRecipe
from harness.errors import DataError

MIN_CLASSES = 2


def data_root(recipe: ProxyRecipe, layout: str) -> Path:
    """The folder of `proxy.root`. Raises `DataError`, with the expected layout, if there is none."""
    remedy = f"Expected there: {layout}. Nothing is downloaded."
    if recipe.root is None:
        raise DataError(
            f"`{recipe.dataset}` needs `proxy.root`, the folder that holds it", place="proxy.root", remedy=remedy
        )
    root = Path(recipe.root).expanduser().resolve()
    if not root.is_dir():
        remedy = f"{remedy} In a study file, a relative path leads from the folder of the file."
        raise DataError("`proxy.root` must be an existing folder", value=str(root), place="proxy.root", remedy=remedy)
    return root


def stratified_subset(labels: NDArray[np.int64], size: int | None, *, seed: int, key: str) -> NDArray[np.int64]:
    """Sorted indices of a random stratified subset of `size` images; of all for None.

    A larger subset of the same seed contains the smaller one. Raises `DataError`, naming the recipe's `key`, if there
    are too few images.
    """
    if size is None:
        return np.arange(len(labels))
    if size > len(labels):
        raise DataError(
            f"`{key}` must be at most the {len(labels)} images that there are", value=size, place=f"proxy.{key}"
        )
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    turn = (rank + 0.5) / np.repeat(counts, counts)  # position of an image in a stratified order
    chosen = by_class[np.lexsort((by_class, turn))[:size]]
    return np.sort(chosen)


def random_subset(count: int, size: int | None, key: str) -> list[int]:
    """Sorted indices of a random subset of `size` images, of all for None; a larger subset contains the smaller ones.

    Raises `DataError`, naming the recipe's `key`, if there are too few.
    """
    if size is not None and size > count:
        raise DataError(f"`{key}` must be at most the {count:,} images that there are", value=size, place=f"data.{key}")
    return sorted(np.random.default_rng(0).permutation(count)[:size].tolist())


def center_square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """The center square of a color image, resized to that side, (3, side, side)."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    resized = image.resize((side, side), Image.Resampling.BICUBIC, box=box) if image.size != (side, side) else image
    return np.asarray(resized, np.uint8).transpose(2, 0, 1)


def require_enough(recipe: ProxyRecipe, names: tuple[str, ...], train: int, place: str | None) -> None:
    """Raise `DataError` if there are too few classes or training images for a training."""
    if recipe.epochs == 0:
        return
    require_classes(names, place)
    count = min(recipe.train_size or train, train)
    if count < recipe.batch_size:
        rule = f"`proxy.batch_size` must be at most the {count:,} training images"
        raise DataError(rule, value=recipe.batch_size, place="proxy.batch_size", remedy="Lower it.")


def require_classes(names: tuple[str, ...], place: str | None) -> None:
    """Raise `DataError` for a single class, for which every prediction is correct."""
    if len(names) < MIN_CLASSES:
        rule = "images must be of two classes at least for a network to be trained to tell them apart"
        remedy = "Put the images of another class into a folder next to it, in train and val."
        raise DataError(rule, value=", ".join(names), place=place, remedy=remedy)
