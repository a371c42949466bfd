"""The one seam between a training at full scale and what is learnt: a classifier, a segmentation, a detector.

The loop, its checkpoints, moving average, workers, logs and progress are the same for all; a task says which network
is trained, on which batches, by which loss, and how good it is. A recipe names its task, which
each worker opens for itself (`TRANSFER_TASKS`).

To be resumed to the bit, a task must draw nothing at random but from seeds made of the recipe's and of the numbers that
it is given (`harness.data.seeding`); so it keeps no state of its own from step to step.

Shapes: N images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from torch import Tensor, nn

from harness.data.batching import BatchPlan
from harness.training.full_scale.messages import Message, Scores

Batch: TypeAlias = Any
"""A tuple that a task makes of N images, on the CPU; the last of it is int64 (N,): how many files had to be passed over
for each image, which the loop counts."""
BatchPosition = tuple[int, int, int]
"""The epoch, from 1; its step, from 0; and the part of that step."""


class TrainingTask(Protocol):
    """What is learnt, in one worker of a team."""

    backbone: str
    """Where in the model the network of the run is, as `encoder.network`; empty where it is the model itself. By it
    learning rates fall from layer to layer, and activations are computed again."""

    @property
    def images(self) -> int:
        """The number of training images."""
        ...

    def build(self) -> tuple[nn.Module, Message | None]:
        """The model in training form with its first weights, on the CPU, and what is to be said of them.

        The same in every worker. Raises `UserError`s for weights that cannot be trained further.
        """
        ...

    def batches(self, batch_plan: BatchPlan, *, epoch: int, rank: int, first_step: int) -> Iterator[Batch]:
        """A worker's parts of all steps, in order, from a step of an epoch to the last epoch.

        There are `pace.parts` for each step. One stream, so that images are read ahead also between two epochs.
        """
        ...

    def require_training(self, total: int, unreadable: int) -> None:
        """Raise `DataError` where too many of the images that an epoch wanted could not be read."""
        ...

    def loss(self, network: nn.Module, batch: Batch, position: BatchPosition) -> Tensor:
        """The mean loss of a batch, (), in float32; `network` is called exactly once, with mixed precision around it.

        It is the model of `build`, compiled or for many workers.
        """
        ...

    def validate(self, model: nn.Module) -> Scores | None:
        """What the model makes of the validation images, shared among the workers; None where there are none.

        Every worker gets the same. The model is left in evaluation mode. Raises `Diverged` for what is not finite.
        """
        ...

    def save(self, path: Path, model: nn.Module, source: str) -> None:
        """Keep the model's weights in training form; `source` says what they come from."""
        ...
