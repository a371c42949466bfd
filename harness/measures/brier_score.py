"""The measure `brier_score`: a proper score of the predicted probabilities that is bounded, unlike the cross-entropy.

Source: Brier 1950, Monthly Weather Review 78, 1-3, in its original form for several classes.
"""

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from harness.measures.base import TrainedRun
from harness.training.fit import predict_logits


@torch.no_grad()
def brier_score(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """The mean over all validation images of the squared distance between probabilities and label, from 0 to 2."""
    total, val = 0.0, trained.dataset.val
    for logits, labels in predict_logits(trained.model, val, trained.dataset, trained.recipe, trained.device):
        expected = F.one_hot(labels, logits.shape[1])
        total += (logits.double().softmax(1) - expected).square().sum().item()
    yield "brier_score", total / len(val)
