"""The embedded data set: eight silhouettes in two renderings, with label, mask and box, made from a seed.

Image i of a split is a function of seed, split, i and the recipe's knobs alone: a larger set begins with the smaller.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data import contours, textured
from harness.data.base import DataInfo, Dataset, Split
from harness.data.cache import Writer, cached
from harness.data.silhouettes import NAMES, bounding_box, draw_pose, fill, outline
from harness.device_slot import offer
from harness.recipe import Recipe

GENERATOR = 8
"""Part of the cache's hash; raised when the same recipe gives other images."""
TRAIN_SIZE, VAL_SIZE = 2000, 1000
CHUNK = 250
"""Images rendered at once, which bounds the memory."""

_SPLITS = {"train": 0, "val": 1, "conflict": 2}


def describe(recipe: Recipe) -> DataInfo:  # noqa: ARG001 (the table's signature)
    """Eight classes, one channel, whatever the recipe says."""
    return DataInfo(len(NAMES), 1, NAMES)


def identify(recipe: Recipe, cache: Path | None) -> DataInfo:  # noqa: ARG001 (the table's signature)
    """As `describe`: generated data follow from the recipe."""
    return describe(recipe)


def load(recipe: Recipe, cache: Path) -> Dataset:
    """The images that the recipe asks for, from the cache or made now."""
    sizes = {"train": recipe.train_size or TRAIN_SIZE, "val": recipe.val_size or VAL_SIZE}
    key = {
        "generator": GENERATOR,
        "rendering": recipe.rendering,
        "difficulty": recipe.difficulty,
        "seed": recipe.data_seed,
        "resolution": recipe.resolution,
        **sizes,
    }
    if recipe.rendering == "textured":
        key["cue_correlation"] = recipe.cue_correlation
        sizes["conflict"] = sizes["val"]

    def build(writer: Writer) -> None:
        for split, size in sizes.items():
            writer.save(split, make(recipe, split, size))
        writer.finish(describe(recipe))

    return cached(cache, "shapes", key, build)


def make(recipe: Recipe, split: str, size: int) -> Split:
    """The first `size` images of a split."""
    side, labels = recipe.resolution, _labels(recipe.data_seed, split, size)
    images = np.empty((size, 1, side, side), np.uint8)
    masks = np.empty((size, side, side), np.uint8)
    boxes = np.empty((size, 4), np.int64)
    cues = np.empty(size, np.int64) if recipe.rendering == "textured" else None
    for start in range(0, size, CHUNK):
        offer()
        part = slice(start, min(start + CHUNK, size))
        streams = [_stream(recipe.data_seed, split, i) for i in range(part.start, part.stop)]
        poses = [draw_pose(rng, label) for rng, label in zip(streams, labels[part], strict=True)]
        figures = [fill(outline(label, pose), side) for label, pose in zip(labels[part], poses, strict=True)]
        masks[part] = np.stack(figures) * (1 + labels[part, None, None])
        boxes[part] = [bounding_box(figure) for figure in figures]
        if cues is None:
            images[part, 0] = contours.render(streams, labels[part], poses, recipe.difficulty, side)
        else:
            agreement = {"train": recipe.cue_correlation, "val": 0.0, "conflict": None}[split]
            cues[part] = [
                textured.draw_cue(rng, label, agreement) for rng, label in zip(streams, labels[part], strict=True)
            ]
            images[part, 0] = textured.render(streams, cues[part], figures, recipe.difficulty)
    return Split(images, labels, masks, boxes, cues)


def _labels(seed: int, split: str, size: int) -> NDArray[np.int64]:
    """Every eight images hold every class once, in random order."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPLITS[split],)))
    rounds = -(-size // len(NAMES))
    return rng.permuted(np.tile(np.arange(len(NAMES)), (rounds, 1)), axis=1).ravel()[:size]


def _stream(seed: int, split: str, index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPLITS[split], index)))
