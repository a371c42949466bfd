"""Tasks of training at full scale: classification, segmentation and detection."""

from collections.abc import Callable
from typing import Any

from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.tasks.base import TrainingTask


def _classification(job: FullScaleJob[Any], group: ProcessGroup) -> TrainingTask:
    from harness.training.tasks.classification import ClassificationTask

    return ClassificationTask(job, group)


def _segmentation(job: FullScaleJob[Any], group: ProcessGroup) -> TrainingTask:
    from harness.training.tasks.segmentation import SegmentationTask

    return SegmentationTask(job, group)


def _detection(job: FullScaleJob[Any], group: ProcessGroup) -> TrainingTask:
    from harness.training.tasks.detection import DetectionTask

    return DetectionTask(job, group)


TASKS: dict[str, Callable[[FullScaleJob[Any], ProcessGroup], TrainingTask]] = {
    "classification": _classification,
    "segmentation": _segmentation,
    "detection": _detection,
}
"""Constructors of the tasks, by a recipe's `task`; each imports only what its task needs."""

__all__ = ["TASKS", "TrainingTask"]
