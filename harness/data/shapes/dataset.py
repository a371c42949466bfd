"""The generated data set `shapes`: eight silhouettes in two renderings, with label, mask and box, from a seed.

Image i of a split depends only on seed, split, i and the recipe's parameters: a larger set starts with the smaller.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config.recipes.proxy import ProxyRecipe
from harness.data.cache import GENERATED_BYTES, CacheWriter, cached
from harness.data.dataset import ARRAYS, DataInfo, Dataset, Split
from harness.data.shapes import contours, textured
from harness.data.shapes.silhouettes import NAMES, Pose, bounding_box, draw_pose, fill, outline
from harness.system.device_slot import yield_slot

GENERATOR = 9
"""Part of the cache's hash; raised when the same recipe results in other images."""
TRAIN_SIZE, VAL_SIZE = 2000, 1000
FINAL_VAL_FACTOR = 8
"""Factor of the number of validation images in the last epoch, if the recipe does not set it."""
CHUNK = 128
"""Images generated at once, a multiple of eight: enough to spend the time in numpy, few enough for the CPU cache."""

_SPLITS = {"train": 0, "val": 1, "conflict": 2}


def describe(recipe: ProxyRecipe) -> DataInfo:  # noqa: ARG001 (the table's signature)
    """Eight classes and one channel, for every recipe."""
    return DataInfo(len(NAMES), 1, NAMES)


def identify(recipe: ProxyRecipe, cache: Path | None) -> DataInfo:  # noqa: ARG001 (the table's signature)
    """As `describe`: generated data follow from the recipe."""
    return describe(recipe)


def val_sizes(recipe: ProxyRecipe) -> tuple[int, int]:
    """Numbers of validation images of all epochs except the last, and of the last one."""
    first = recipe.val_size or min(VAL_SIZE, recipe.final_val_size or VAL_SIZE)
    return first, recipe.final_val_size or FINAL_VAL_FACTOR * first


def load(recipe: ProxyRecipe, cache: Path, seed: int, *, annotated: bool | None = None) -> Dataset:
    """The images of the run with this seed, from the cache or newly generated.

    With masks and boxes if `annotated`, by default if the recipe has a transfer.
    """
    annotated = recipe.transfer is not None if annotated is None else annotated
    interim, final = val_sizes(recipe)
    is_trained = recipe.epochs > 0 or recipe.transfer is not None
    sizes = {"train": recipe.train_size or TRAIN_SIZE, "val": final if is_trained else interim}
    key = {
        "generator": GENERATOR,
        "rendering": recipe.rendering,
        "difficulty": recipe.difficulty,
        "seed": recipe.image_seed(seed),
        "resolution": recipe.resolution,
        "annotated": annotated,
        **sizes,
    }
    if recipe.rendering == "textured":
        key["cue_correlation"] = recipe.cue_correlation
        sizes["conflict"] = sizes["val"]

    def build(writer: CacheWriter) -> None:
        for split, size in sizes.items():
            writer.save(split, make(recipe, split, size, seed=recipe.image_seed(seed), annotated=annotated))
        writer.finish(describe(recipe))

    dataset = cached(cache, "shapes", key, build, max_bytes=GENERATED_BYTES)
    return replace(dataset, interim_val=interim)


def make(recipe: ProxyRecipe, split: str, size: int, *, seed: int | None = None, annotated: bool = True) -> Split:
    """Generate the first `size` images of a split, with masks and boxes if `annotated`.

    `seed` is the `image_seed` of a run; by default the recipe's `data_seed`.
    """
    seed = recipe.data_seed if seed is None else seed
    draw = _contours if recipe.rendering == "contours" else _textured
    parts = []
    for chunk in range(-(-size // CHUNK)):
        yield_slot()
        parts.append(draw(recipe, seed, split, chunk, min(CHUNK, size - chunk * CHUNK), annotated))
    return Split(**{name: np.concatenate(arrays) for name in ARRAYS if (arrays := _arrays(parts, name))})


def _arrays(parts: Sequence[Split], name: str) -> list[NDArray[Any]]:
    return [array for part in parts if (array := getattr(part, name)) is not None]


def _contours(recipe: ProxyRecipe, seed: int, split: str, chunk: int, count: int, annotated: bool) -> Split:
    """A chunk of contours, with one random generator: 3 times as fast as one per image."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPLITS[split], chunk)))
    labels = _labels(rng)
    poses = contours.draw_poses(rng, labels)
    images = contours.render(rng, labels, poses, recipe.difficulty, recipe.resolution, count)
    object_masks = _silhouette_masks(labels[:count], poses.pose, recipe.resolution) if annotated else []
    return Split(images[:, None], labels[:count], *_annotations(labels, object_masks))


def _textured(recipe: ProxyRecipe, seed: int, split: str, chunk: int, count: int, annotated: bool) -> Split:
    """A chunk of textured images, with one random generator per image."""
    root = np.random.SeedSequence(seed, spawn_key=(_SPLITS[split], chunk))
    labels = _labels(np.random.default_rng(root))[:count]
    streams = [np.random.default_rng(child) for child in root.spawn(count)]
    poses = [draw_pose(rng, label) for rng, label in zip(streams, labels, strict=True)]
    object_masks = _silhouette_masks(labels, poses.__getitem__, recipe.resolution)
    agreement = {"train": recipe.cue_correlation, "val": 0.0, "conflict": None}[split]
    cues = np.array([textured.draw_cue(rng, label, agreement) for rng, label in zip(streams, labels, strict=True)])
    images = textured.render(streams, cues, object_masks, recipe.difficulty)
    return Split(images[:, None], labels, *_annotations(labels, object_masks if annotated else []), cues=cues)


def _silhouette_masks(labels: NDArray[np.int64], pose: Callable[[int], Pose], side: int) -> list[NDArray[np.bool_]]:
    return [fill(outline(int(label), pose(i)), side) for i, label in enumerate(labels)]


def _annotations(
    labels: NDArray[np.int64], object_masks: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.uint8] | None, NDArray[np.int64] | None]:
    """Masks and boxes of some objects; None without objects."""
    if not object_masks:
        return None, None
    masks = np.stack(object_masks) * (1 + labels[: len(object_masks), None, None])
    return masks.astype(np.uint8), np.array([bounding_box(figure) for figure in object_masks], np.int64)


def _labels(rng: np.random.Generator) -> NDArray[np.int64]:
    """Labels of a chunk: each group of eight images has every class once, in random order."""
    return rng.permuted(np.tile(np.arange(len(NAMES)), (CHUNK // len(NAMES), 1)), axis=1).ravel()
