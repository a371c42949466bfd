"""Training time per image on this machine, measured before a long training; on noise where its data are missing."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.full_scale import ClassificationRecipe
from harness.data.image_sources import ClassificationData
from harness.errors import UserError
from harness.ops.timing import TimingBudget, time_interleaved
from harness.system.device_slot import computing
from harness.training.device import isolated_rng
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.loop import TrainingContext
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.full_scale.worker import prepare_model
from harness.training.tasks.classification import ClassificationTask

STEP_TIMING = TimingBudget(min_samples=1, max_samples=2, budget_s=1.0)
FEW_IMAGES = 2
"""Number of images of the first measurement on a CPU."""
ENOUGH_S = 1.0
"""Duration of a step on a CPU above which more images are not tried: from there on, time grows with their number."""


def seconds_per_image(context: TrainingContext) -> float:
    """Seconds per image of a forward and backward step, on the first training images, without reading them.

    The batch is the training's micro-batch, or smaller on a CPU. Raises `UserError` if there is too little memory for
    it, and what the task raises.
    """
    device, micro = context.group.device, context.batch_plan.micro_batch
    with computing(device), isolated_rng(device):
        if device.type == "cpu":
            few = min(FEW_IMAGES, micro)
            micro = min(micro, max(few, int(few * ENOUGH_S / _step_s(context, few))))
        seconds = _step_s(context, micro)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # other processes may use this GPU next
    return seconds / micro


def _step_s(context: TrainingContext, images: int) -> float:
    """Seconds of a step with `images` images."""
    times = time_interleaved({"step": _step(context, images)}, context.group.device, STEP_TIMING)["step"]
    if times is None:
        raise UserError(
            f"the device must have memory for {images} images in training",
            value=str(context.group.device),
            remedy="Use a smaller `--micro-batch`, `--precision bfloat16`, or a recipe with `checkpointing: true`.",
        )
    return times.median


def _step(context: TrainingContext, images: int) -> Callable[[], None]:
    """A training step of the network with its initial weights: a forward and a backward pass per call."""
    task, batch_plan = context.task, replace(context.batch_plan, workers=1, micro_batch=images)
    model = prepare_model(task.build()[0], context).train()
    batch = next(task.batches(batch_plan, epoch=1, rank=0, first_step=0))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(task.loss(model, batch, (1, 0, 0)))

    return step


@dataclass(frozen=True, slots=True, eq=False)
class NoiseImages:
    """Noise images of one size, all of the first class."""

    labels: NDArray[np.int64]
    """(N,)."""
    side: int

    def __len__(self) -> int:
        return len(self.labels)

    def image_or_failure(self, i: int) -> Image.Image:
        """See `ReadableFiles`."""
        pixels = np.random.default_rng(i).integers(256, size=(self.side, self.side, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


def noise_classification(
    job: FullScaleJob[ClassificationRecipe], group: ProcessGroup, images: int
) -> ClassificationTask:
    """A classification task on `images` noise images, without validation images."""
    noise = NoiseImages(np.zeros(images, np.int64), job.run.recipe.resolution)
    return ClassificationTask(job, group, ClassificationData(job.run.spec.classes, noise, None))
