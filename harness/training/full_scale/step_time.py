"""Training time per image on this machine, measured before a long training begins."""

from collections.abc import Callable
from dataclasses import replace

import torch

from harness.errors import UserError
from harness.ops.timing import TimingBudget, time_interleaved
from harness.system.device_slot import computing
from harness.training.device import isolated_rng
from harness.training.full_scale.loop import TrainingContext
from harness.training.full_scale.worker import prepare_model

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
