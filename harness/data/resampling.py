"""Resampling of a folder's images: training and validation images of a run, drawn by its seed, stratified by class.

The training and validation images of the folder form one pool. Indices of the pool count the training images first.
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
from harness.data.shapes.dataset import FINAL_VAL_FACTOR
from harness.data.subsets import stratified_subset
from harness.errors import DataError, first_of

POOL_FACTOR = 8
"""Size of the pool, which is decoded once, relative to the number of images of the recipe, if there are as many."""

Indices = NDArray[np.int64]


class DrawnIndices(NamedTuple):
    """The indices of a run's images in the pool."""

    train: Indices
    """Sorted; with a bootstrap, some more than once."""
    val: Indices
    """In an order in which every prefix is stratified by class."""


def pool_key(recipe: ProxyRecipe, reader: int, digest: str | None) -> dict[str, object]:
    """The values that decide the pool in the cache; with resampling, no seed of a run is among them.

    `reader` is the version of the code that reads the images, `digest` that of their files' content.
    """
    pool = [recipe.train_size, recipe.val_size, recipe.final_val_size, recipe.data_seed, recipe.resample == "none"]
    return {"reader": reader, "content": digest, "resolution": recipe.resolution, "pool": pool}


def pool_indices(train: Indices, val: Indices, recipe: ProxyRecipe) -> tuple[Indices, Indices]:
    """The indices of the images that are stored for all runs of a recipe, from the labels of the folder's two splits.

    Raises `DataError` if there are fewer than the recipe requests.
    """
    seed = recipe.data_seed
    for labels, key in ((train, "train_size"), (val, "val_size"), (val, "final_val_size")):
        stratified_subset(labels, getattr(recipe, key), seed=seed, key=key)
    final = min(final_val_size(recipe) or len(val), len(val))
    if recipe.resample == "none":
        first = stratified_subset(val, min(recipe.val_size or final, final), seed=seed, key="val_size")
        rest = np.setdiff1d(stratified_subset(val, final, seed=seed, key="final_val_size"), first)
        return stratified_subset(train, recipe.train_size, seed=seed, key="train_size"), np.append(first, rest)
    sizes = POOL_FACTOR * (recipe.train_size or len(train)), POOL_FACTOR * final
    of_train, of_val = (
        stratified_subset(labels, min(size, len(labels)), seed=seed, key="")
        for labels, size in zip((train, val), sizes, strict=True)
    )
    return of_train, of_val


def resampled(pool: Dataset, recipe: ProxyRecipe, seed: int) -> Dataset:
    """The images of the run with this seed, as views of the pool; its arrays are not copied."""
    interim = None if recipe.val_size is None else min(recipe.val_size, len(pool.val))
    if recipe.resample == "none":
        return replace(pool, interim_val=interim)
    train, val = pool.train.labels, pool.val.labels
    sizes = min(recipe.train_size or len(train), len(train)), min(final_val_size(recipe) or len(val), len(val))
    drawn = draw_indices(train, val, sizes, seed=recipe.image_seed(seed), is_bootstrap=recipe.resample == "bootstrap")
    if not len(drawn.val):
        rule = "`resample: bootstrap` must leave images to validate on, but all were drawn for the training"
        remedy = "Take split or none, or more images."
        raise DataError(rule, value=f"{len(train) + len(val)} images", place="proxy.resample", remedy=remedy)
    labels, stored = np.concatenate([train, val]), [_stored(pool.train), _stored(pool.val)]
    parts = [Split(Rows(stored, numbers), labels[numbers]) for numbers in drawn]
    mean, std = statistics(parts[0].images)
    notes = (*pool.notes, *_missing(pool.info.names, labels, drawn))
    return replace(pool, train=parts[0], val=parts[1], mean=mean, std=std, interim_val=interim, notes=notes)


def draw_indices(
    train: Indices, val: Indices, sizes: tuple[int, int], *, seed: int, is_bootstrap: bool
) -> DrawnIndices:
    """The images of a run from a pool with these labels, with the class proportions of the folder's splits.

    A bootstrap that draws as many images as there are leaves about 37 % of a class for the validation; they may be
    fewer than requested, and a class with a single image has none.
    """
    labels, rng = np.concatenate([train, val]), np.random.default_rng(seed)
    of_train, of_val = (
        np.bincount(part[stratified_subset(part, size, seed=0, key="")], minlength=int(labels.max()) + 1)
        for part, size in zip((train, val), sizes, strict=True)
    )
    chosen: list[Indices] = []
    judged: list[Indices] = []
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    for label, numbers in enumerate(by_class):
        members = rng.permutation(numbers)
        drawn = rng.choice(members, of_train[label]) if is_bootstrap and len(members) else members[: of_train[label]]
        rest = members[~np.isin(members, drawn)]
        chosen.append(drawn)
        judged.append(rest[: of_val[label]])
    turn = np.concatenate([(np.arange(len(indices)) + rng.random()) / max(1, len(indices)) for indices in judged])
    return DrawnIndices(np.sort(np.concatenate(chosen)), np.concatenate(judged)[np.argsort(turn, kind="stable")])


def final_val_size(recipe: ProxyRecipe) -> int | None:
    """Validation images of the last epoch; None for all."""
    if recipe.final_val_size is not None:
        return recipe.final_val_size
    return None if recipe.val_size is None else FINAL_VAL_FACTOR * recipe.val_size


def _stored(split: Split) -> NDArray[np.uint8]:
    assert isinstance(split.images, np.ndarray), "a pool is stored as it is"
    return split.images


def _missing(names: tuple[str, ...], labels: Indices, drawn: DrawnIndices) -> list[str]:
    """A note on classes without a validation image, if there are any."""
    lacking = sorted(set(labels.tolist()) - set(labels[drawn.val].tolist()))
    if not lacking:
        return []
    some = first_of([names[label] for label in lacking], 5)
    return [f"no validation image of {len(lacking)} of {len(names)} classes: {some}"]
