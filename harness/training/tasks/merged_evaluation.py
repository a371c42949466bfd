"""Evaluation at the end of a training: the model is merged, evaluated, and compared with its training form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from harness.models.build import merge

SIDE = 64
"""Side, in pixels, of the noise images on which both forms are compared; it covers every merge."""


class EvaluableTask(Protocol):
    """Protocol of a task that computes all metrics of a model."""

    backbone: str

    @property
    def validation_images(self) -> int:
        """The number of validation images, readable or not."""
        ...

    def evaluate(self, model: nn.Module) -> tuple[Mapping[str, float], int]:
        """All metrics by name, in percent, and the number of validation images that could not be read."""
        ...


@dataclass(frozen=True, slots=True)
class MergedEvaluation:
    """Metrics of a merged model, and its differences from the training form."""

    metrics: Mapping[str, float]
    """Metrics of the merged model, in percent."""
    metric_differences: Mapping[str, float]
    """Metrics of the merged model minus those of the training form, in percentage points."""
    feature_difference: float
    """The largest difference between the feature maps of both forms, relative to the largest value."""
    unreadable: int
    """Number of validation images that could not be read."""
    images: int
    """Number of validation images that were evaluated."""


def evaluate_merged(model: nn.Module, task: EvaluableTask) -> tuple[nn.Module, MergedEvaluation]:
    """Merge a copy of a trained model, and evaluate both forms; returns the merged model and its evaluation."""
    merged = merge(model.eval())
    before, _ = task.evaluate(model)
    after, unreadable = task.evaluate(merged)
    differences = {name: value - before[name] for name, value in after.items() if name in before}
    images = task.validation_images - unreadable
    return merged, MergedEvaluation(
        after, differences, feature_difference(model, merged, task.backbone), unreadable, images
    )


@torch.no_grad()
def feature_difference(model: nn.Module, merged: nn.Module, backbone: str) -> float:
    """The largest relative difference of the network's feature maps after merging, on noise, in the model's dtype."""
    own, other = (module.get_submodule(backbone) for module in (model, merged))
    first = next(own.parameters())
    noise = torch.randn(2, first.shape[1], SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(first)
    maps, others = (module.features(noise) for module in (own, other))  # type: ignore[operator]
    largest = torch.stack([values.abs().max() for values in maps]).max().item()
    error = torch.stack([(a - b).abs().max() for a, b in zip(maps, others, strict=True)]).max().item()  # NaN stays NaN
    return float(error / max(largest, 1e-30))
