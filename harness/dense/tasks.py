"""The tasks as a job names them; importing this costs no torch."""

from typing import TYPE_CHECKING

from harness.detection_recipe import DetectionRecipe
from harness.scale_up.records import FullJob
from harness.segmentation_recipe import SegmentationRecipe

if TYPE_CHECKING:
    from harness.scale_up.task import Task
    from harness.scale_up.team import Team


def segmentation(job: FullJob[SegmentationRecipe], team: "Team") -> "Task":
    """The task of a segmentation."""
    from harness.dense.segmentation import Segmentation

    return Segmentation(job, team)


def detection(job: FullJob[DetectionRecipe], team: "Team") -> "Task":
    """The task of a detector."""
    from harness.dense.detection import Detection

    return Detection(job, team)
