"""Segmentation task: cross-entropy per pixel, and intersection over union.

Shapes: N images, I input channels of the network, H W height and width, C classes.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from harness.config.recipes.segmentation import SegmentationRecipe
from harness.data.batching import BatchPlan
from harness.data.data_record import DataRecord
from harness.data.loading import worker_indices
from harness.data.read_report import require_readable
from harness.data.segmentation import (
    SegmentationBatch,
    SegmentationSample,
    SegmentationTrainingSet,
    SegmentationValidationSet,
    collate_segmentation,
    open_segmentation,
    record_segmentation,
)
from harness.data.segmentation_files import IGNORED
from harness.errors import DataError
from harness.models.heads.encoder import Encoder
from harness.models.heads.segmentation import Segmenter
from harness.models.spec.network import NetworkSpec
from harness.system.device_slot import yield_slot
from harness.training.fit import autocast
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import Scores
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.metrics.segmentation import (
    ConfusionAccumulator,
    class_metrics,
    confusion_matrix,
    segmentation_metrics,
)
from harness.training.tasks.base import BatchPosition
from harness.training.tasks.dense import DenseTask
from harness.training.tasks.sliding_window import mean_probabilities
from harness.training.transfer_segmentation import pixel_loss

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

    def data_record(self) -> DataRecord:
        """See `DenseTask`."""
        return record_segmentation(self.recipe, self.masked, self.job.root)

    def batches(self, batch_plan: BatchPlan, *, epoch: int, rank: int, first_step: int) -> Iterator[SegmentationBatch]:
        """See `TrainingTask`. Raises `DataError` at the first mask that does not match its image."""
        for batch in super().batches(batch_plan, epoch=epoch, rank=rank, first_step=first_step):
            _require_sound(batch.faults)
            yield batch

    def loss(self, network: nn.Module, batch: SegmentationBatch, position: BatchPosition) -> Tensor:  # noqa: ARG002 (the task's signature)
        """Cross-entropy over the pixels that are not ignored, plus that of the auxiliary head times its weight."""
        masks = batch.masks.to(self.team.device, non_blocking=True).long()
        with autocast(self.recipe, self.team.device):
            output = network(self._placed(batch.images))
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
        batch = self._placed(torch.stack([sample.image for sample in images if sample.image is not None]))
        truth = torch.stack([sample.mask for sample in images]).to(self.team.device).long()
        with autocast(self.recipe, self.team.device):
            shares = mean_probabilities(model, batch, self.recipe.evaluation, (truth.shape[1], truth.shape[2]))
        accumulator.counts += confusion_matrix(shares.argmax(1), truth, len(self.masked.names))
        counted = truth != IGNORED
        own = shares.gather(1, truth.where(counted, 0)[:, None])[:, 0][counted]
        accumulator.loss_sum -= own.clamp(min=MIN_PROBABILITY).log().sum(dtype=torch.float64)

    def _placed(self, images: Tensor) -> Tensor:
        """(N, I, H, W) on the device."""
        memory_format = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        return images.to(self.team.device, non_blocking=True).contiguous(memory_format=memory_format)


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
