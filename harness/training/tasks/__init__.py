"""Interface between the full-scale training loop and its tasks: classification, segmentation and detection.

The loop, its checkpoints, moving average, workers, logs and progress are the same for all; a task defines the model,
the batches, the loss and the validation. A recipe names its task, which each worker creates for itself (`TASKS`).

For bitwise equal resumption, all random numbers of a task must follow from the recipe's seed and the position that is
passed to it (`harness.data.seeding`); it must not keep state from step to step.

Shapes: N images.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from torch import Tensor, nn

from harness.data.batching import BatchPlan
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import Message, Scores
from harness.training.full_scale.process_group import ProcessGroup

Batch: TypeAlias = Any
"""A task's tuple for N images, on the CPU; the last element is int64 (N,): the number of unreadable files that were
skipped for each image, which the loop counts."""
BatchPosition = tuple[int, int, int]
"""The epoch, from 1; its step, from 0; and the micro-batch of that step, from 0."""


class TrainingTask(Protocol):
    """Protocol of a task, in one worker of a process group."""

    backbone: str
    """Name of the run's network within the model, as `encoder.network`; empty if it is the model itself. Layer-wise
    learning rate decay and activation checkpointing use it."""

    @property
    def images(self) -> int:
        """The number of training images."""

    def build(self) -> tuple[nn.Module, Message | None]:
        """The model in training form with its initial weights, on the CPU, and a message about them.

        Both are the same in every worker. Raises `UserError` for weights that cannot be trained further.
        """

    def batches(self, batch_plan: BatchPlan, *, epoch: int, rank: int, first_step: int) -> Iterator[Batch]:
        """A worker's micro-batches, in order, from a step of an epoch to the last epoch.

        There are `batch_plan.accumulation_steps` per step. One iterator, so that images are also read ahead between
        epochs.
        """

    def require_training(self, total: int, unreadable: int) -> None:
        """Raise `DataError` if too many of an epoch's `total` images could not be read."""

    def loss(self, network: nn.Module, batch: Batch, position: BatchPosition) -> Tensor:
        """The mean loss of a batch, (), in float32; `network` is called exactly once, in mixed precision.

        It is the model of `build`, compiled or distributed.
        """

    def validate(self, model: nn.Module) -> Scores | None:
        """Scores of the model on the validation images, which are divided among the workers; None without images.

        Every worker gets the same scores. The model is left in evaluation mode. Raises `Diverged` for outputs that are
        not finite.
        """

    def save(self, path: Path, model: nn.Module, source: str) -> None:
        """Write the model's weights in training form; `source` describes their origin."""


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
