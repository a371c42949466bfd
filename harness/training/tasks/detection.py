"""The task of a detector: boxes, perhaps with masks, and average precision as COCO counts it.

Shapes: N images, D boxes found in an image, H W height and width of an image.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from harness.config.recipes.detection import DetectionRecipe
from harness.data.data_record import DataRecord
from harness.data.detection import (
    DetectionBatch,
    DetectionTrainingSet,
    DetectionValidationSet,
    collate_detection,
    open_detection,
    record_detection,
)
from harness.data.detection_annotations import RLE, encode_rle
from harness.data.loading import worker_indices
from harness.data.read_report import require_readable
from harness.errors import DataError, Diverged
from harness.models.finite import describe_fault
from harness.models.heads.detectors import DETECTORS
from harness.models.heads.encoder import Encoder
from harness.models.heads.roi_heads import RoIHeadsConfig
from harness.models.spec.network import NetworkSpec
from harness.system.device_slot import yield_slot
from harness.training.fit import autocast
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import Scores
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.metrics.detection import Detections, detection_metrics
from harness.training.tasks.base import BatchPosition
from harness.training.tasks.dense import DenseTask

MAIN_DETECTION_METRIC = "ap"
MASK_THRESHOLD = 0.5
"""Least probability of a pixel that is in a mask."""


class DetectionTask(DenseTask[DetectionRecipe]):
    """See `TrainingTask`."""

    backbone = "backbone.encoder.network"

    def __init__(self, job: FullScaleJob[DetectionRecipe], group: ProcessGroup) -> None:
        recipe, channels = job.run.recipe, job.run.spec.in_channels
        self.scenes = open_detection(recipe, job.root, job.cache)
        training = DetectionTrainingSet(self.scenes.train, recipe, channels)
        validation = DetectionValidationSet(self.scenes.val, recipe, channels)
        super().__init__(job, group, self.scenes, training=training, validation=validation, collate=collate_detection)

    def build_model(self, network: nn.Module, spec: NetworkSpec, classes: int) -> nn.Module:
        """See `DenseTask`."""
        return build_detector(network, spec, self.recipe, classes)

    def data_record(self) -> DataRecord:
        """See `DenseTask`."""
        return record_detection(self.recipe, self.scenes, self.job.root)

    def loss(self, network: nn.Module, batch: DetectionBatch, position: BatchPosition) -> Tensor:  # noqa: ARG002 (the task's signature)
        """The sum of the detector's own losses."""
        device = self.team.device
        images = [image.to(device, non_blocking=True) for image in batch.images]
        targets = [
            {name: value.to(device, non_blocking=True) for name, value in target.items()} for target in batch.targets
        ]
        with autocast(self.recipe, device):
            losses = network(images, targets)
        return torch.stack(list(losses.values())).sum()

    def validate(self, model: nn.Module) -> Scores | None:
        """See `TrainingTask`: average precision by overlap and size; by class too with `evaluate`."""
        metrics, unreadable = self.evaluate(model)
        shown = {name: share for name, share in metrics.items() if name.removeprefix("mask_") in ("ap", "ap50", "ap75")}
        return Scores(
            shown, main=MAIN_DETECTION_METRIC, unreadable=unreadable, images=len(self.scenes.val) - unreadable
        )

    def evaluate(self, model: nn.Module) -> tuple[dict[str, float], int]:
        """All figures of the validation images, and how many of these could not be read; the same in every worker."""
        masks = self.recipe.detector.has_mask_head
        own = list(self._predict(model))
        seen = sorted(self.team.all_gather(own), key=lambda each: each[0])
        val = self.scenes.val
        readable = [(i, found) for i, found in seen if found is not None]
        require_readable("validation", len(seen), len(seen) - len(readable), val)
        figures = detection_metrics(
            [found for _, found in readable], (val.instances(i) for i, _ in readable), self.scenes.names, masks=masks
        )
        found = dict(figures)
        if MAIN_DETECTION_METRIC not in found:
            raise DataError(
                "the validation images that can be read must have a figure besides crowds",
                value=f"{len(readable)} images",
                place=str(self.job.root) if self.job.root is not None else None,
            )
        return found, len(seen) - len(readable)

    @torch.no_grad()
    def _predict(self, model: nn.Module) -> Iterator[tuple[int, Detections | None]]:
        """What the model finds in this worker's share of the images; None for one that cannot be read."""
        model.eval()
        recipe, group = self.recipe, self.team
        parts = worker_indices(len(self.scenes.val), recipe.evaluation.batch_size, rank=group.rank, size=group.size)
        for batch in self.validation.read(parts):
            yield_slot()
            readable = [(i, image, sides) for i, image, sides in batch if image is not None]
            yield from ((i, None) for i, image, _ in batch if image is None)
            if not readable:
                continue
            images = [image.to(group.device, non_blocking=True) for _, image, _ in readable]
            with autocast(recipe, group.device):
                detections = self._predict_batches(model, images)
            for (i, image, sides), target in zip(readable, detections, strict=True):
                yield i, to_image_coordinates(target, (image.shape[1], image.shape[2]), sides)

    def _predict_batches(self, model: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """What the model finds. Raises `Diverged` where an output of a head is not finite, naming the first layer."""
        try:
            detections: list[dict[str, Tensor]] = model(images)
        except Diverged:
            raise Diverged(describe_fault(model, images, "the detection's outputs")) from None
        return detections


def build_detector(network: nn.Module, spec: NetworkSpec, recipe: DetectionRecipe, classes: int) -> nn.Module:
    """The detector around a network, which becomes a part of it and loses its classifier.

    The weights besides the network's come from torch's global stream.
    """
    plan = recipe.detector
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    encoder = Encoder(network, spec, finest=plan.finest, frozen=plan.frozen, normed=plan.normed)
    heads = RoIHeadsConfig(
        classes,
        hidden=plan.hidden,
        body=plan.body,
        loss=plan.loss,
        by_class=plan.by_class,
        masks=plan.masks,
        sampled=plan.sampled,
    )
    return DETECTORS[plan.name](encoder, plan.channels, heads, layout)


def to_image_coordinates(found: dict[str, Tensor], shown: tuple[int, int], sides: tuple[int, int]) -> Detections:
    """What was found in an image that was shown at another height and width, in its own pixels."""
    (height, width), (own_height, own_width) = shown, sides
    scale = torch.tensor([own_width / width, own_height / height] * 2)
    boxes = found["boxes"].float().cpu() * scale
    masks = _paste_masks(found["masks"].float().cpu(), boxes, sides) if "masks" in found else None
    return Detections(boxes.numpy(), found["labels"].cpu().numpy(), found["scores"].float().cpu().numpy(), masks)


def _paste_masks(masks: Tensor, boxes: Tensor, sides: tuple[int, int]) -> tuple[RLE, ...]:
    """Masks (D, 1, 28, 28) of boxes, in the size of their image; one by one, for all at once may not fit."""
    pasted = (paste_masks_in_image(mask[None], box[None], sides) for mask, box in zip(masks, boxes, strict=True))
    return tuple(encode_rle(np.asarray(each[0, 0] > MASK_THRESHOLD)) for each in pasted)
