"""Metrics of a segmentation, from one confusion matrix over all pixels of all images to values in percent.

Shapes: C classes, the ground among them where there is one; predicted and true classes have any shape, the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from harness.data.segmentation_files import IGNORED
from harness.training.full_scale.process_group import ProcessGroup


def confusion_matrix(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Counts int64 (C, C): pixels of a true class (row) by predicted class (column). Sums over batches are of all."""
    counted = truth != IGNORED
    cells = classes * truth[counted].long() + predicted[counted]
    return torch.bincount(cells, minlength=classes**2).view(classes, classes)


def intersection_over_union(counts: Tensor) -> Tensor:
    """Per class, float64 (C,), from 0 to 1; NaN for a class that neither the truth nor the prediction has.

    Its mean without the NaNs is the mIoU.
    """
    both = counts.diag().double()
    return both / (counts.sum(0) + counts.sum(1) - both)


@dataclass(slots=True)
class ConfusionAccumulator:
    """Sums over pixels."""

    counts: Tensor
    """int64 (C, C): pixels of a true class (row) by predicted class (column)."""
    loss_sum: Tensor
    """float64 (): of what is said of the true classes, minus the logarithm."""
    unreadable: int = 0
    """Images that could not be read."""

    @classmethod
    def empty(cls, classes: int, device: torch.device) -> Self:
        """Of no pixel."""
        counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        return cls(counts, torch.zeros((), dtype=torch.float64, device=device))

    def all_reduce(self, group: ProcessGroup) -> "ConfusionAccumulator":
        """The sum over all workers."""
        unreadable = torch.tensor(self.unreadable, device=self.counts.device)
        return ConfusionAccumulator(
            group.all_reduce(self.counts), group.all_reduce(self.loss_sum), int(group.all_reduce(unreadable))
        )


def segmentation_metrics(accumulator: ConfusionAccumulator) -> dict[str, float]:
    """The loss, and in percent `miou`, `pixel_accuracy`, and `mean_accuracy` over the classes.

    Classes that nothing has and nothing is taken for are left out of mIoU; those that nothing has, of mean accuracy.
    """
    counts = accumulator.counts.double()
    seen = max(1.0, counts.sum().item())
    shares, accuracies = intersection_over_union(accumulator.counts), accuracy_by_class(accumulator)
    return {
        "loss": accumulator.loss_sum.item() / seen,
        "miou": _percent(shares),
        "pixel_accuracy": 100 * counts.diag().sum().item() / seen,
        "mean_accuracy": _percent(accuracies),
    }


def accuracy_by_class(accumulator: ConfusionAccumulator) -> Tensor:
    """The share of each class's pixels that are found, float64 (C,), from 0 to 1; NaN for a class that has none."""
    counts = accumulator.counts.double()
    return counts.diag() / counts.sum(1)


def class_metrics(accumulator: ConfusionAccumulator, names: Sequence[str]) -> dict[str, float]:
    """In percent, `iou_<class>` and `accuracy_<class>`; without those that are no numbers."""
    kinds = {"iou": intersection_over_union(accumulator.counts), "accuracy": accuracy_by_class(accumulator)}
    named = {
        f"{kind}_{name}": 100 * share
        for kind, shares in kinds.items()
        for name, share in zip(names, shares.tolist(), strict=True)
    }
    return {name: share for name, share in named.items() if not math.isnan(share)}


def _percent(shares: Tensor) -> float:
    """The mean of those that are numbers; 0 of none."""
    output = shares[~shares.isnan()]
    return 100 * output.mean().item() if len(output) else 0.0
