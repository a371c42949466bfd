"""Loss and metrics of a segmentation: metrics in percent, from one confusion matrix over all pixels of all images.

Shapes: N images, H W height and width; C classes, including the background if there is one. Predicted and true classes
have any shape, but the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.data.segmentation_files import IGNORED
from harness.training.full_scale.process_group import ProcessGroup


def pixel_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over pixels that are not ignored, 0 if all are: (N, C, H, W), int64 (N, H, W) -> ()."""
    total = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


def confusion_matrix(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Counts int64 (C, C): pixels of a true class (row) by predicted class (column). Batches can be added up."""
    counted = truth != IGNORED
    cells = classes * truth[counted].long() + predicted[counted]
    return torch.bincount(cells, minlength=classes**2).view(classes, classes)


def intersection_over_union(counts: Tensor) -> Tensor:
    """IoU per class, float64 (C,), from 0 to 1; NaN for a class in neither the truth nor the prediction.

    The mean without NaNs is the mIoU.
    """
    both = counts.diag().double()
    return both / (counts.sum(0) + counts.sum(1) - both)


@dataclass(slots=True)
class ConfusionAccumulator:
    """Confusion matrix and loss, summed over pixels."""

    counts: Tensor
    """int64 (C, C): pixels of a true class (row) by predicted class (column)."""
    loss_sum: Tensor
    """float64 (): sum of the negative log-likelihood of the true classes."""
    unreadable: int = 0
    """Number of images that could not be read."""

    @classmethod
    def empty(cls, classes: int, device: torch.device) -> Self:
        """An accumulator without pixels."""
        counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        return cls(counts, torch.zeros((), dtype=torch.float64, device=device))

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Add pixels by their predicted and true classes."""
        self.counts += confusion_matrix(predicted, truth, len(self.counts))

    def all_reduce(self, group: ProcessGroup) -> "ConfusionAccumulator":
        """The sum over all workers."""
        unreadable = torch.tensor(self.unreadable, device=self.counts.device)
        return ConfusionAccumulator(
            group.all_reduce(self.counts), group.all_reduce(self.loss_sum), int(group.all_reduce(unreadable))
        )


def segmentation_metrics(accumulator: ConfusionAccumulator) -> dict[str, float]:
    """The loss, and in percent `miou`, `pixel_accuracy`, and `mean_accuracy` over the classes.

    Classes that are neither true nor predicted for any pixel are left out of mIoU; classes without true pixels, of mean
    accuracy.
    """
    counts = accumulator.counts.double()
    pixels = max(1.0, counts.sum().item())
    shares, accuracies = intersection_over_union(accumulator.counts), accuracy_by_class(accumulator)
    return {
        "loss": accumulator.loss_sum.item() / pixels,
        "miou": _percent(shares),
        "pixel_accuracy": 100 * counts.diag().sum().item() / pixels,
        "mean_accuracy": _percent(accuracies),
    }


def accuracy_by_class(accumulator: ConfusionAccumulator) -> Tensor:
    """The share of each class's pixels predicted correctly, float64 (C,), from 0 to 1; NaN if a class has none."""
    counts = accumulator.counts.double()
    return counts.diag() / counts.sum(1)


def class_metrics(accumulator: ConfusionAccumulator, names: Sequence[str]) -> dict[str, float]:
    """In percent, `iou_<class>` and `accuracy_<class>`, without those that are NaN."""
    kinds = {"iou": intersection_over_union(accumulator.counts), "accuracy": accuracy_by_class(accumulator)}
    named = {
        f"{kind}_{name}": 100 * share
        for kind, shares in kinds.items()
        for name, share in zip(names, shares.tolist(), strict=True)
    }
    return {name: share for name, share in named.items() if not math.isnan(share)}


def _percent(shares: Tensor) -> float:
    """The mean without NaNs, in percent; 0 if all are NaN."""
    valid = shares[~shares.isnan()]
    return 100 * valid.mean().item() if len(valid) else 0.0
