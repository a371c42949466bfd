"""Intersection over union, from one confusion matrix over all pixels of all images.

Shapes: any, the same for predicted and true classes; C classes, the ground among them.
"""

import torch
from torch import Tensor

from harness.data.segmentation_files import IGNORED


def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
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
