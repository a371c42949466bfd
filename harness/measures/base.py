"""The input and the signature of a measure, and the merged network on which speed is measured."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import Dataset
from harness.models.build import merge
from harness.training.device import place_images, place_network


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A network at the end of its run, with its data set and recipe.

    After 0 epochs, and for the measures that are taken before a training, it has its initial weights.
    """

    model: nn.Module
    """In training form, as at the end of the run; a measure that needs the merged form makes a merged copy."""
    dataset: Dataset
    recipe: ProxyRecipe
    device: torch.device
    times: Path | None = None
    """Folder with the cache of measured times; None stores nothing."""


Measure = Callable[[TrainedRun], Iterator[tuple[str, float]]]
"""Yields (name, value); the name carries the unit, as `latency_ms_p50`."""


def merged_for_inference(trained: TrainedRun, batch: int) -> tuple[nn.Module, Tensor]:
    """The merged network in evaluation mode, and a batch of blank images (N, C, H, W), in the recipe's layout."""
    channels, side = trained.dataset.info.channels, trained.recipe.resolution
    images = torch.zeros(batch, channels, side, side, device=trained.device)
    model = place_network(merge(trained.model).eval(), trained.recipe, trained.device)
    return model, place_images(images, trained.recipe, trained.device)
