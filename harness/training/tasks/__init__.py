"""What a training at full scale learns: classification, segmentation or detection."""

from collections.abc import Callable
from typing import Any

from harness.training.full_scale.job import FullJob
from harness.training.full_scale.process_group import Team
from harness.training.tasks.base import Task


def _classification(job: FullJob[Any], team: Team) -> Task:
    from harness.training.tasks.classification import Classification

    return Classification(job, team)


def _segmentation(job: FullJob[Any], team: Team) -> Task:
    from harness.training.tasks.segmentation import Segmentation

    return Segmentation(job, team)


def _detection(job: FullJob[Any], team: Team) -> Task:
    from harness.training.tasks.detection import Detection

    return Detection(job, team)


TASKS: dict[str, Callable[[FullJob[Any], Team], Task]] = {
    "classification": _classification,
    "segmentation": _segmentation,
    "detection": _detection,
}
"""What opens the images of a task in each worker, by a recipe's `task`; it loads what that task alone needs."""

__all__ = ["TASKS", "Task"]
