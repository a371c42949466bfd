"""Segmentation task: cross-entropy per pixel, and intersection over union.

Images are evaluated whole or with a sliding window, at one or several scales, optionally flipped.

Shapes: N images, I input channels of the network, H W height and width, C classes.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config.recipes.segmentation import SegmentationEvaluation, SegmentationRecipe
from harness.data.batching import BatchPlan
from harness.data.loading import worker_indices
from harness.data.read_report import require_readable
from harness.data.segmentation import (
    SegmentationBatch,
    SegmentationSample,
    SegmentationTrainingSet,
    SegmentationValidationSet,
    collate_segmentation,
    open_segmentation,
)
from harness.data.segmentation_files import IGNORED
from harness.errors import DataError
from harness.models.finite import require_finite
from harness.models.heads.encoder import Encoder
from harness.models.heads.segmentation import Segmenter
from harness.models.spec.network import NetworkSpec
from harness.system.device_slot import yield_slot
from harness.training.device import autocast, place_images
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import Scores
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.metrics.segmentation import (
    ConfusionAccumulator,
    class_metrics,
    pixel_loss,
    segmentation_metrics,
)
from harness.training.tasks import BatchPosition
from harness.training.tasks.dense import DenseTask

MAIN_SEGMENTATION_METRIC = "miou"
MIN_PROBABILITY = 1e-12
"""Lower bound of the true class's probability in the loss of a pixel."""


class SegmentationTask(DenseTask[SegmentationRecipe]):
    """Segmentation; see `DenseTask`."""

    backbone = "encoder.network"

    def __init__(self, job: FullScaleJob[SegmentationRecipe], group: ProcessGroup) -> None:
        recipe, channels = job.run.recipe, job.run.spec.in_channels
        self.masked = open_segmentation(recipe, job.root, job.cache)
        training = SegmentationTrainingSet(self.masked.train, recipe, channels)
        validation = SegmentationValidationSet(self.masked.val, recipe, channels)
        super().__init__(
            job, group, self.masked, training=training, validation=validation, collate=collate_segmentation
        )

    def build_model(self, network: nn.Module, spec: NetworkSpec, classes: int) -> Segmenter:
        """See `DenseTask`."""
        return build_segmenter(network, spec, self.recipe, classes)

    def batches(self, batch_plan: BatchPlan, *, epoch: int, rank: int, first_step: int) -> Iterator[SegmentationBatch]:
        """See `TrainingTask`. Raises `DataError` at the first mask that does not match its image."""
        for batch in super().batches(batch_plan, epoch=epoch, rank=rank, first_step=first_step):
            _require_sound(batch.faults)
            yield batch

    def loss(self, network: nn.Module, batch: SegmentationBatch, position: BatchPosition) -> Tensor:  # noqa: ARG002 (the task's signature)
        """Cross-entropy over the pixels that are not ignored, plus that of the auxiliary head times its weight."""
        masks = batch.masks.to(self.team.device, non_blocking=True).long()
        with autocast(self.recipe, self.team.device):
            output = network(place_images(batch.images, self.recipe, self.team.device))
        if not isinstance(output, tuple):
            return pixel_loss(output, masks)
        logits, second = output
        return pixel_loss(logits, masks) + self.recipe.segmenter.auxiliary * pixel_loss(second, masks)

    def validate(self, model: nn.Module) -> Scores:
        """See `TrainingTask`: loss, mIoU, and accuracies."""
        accumulator = self.accumulate(model)
        images = len(self.masked.val) - accumulator.unreadable
        return Scores(
            segmentation_metrics(accumulator),
            main=MAIN_SEGMENTATION_METRIC,
            unreadable=accumulator.unreadable,
            images=images,
        )

    def evaluate(self, model: nn.Module) -> tuple[dict[str, float], int]:
        """All metrics, also by class, and the number of unreadable images; see
        `harness.training.metrics.segmentation`."""
        accumulator = self.accumulate(model)
        return segmentation_metrics(accumulator) | class_metrics(accumulator, self.masked.names), accumulator.unreadable

    @torch.no_grad()
    def accumulate(self, model: nn.Module) -> ConfusionAccumulator:
        """Evaluate the model on all readable images; the result is the same in every worker.

        The model is left in evaluation mode. Raises `Diverged` for outputs that are not finite.
        """
        model.eval()
        accumulator = ConfusionAccumulator.empty(len(self.masked.names), self.team.device)
        count = len(self.masked.val)
        parts = worker_indices(count, self.recipe.evaluation.batch_size, rank=self.team.rank, size=self.team.size)
        for part in self.validation.read(parts):
            yield_slot()
            _require_sound([sample.fault for sample in part if sample.fault is not None])
            readable = [sample for sample in part if sample.image is not None]
            accumulator.unreadable += len(part) - len(readable)
            for _, alike in groupby(readable, key=_sides):
                self._count(accumulator, model, list(alike))
        whole = accumulator.all_reduce(self.team)
        require_readable("validation", count, whole.unreadable, self.masked.val)
        if not whole.counts.any():
            raise DataError(
                "a pixel of the validation masks at least must have a class", place=self.masked.val.place(0)
            )
        return whole

    def _count(self, accumulator: ConfusionAccumulator, model: nn.Module, images: Sequence[SegmentationSample]) -> None:
        """Add the pixels of images of equal size to the accumulator."""
        stacked = torch.stack([sample.image for sample in images if sample.image is not None])
        batch = place_images(stacked, self.recipe, self.team.device)
        truth = torch.stack([sample.mask for sample in images]).to(self.team.device).long()
        with autocast(self.recipe, self.team.device):
            shares = mean_probabilities(model, batch, self.recipe.evaluation, (truth.shape[1], truth.shape[2]))
        accumulator.add(shares.argmax(1), truth)
        counted = truth != IGNORED
        probabilities = shares.gather(1, truth.where(counted, 0)[:, None])[:, 0][counted]
        accumulator.loss_sum -= probabilities.clamp(min=MIN_PROBABILITY).log().sum(dtype=torch.float64)


def build_segmenter(network: nn.Module, spec: NetworkSpec, recipe: SegmentationRecipe, classes: int) -> Segmenter:
    """Build the model around `network`, which becomes part of it; torch's global generator initializes the rest."""
    plan = recipe.segmenter
    return Segmenter(
        Encoder(network, spec, finest=plan.finest, frozen=plan.frozen),
        plan.head,
        plan.channels,
        classes=classes,
        side=min(recipe.views.crop),
        dropout=plan.dropout,
        auxiliary=plan.auxiliary_channels if plan.auxiliary else None,
    )


def _sides(sample: SegmentationSample) -> tuple[torch.Size, torch.Size]:
    assert sample.image is not None, "unreadable samples were removed"
    return sample.image.shape, sample.mask.shape


def _require_sound(faults: Sequence[str]) -> None:
    if faults:
        raise DataError(faults[0].rstrip("."))


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
