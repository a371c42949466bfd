"""Segmentations that take a second, and folders laid out as Cityscapes and ADE20K are distributed."""

from pathlib import Path
from typing import Any

import numpy as np
from full_scale_cases import full_spec
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.segmentation import SegmentationRecipe
from harness.models.spec.network import NetworkSpec
from harness.training.full_scale.job import FullScaleJob, FullScaleRun

SEGMENTATION: dict[str, Any] = {
    "about": "a test",
    "task": "segmentation",
    "data": {"dataset": "shapes", "side": 32, "difficulty": 0.0, "train_size": 24, "val_size": 12},
    "segmenter": {"channels": 8, "auxiliary_channels": 4},
    "iterations": 6,
    "validate_every": 3,
    "batch_size": 8,
    "micro_batch": 4,
    "optimizer": {"lr": 0.003},
    "schedule": {"name": "poly", "min_lr": 0.0, "warmup_steps": 2, "warmup_start": 1e-6},
    "views": {"short": 32, "longest": 64, "scales": [0.75, 1.5], "crop": [24, 32]},
    "evaluation": {"mode": "slide", "window": [24, 24], "stride": [16, 16], "batch_size": 4},
    "drop_path": 0.2,
    "ema": 0.8,
}
"""Two rounds of three steps of two parts each; the second begins in the middle of a pass over the images."""


def segmentation_recipe(**changes: Any) -> SegmentationRecipe:
    return SegmentationRecipe.model_validate(SEGMENTATION | changes)


def segmentation_job(
    folder: Path, recipe: SegmentationRecipe | None = None, **fields: Any
) -> FullScaleJob[SegmentationRecipe]:
    """A training of a tiny network with a head; its data are in the parent of its folder."""
    recipe = recipe or segmentation_recipe()
    spec = fields.pop("spec", None) or segmentation_spec(recipe)
    return FullScaleJob(FullScaleRun(spec, recipe), folder, cache=folder.parent / "data", **fields)


def segmentation_spec(recipe: SegmentationRecipe, **fields: Any) -> NetworkSpec:
    return full_spec(recipe, **{"K": 5, "reparam": 3, **fields})


def write_cityscapes(root: Path, *, train: int = 6, val: int = 3, height: int = 24, width: int = 48) -> Path:
    """Images in Cityscapes' layout: a road below, a car on it, sky above, all in the 34 labels of the files."""
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            city = ("aachen", "bochum")[i % 2]
            name = f"{city}_{i:06d}_000019"
            labels = _labels(i, height, width, (23, 7, 26))
            labels[0] = 3  # the border of the rectified image, which is no class
            _save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", _image(labels))
            _save(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", Image.fromarray(labels))
    return root


def write_ade20k(root: Path, *, train: int = 6, val: int = 3) -> Path:
    """Images in ADE20K's layout, each of another size."""
    for split, count in (("training", train), ("validation", val)):
        for i in range(count):
            labels = _labels(i, 24 + i, 40 - i, (1, 150, 0))
            name = f"ADE_{split}_{i:08d}"
            _save(root / "images" / split / f"{name}.jpg", _image(labels))
            _save(root / "annotations" / split / f"{name}.png", Image.fromarray(labels))
    return root


def _labels(seed: int, height: int, width: int, values: tuple[int, int, int]) -> NDArray[np.uint8]:
    """One value above, one below, and one in a square on the border of the two."""
    labels = np.full((height, width), values[0], np.uint8)
    labels[height // 2 :] = values[1]
    left = 4 + seed % 8
    labels[height // 2 - 4 : height // 2 + 4, left : left + 10] = values[2]
    return labels


def _image(labels: NDArray[np.uint8]) -> Image.Image:
    """A colour for every value."""
    colors = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    return Image.fromarray(colors[labels])


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
