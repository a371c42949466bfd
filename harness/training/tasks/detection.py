"""Detection task: boxes, optionally with masks, and COCO's average precision.

Shapes: N images, D boxes detected in an image, H W height and width of an image.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from harness.config.recipes.detection import DetectionRecipe
from harness.data.detection import (
    DetectionBatch,
    DetectionTrainingSet,
    DetectionValidationSet,
    collate_detection,
    open_detection,
)
from harness.data.detection_annotations import RLE, encode_rle
from harness.data.loading import worker_indices
from harness.data.read_report import require_readable
from harness.errors import DataError, Diverged
from harness.models.finite import describe_fault
from harness.models.heads.detection import DETECTORS
from harness.models.heads.encoder import Encoder
from harness.models.heads.roi_heads import RoIHeadsConfig
from harness.models.spec.network import NetworkSpec
from harness.system.device_slot import yield_slot
from harness.training.device import autocast, memory_format
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import Scores
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.metrics.detection import Detections, detection_metrics
from harness.training.tasks import BatchPosition
from harness.training.tasks.dense import DenseTask

MAIN_DETECTION_METRIC = "ap"
MASK_THRESHOLD = 0.5
"""Minimum probability of a pixel in a mask."""


class DetectionTask(DenseTask[DetectionRecipe]):
    """Detection; see `DenseTask`."""

    backbone = "backbone.encoder.network"

    def __init__(self, job: FullScaleJob[DetectionRecipe], group: ProcessGroup) -> None:
        recipe, channels = job.run.recipe, job.run.spec.in_channels
        self.scenes = open_detection(recipe, job.root, job.cache)
        training = DetectionTrainingSet(self.scenes.train, recipe, channels)
        validation = DetectionValidationSet(self.scenes.val, recipe, channels)
        super().__init__(job, group, self.scenes, training=training, validation=validation, collate=collate_detection)

    def build_model(self, network: nn.Module, spec: NetworkSpec, classes: int) -> nn.Module:
        """See `DenseTask`; the network loses its classifier."""
        plan = self.recipe.detector
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
        return DETECTORS[plan.name](encoder, plan.channels, heads, memory_format(self.recipe))

    def loss(self, network: nn.Module, batch: DetectionBatch, position: BatchPosition) -> Tensor:  # noqa: ARG002 (the task's signature)
        """The sum of the detector's losses."""
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
        """All metrics of the validation images, and the number of unreadable ones; the same in every worker."""
        masks = self.recipe.detector.has_mask_head
        local = list(self._predict(model))
        predictions = sorted(self.team.all_gather(local), key=lambda prediction: prediction[0])
        val = self.scenes.val
        readable = [(i, detections) for i, detections in predictions if detections is not None]
        require_readable("validation", len(predictions), len(predictions) - len(readable), val)
        named_metrics = detection_metrics(
            [detections for _, detections in readable],
            (val.instances(i) for i, _ in readable),
            self.scenes.names,
            masks=masks,
        )
        metrics = dict(named_metrics)
        if MAIN_DETECTION_METRIC not in metrics:
            raise DataError(
                "the validation images that can be read must have an object that is not a crowd",
                value=f"{len(readable)} images",
                place=str(self.job.root) if self.job.root is not None else None,
            )
        return metrics, len(predictions) - len(readable)

    @torch.no_grad()
    def _predict(self, model: nn.Module) -> Iterator[tuple[int, Detections | None]]:
        """Index and detections of this worker's share of the images; None for one that cannot be read."""
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
        """The model's detections. Raises `Diverged`, with the first faulty layer, if a head's output is not finite."""
        try:
            detections: list[dict[str, Tensor]] = model(images)
        except Diverged:
            raise Diverged(describe_fault(model, images, "the detection's outputs")) from None
        return detections


def to_image_coordinates(outputs: dict[str, Tensor], shown: tuple[int, int], sides: tuple[int, int]) -> Detections:
    """Convert detections from the height and width of the network's input to those of the original image."""
    (height, width), (own_height, own_width) = shown, sides
    scale = torch.tensor([own_width / width, own_height / height] * 2)
    boxes = outputs["boxes"].float().cpu() * scale
    masks = _paste_masks(outputs["masks"].float().cpu(), boxes, sides) if "masks" in outputs else None
    return Detections(boxes.numpy(), outputs["labels"].cpu().numpy(), outputs["scores"].float().cpu().numpy(), masks)


def _paste_masks(masks: Tensor, boxes: Tensor, sides: tuple[int, int]) -> tuple[RLE, ...]:
    """Paste masks (D, 1, 28, 28) of boxes into the image's size; one by one, as all at once may not fit in memory."""
    pasted = (paste_masks_in_image(mask[None], box[None], sides) for mask, box in zip(masks, boxes, strict=True))
    return tuple(encode_rle(np.asarray(mask[0, 0] > MASK_THRESHOLD)) for mask in pasted)
