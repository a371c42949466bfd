"""What a segmentation says of images: seen whole or through a sliding window, at one scale or many, also mirrored.

Shapes: N images, H W height and width as shown, C classes.
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
    """The mean over all looks, each brought to `size`: (N, I, H, W) -> float32 (N, C, *size).

    Raises `Diverged` where a logit is not finite.
    """
    total: Tensor | None = None
    count = 0
    for logits in tta_views(model, images, evaluation):
        require_finite(logits, model, images, "what the segmentation says of a validation image")
        shares = _resized(logits.float(), size).softmax(1)
        total = shares if total is None else total + shares
        count += 1
    assert total is not None, "a recipe has a scale at least"
    return total / count


def tta_views(model: nn.Module, images: Tensor, evaluation: SegmentationEvaluation) -> Iterator[Tensor]:
    """The logits of every look, turned back where it was mirrored; their sizes follow from the scales."""
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
    """Logits of all that the window shows, float32; where it shows a pixel more than once, their mean."""
    total: Tensor | None = None
    shown = torch.zeros(images.shape[2:], device=images.device)
    for top in window_starts(images.shape[2], window[0], stride[0]):
        for left in window_starts(images.shape[3], window[1], stride[1]):
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            logits = model(images[:, :, rows, columns]).float()
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *images.shape[2:])
            total[:, :, rows, columns] += logits
            shown[rows, columns] += 1
    assert total is not None, "there is a window at least"
    return total / shown


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side; the last one ends with the side, a side shorter than a window has one."""
    steps = -(-max(0, side - window) // stride)
    return [max(0, min(step * stride, side - window)) for step in range(steps + 1)]


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
