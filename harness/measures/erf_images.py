"""The images that a network is shown, normalised as it knows them.

Shapes: n images, C channels of the network, H W height and width.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.config.recipes.proxy import Recipe
from harness.data import Dataset
from harness.data.augment import normalize
from harness.data.cache import statistics
from harness.data.image_folder import some_images
from harness.data.shapes.dataset import describe, make
from harness.errors import UserError
from harness.measures.erf import across_classes, resized
from harness.models.spec.network import NetworkSpec
from harness.storage.load_network import Subject
from harness.system.device_slot import computing

SHAPES = "shapes"
STATISTICS = 64
"""Training images of `shapes` that tell mean and standard deviation where no run did."""


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """What a network is shown."""

    pixels: Tensor
    """(n, C, H, W)."""
    about: str
    """Which they are, in words."""
    notes: tuple[str, ...]


@computing()
def images_for(spec: NetworkSpec, data: str | None, shown: Subject | None, *, count: int, side: int) -> Images:
    """So many images brought to that side, or as many as there are, taken in turns from all classes.

    `data` is `shapes`, a folder, or None: then they are what the run behind `shown` was validated on, or else `shapes`.
    Raises `UserError` where they are not there, or are no images for the network.
    """
    recipe = None if shown is None else shown.recipe
    if data is not None and data != SHAPES:
        dataset, about = some_images(Path(data).expanduser(), count, side), f"images of {data}"
    elif recipe is None or data not in (None, recipe.dataset):
        recipe = Recipe(resolution=side)
        dataset, about = _shapes(recipe, count), _words(recipe)
    else:
        loaded = None if shown is None else shown.load_images()
        assert loaded is not None, "a run has a recipe, a seed and a folder"
        dataset, about = loaded, _words(recipe)
    chosen = across_classes(dataset.val.labels, count)
    pixels = normalize(torch.from_numpy(dataset.val.images[chosen]), dataset)
    return Images(_coloured(resized(pixels, side), spec, about), about, dataset.notes)


def _shapes(recipe: Recipe, count: int) -> Dataset:
    """So many validation images, made now; whatever their number, the first are the same."""
    train, val = make(recipe, "train", STATISTICS), make(recipe, "val", count)
    mean, std = statistics(train.images)
    return Dataset(describe(recipe), train, val, mean, std)


def _words(recipe: Recipe) -> str:
    if recipe.dataset != SHAPES:
        return f"validation images of {recipe.dataset}"
    return f"validation images of shapes, {recipe.rendering}, difficulty {recipe.difficulty:g}"


def _coloured(pixels: Tensor, spec: NetworkSpec, about: str) -> Tensor:
    """Grey images on all channels of the network; others must have as many as it has."""
    channels = pixels.shape[1]
    if channels not in (1, spec.in_channels):
        raise UserError(
            f"the images must have the {spec.in_channels} channel{'s' * (spec.in_channels > 1)} of the network",
            value=f"{channels} channels",
            place=about,
            remedy="Give `--data shapes`, or leave it out for what a run was trained on.",
        )
    return pixels.expand(-1, spec.in_channels, -1, -1)
