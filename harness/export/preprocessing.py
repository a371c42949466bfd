"""How images are prepared for a network: what is known of it, from whatever trained it."""

from dataclasses import dataclass
from typing import Any

from harness.config.recipes.full_scale import FullRecipe
from harness.errors import DataError
from harness.models.spec.published import preset_of, resolutions
from harness.storage.load_network import Subject

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's images, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """From a picture to the network's input."""

    mean: tuple[float, ...]
    """What is taken off each channel in [0, 1]."""
    std: tuple[float, ...]
    """What it is divided by then."""
    crop: float
    """Side of the cut relative to that of the resized image."""
    mode: str
    """timm's `crop_mode`: center, squash or border."""
    interpolation: str
    known_from: str
    """Who says so, in words."""

    def for_timm(self) -> dict[str, Any]:
        """By the names of timm's configurations."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "crop_pct": self.crop,
            "crop_mode": self.mode,
            "interpolation": self.interpolation,
        }


def preparation_of(subject: Subject) -> Preparation:
    """As in its training; else as published of the preset; else, with a word about it, as ImageNet's networks."""
    if subject.full_recipe is not None:
        return _of_full_recipe(subject.full_recipe)
    if subject.recipe is not None and (found := _of_run(subject)) is not None:
        return found
    return _of_preset(subject) or _assumed(subject.spec.in_channels)


def resolution_of(subject: Subject) -> int:
    """The side of the images that it was trained on; else that it is published for, or that its stem is made for."""
    recipe = subject.full_recipe or subject.recipe
    return resolutions(subject.spec)[0] if recipe is None else recipe.resolution


def _of_full_recipe(recipe: FullRecipe) -> Preparation:
    how, cut = recipe.augmentation.interpolation, recipe.evaluation
    return Preparation(
        tuple(recipe.data.mean),
        tuple(recipe.data.std),
        cut.crop,
        cut.mode,
        "bicubic" if how == "random" else how,
        "the recipe of its training",
    )


def _of_run(subject: Subject) -> Preparation | None:
    """The middle square of each image, with the statistics of the training images; None where these are gone."""
    try:
        dataset = subject.load_images()
    except DataError:
        return None
    if dataset is None or subject.recipe is None:
        return None
    known_from = f"the training images of its run ({subject.recipe.dataset})"
    return Preparation(dataset.mean, dataset.std, 1.0, "center", "bicubic", known_from)


def _of_preset(subject: Subject) -> Preparation | None:
    """As timm's users find it with RepLKNet's presets, whatever the number of classes."""
    from harness.models.timm.replknet import default_cfgs

    name = preset_of(subject.spec) or preset_of(subject.spec.replace(classes=1000))
    if name is None or name not in default_cfgs:
        return None
    cfg = default_cfgs[name].default
    return Preparation(
        tuple(cfg.mean), tuple(cfg.std), cfg.crop_pct, cfg.crop_mode, cfg.interpolation, f"what is published of {name}"
    )


def _assumed(channels: int) -> Preparation:
    mean, std = IMAGENET if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    return Preparation(mean, std, 0.875, "center", "bicubic", "an assumption: nobody has recorded it")
