"""How a training ends: merged last, judged in that form, and compared with the form that was trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from harness.models.build import merge

SIDE = 64
"""Of the noise on which the two forms are compared, in pixels; every merge shows on it."""


class EvaluableTask(Protocol):
    """A task that can tell everything of a model."""

    backbone: str

    @property
    def validation_images(self) -> int:
        """How many there are, readable or not."""
        ...

    def evaluate(self, model: nn.Module) -> tuple[Mapping[str, float], int]:
        """All figures by name, in percent, and how many validation images could not be read."""
        ...


@dataclass(frozen=True, slots=True)
class MergedEvaluation:
    """What became of a training."""

    metrics: Mapping[str, float]
    """Of the merged model, in percent."""
    metric_differences: Mapping[str, float]
    """By how much the merged model's figures are off from the trained one's, in points."""
    feature_difference: float
    """The largest difference between the maps of both forms of the network, relative to the largest value."""
    unreadable: int
    """Validation images that could not be read."""
    images: int
    """Those that the figures are of."""


def evaluate_merged(model: nn.Module, task: EvaluableTask) -> tuple[nn.Module, MergedEvaluation]:
    """The merged copy of a trained model, and how it does."""
    merged = merge(model.eval())
    before, _ = task.evaluate(model)
    after, unreadable = task.evaluate(merged)
    apart = {name: value - before[name] for name, value in after.items() if name in before}
    images = task.validation_images - unreadable
    return merged, MergedEvaluation(after, apart, feature_difference(model, merged, task.backbone), unreadable, images)


@torch.no_grad()
def feature_difference(model: nn.Module, merged: nn.Module, backbone: str) -> float:
    """How far the network's maps are off after merging, on noise, in the model's own precision."""
    own, other = (module.get_submodule(backbone) for module in (model, merged))
    first = next(own.parameters())
    noise = torch.randn(2, first.shape[1], SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(first)
    maps, others = (module.features(noise) for module in (own, other))  # type: ignore[operator]
    largest = torch.stack([each.abs().max() for each in maps]).max().item()
    apart = torch.stack([(a - b).abs().max() for a, b in zip(maps, others, strict=True)]).max().item()  # NaN stays NaN
    return float(apart / max(largest, 1e-30))
