"""The measure `merge_error`: whether the merged network computes the same as the trained one."""

import copy
import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from harness.data.augment import normalize
from harness.measures.base import TrainedRun
from harness.models.build import merge
from harness.models.finite import require_finite
from harness.training.device import isolated_rng

COMPARED_IMAGES = 4
COMPARED_SIDE = 64
"""Side of a crop in pixels: enough to check any merge, while a depth-wise convolution in float64 takes 30 times as long
as in float32 on a CPU (replknet_31b at 224 px)."""


@torch.no_grad()
def merge_error(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """The largest difference between the logits of both forms in float64, and its ratio to the largest logit.

    Computed on the first 4 validation images, cropped to their central 64 x 64 pixels if they are larger. A correct
    merge leaves rounding errors: about 1e-14 of the logits. For an untrained network, the batch norms first take the
    statistics of these images: with their initial statistics the logits hardly depend on the image, and a wrong merge
    would not be noticed.
    """
    model = copy.deepcopy(trained.model).double()
    batch = _crops(trained).double()
    if trained.recipe.epochs == 0:
        with isolated_rng(trained.device):
            _take_statistics(model, batch)
    model.eval()
    logits = model(batch)
    require_finite(logits, model, batch, "the logits of a validation image in float64")
    merged = merge(model)
    merged_logits = merged(batch)
    require_finite(merged_logits, merged, batch, "the merged network's logits of a validation image in float64")
    error = (merged_logits - logits).abs().max().item()
    yield "merge_error_max_abs", error
    yield "merge_error_relative", error / max(logits.abs().max().item(), sys.float_info.min)


def _crops(trained: TrainedRun) -> Tensor:
    val = trained.dataset.val
    index = np.arange(COMPARED_IMAGES) % len(val)  # a split may be smaller
    start = max(0, (val.images.shape[-1] - COMPARED_SIDE) // 2)
    middle = slice(start, start + COMPARED_SIDE)
    images = torch.from_numpy(val.images[index][:, :, middle, middle]).to(trained.device)
    return normalize(images, trained.dataset)


def _take_statistics(model: nn.Module, batch: Tensor) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(batch)
