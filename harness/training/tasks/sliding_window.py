"""Inference of a segmentation: on whole images or with a sliding window, at one or several scales, optionally flipped.

Shapes: N images, I input channels, H W height and width, C classes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config.recipes.segmentation import SegmentationEvaluation
from harness.models.finite import require_finite


def mean_probabilities(
    model: nn.Module, images: Tensor, evaluation: SegmentationEvaluation, size: tuple[int, int]
) -> Tensor:
    """Mean class probabilities over all views, resized to `size`: (N, I, H, W) -> float32 (N, C, *size).

    Raises `Diverged` if a logit is not finite.
    """
    total: Tensor | None = None
    count = 0
    for logits in tta_views(model, images, evaluation):
        require_finite(logits, model, images, "the segmentation's logits of a validation image")
        shares = _resized(logits.float(), size).softmax(1)
        total = shares if total is None else total + shares
        count += 1
    assert total is not None, "a recipe has at least one scale"
    return total / count


def tta_views(model: nn.Module, images: Tensor, evaluation: SegmentationEvaluation) -> Iterator[Tensor]:
    """Logits of every test-time view, flipped back if the view was flipped; their sizes follow from the scales."""
    height, width = images.shape[2:]
    for scale in evaluation.scales:
        scaled = _resized(images, (max(1, round(scale * height)), max(1, round(scale * width))))
        yield _predict_view(model, scaled, evaluation)
        if evaluation.flip:
            yield _predict_view(model, scaled.flip(3), evaluation).flip(3)


def _predict_view(model: nn.Module, images: Tensor, evaluation: SegmentationEvaluation) -> Tensor:
    if evaluation.window is None or evaluation.stride is None:
        logits: Tensor = model(images)
        return logits
    (height, width), (down, right) = evaluation.window, evaluation.stride
    return sliding_window_inference(model, images, (height, width), (down, right))


def sliding_window_inference(
    model: nn.Module, images: Tensor, window: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """Logits, float32, with a sliding window; where windows overlap, their mean."""
    total: Tensor | None = None
    counts = torch.zeros(images.shape[2:], device=images.device)
    for top in window_starts(images.shape[2], window[0], stride[0]):
        for left in window_starts(images.shape[3], window[1], stride[1]):
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            logits = model(images[:, :, rows, columns]).float()
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *images.shape[2:])
            total[:, :, rows, columns] += logits
            counts[rows, columns] += 1
    assert total is not None, "there is at least one window"
    return total / counts


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Start positions of the windows along a side; the last window ends at the side's end. A short side has one."""
    steps = -(-max(0, side - window) // stride)
    return [max(0, min(step * stride, side - window)) for step in range(steps + 1)]


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
