"""Which images of a folder a run is trained and judged on: drawn anew by its seed, class by class.

The training and validation images of the folder are one pool. Numbers in it count the training images first.
Source: Bouthillier et al., "Accounting for Variance in Machine Learning Benchmarks" (MLSys 2021), section 2 and
appendix D: training images drawn with replacement from each class, validation images from those that were not drawn.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.config.recipes.proxy import ProxyRecipe
from harness.data.cache import statistics
from harness.data.dataset import Dataset, Rows, Split
from harness.data.shapes.dataset import FINAL
from harness.data.subsets import stratified_subset
from harness.errors import DataError

POOL = 8
"""Where a recipe asks for fewer images than there are: as many times more are in the pool, decoded once for all."""

Indices = NDArray[np.int64]


class DrawnIndices(NamedTuple):
    """The numbers of a run's images in the pool."""

    train: Indices
    """Ascending; with a bootstrap, some more than once."""
    val: Indices
    """In an order of which every beginning holds the classes in proportion."""


def pool_key(recipe: ProxyRecipe) -> list[object]:
    """What decides the pool besides the folder: with resampling no seed of a run."""
    return [recipe.train_size, recipe.val_size, recipe.final_val_size, recipe.data_seed, recipe.resample == "none"]


def pool_indices(train: Indices, val: Indices, recipe: ProxyRecipe) -> tuple[Indices, Indices]:
    """Which images of a folder, by the labels of its two splits, are kept for all runs of a recipe.

    Raises `DataError` where there are fewer than the recipe asks for.
    """
    seed = recipe.data_seed
    for labels, key in ((train, "train_size"), (val, "val_size"), (val, "final_val_size")):
        stratified_subset(labels, getattr(recipe, key), seed=seed, key=key)
    final = min(_final(recipe) or len(val), len(val))
    if recipe.resample == "none":
        first = stratified_subset(val, min(recipe.val_size or final, final), seed=seed, key="val_size")
        others = np.setdiff1d(stratified_subset(val, final, seed=seed, key="final_val_size"), first)
        return stratified_subset(train, recipe.train_size, seed=seed, key="train_size"), np.append(first, others)
    sizes = POOL * (recipe.train_size or len(train)), POOL * final
    of_train, of_val = (
        stratified_subset(labels, min(size, len(labels)), seed=seed, key="")
        for labels, size in zip((train, val), sizes, strict=True)
    )
    return of_train, of_val


def resampled(pool: Dataset, recipe: ProxyRecipe, seed: int) -> Dataset:
    """The images of the run with this seed: views of the pool, whose arrays stay where they are."""
    interim = None if recipe.val_size is None else min(recipe.val_size, len(pool.val))
    if recipe.resample == "none":
        return replace(pool, interim_val=interim)
    train, val = pool.train.labels, pool.val.labels
    sizes = min(recipe.train_size or len(train), len(train)), min(_final(recipe) or len(val), len(val))
    drawn = draw_indices(train, val, sizes, seed=recipe.image_seed(seed), is_bootstrap=recipe.resample == "bootstrap")
    if not len(drawn.val):
        raise DataError(
            "`resample: bootstrap` must leave images to validate on, but all were drawn for the training",
            value=f"{len(train) + len(val)} images",
            place="proxy.resample",
            remedy="Take split or none, or more images.",
        )
    labels, stored = np.concatenate([train, val]), [_stored(pool.train), _stored(pool.val)]
    parts = [Split(Rows(stored, numbers), labels[numbers]) for numbers in drawn]
    mean, std = statistics(parts[0].images)
    notes = (*pool.notes, *_missing(pool.info.names, labels, drawn))
    return replace(pool, train=parts[0], val=parts[1], mean=mean, std=std, interim_val=interim, notes=notes)


def draw_indices(
    train: Indices, val: Indices, sizes: tuple[int, int], *, seed: int, is_bootstrap: bool
) -> DrawnIndices:
    """The images of a run from a pool with these labels, with as many of each class as the folder's splits have.

    A bootstrap leaves about 37 % of a class for the validation where as many are drawn as there are; it may be fewer
    than asked for, and of a class with a single image there is none.
    """
    labels, rng = np.concatenate([train, val]), np.random.default_rng(seed)
    of_train, of_val = (
        np.bincount(each[stratified_subset(each, size, seed=0, key="")], minlength=int(labels.max()) + 1)
        for each, size in zip((train, val), sizes, strict=True)
    )
    chosen: list[Indices] = []
    judged: list[Indices] = []
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    for label, numbers in enumerate(by_class):
        members = rng.permutation(numbers)
        own = rng.choice(members, of_train[label]) if is_bootstrap and len(members) else members[: of_train[label]]
        rest = members[~np.isin(members, own)]
        chosen.append(own)
        judged.append(rest[: of_val[label]])
    turn = np.concatenate([(np.arange(len(each)) + rng.random()) / max(1, len(each)) for each in judged])
    return DrawnIndices(np.sort(np.concatenate(chosen)), np.concatenate(judged)[np.argsort(turn, kind="stable")])


def _final(recipe: ProxyRecipe) -> int | None:
    """Validation images of the last epoch; None for all."""
    if recipe.final_val_size is not None:
        return recipe.final_val_size
    return None if recipe.val_size is None else FINAL * recipe.val_size


def _stored(split: Split) -> NDArray[np.uint8]:
    assert isinstance(split.images, np.ndarray), "a pool is stored as it is"
    return split.images


def _missing(names: tuple[str, ...], labels: Indices, drawn: DrawnIndices) -> list[str]:
    """What a person should know of classes without a validation image."""
    lacking = sorted(set(labels.tolist()) - set(labels[drawn.val].tolist()))
    if not lacking:
        return []
    some = ", ".join(names[label] for label in lacking[:5])
    return [f"no validation image of {len(lacking)} of {len(names)} classes: {some}{', ...' if lacking[5:] else ''}"]
