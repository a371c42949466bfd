"""The tasks as a job names them; importing this costs no torch."""

from typing import TYPE_CHECKING

from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.training.full_scale.records import FullJob

if TYPE_CHECKING:
    from harness.training.full_scale.process_group import Team
    from harness.training.tasks.base import Task


def segmentation(job: FullJob[SegmentationRecipe], team: "Team") -> "Task":
    """The task of a segmentation."""
    from harness.training.tasks.segmentation import Segmentation

    return Segmentation(job, team)


def detection(job: FullJob[DetectionRecipe], team: "Team") -> "Task":
    """The task of a detector."""
    from harness.training.tasks.detection import Detection

    return Detection(job, team)
