"""The loop of a training at full scale: one generator, similar to `harness.training.fit`.

All randomness follows from the seed, the epoch, and the index of the image or of the step, so on a CPU with the same
number of workers and threads, a training that is resumed from a checkpoint has bitwise the same result as one that was
not interrupted. With another number of workers, each step has the same images, but batch statistics differ.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harness.data.batching import BatchPlan
from harness.data.seeding import mix_seed
from harness.errors import Diverged, Stopped
from harness.models.finite import count_nonfinite, nonfinite_entries
from harness.system.device_slot import yield_slot
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import FullScaleEpoch, Scores, StepProgress
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.full_scale.state import TrainingState
from harness.training.full_scale.timer import Timer
from harness.training.optim import full_scale_learning_rate, optimizer_step, set_learning_rate
from harness.training.tasks import TrainingTask


@dataclass(frozen=True, slots=True, eq=False)
class TrainingContext:
    """The objects that do not change during a training."""

    job: FullScaleJob[Any]
    task: TrainingTask
    batch_plan: BatchPlan
    group: ProcessGroup


def fit_full_scale(
    network: nn.Module,
    state: TrainingState,
    context: TrainingContext,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[StepProgress | FullScaleEpoch]:
    """Train `state.model` in place from `state.progress` on; `network` is the same model, compiled or distributed.

    `should_stop` is called before every step; if it is true in any worker, the state is saved and `Stopped` raised.
    Raises `Diverged` at a loss that is not finite.
    """
    recipe, progress = context.job.run.recipe, state.progress
    task, batch_plan, group = context.task, context.batch_plan, context.group
    batches = task.batches(batch_plan, epoch=progress.epoch, rank=group.rank, first_step=progress.step)
    saved = time.monotonic()

    for epoch in range(progress.epoch, recipe.intervals + 1):
        timer = Timer(progress.train_s, progress.waiting_s)
        first_step = progress.step
        sums = _sums_on_main([progress.loss_sum, progress.unreadable], group)  # over the micro-batches of the epoch
        state.model.train()

        for step in range(first_step, batch_plan.steps):
            yield_slot()
            is_due = group.is_main and time.monotonic() - saved > 60 * recipe.save_minutes
            stops, saves = group.any_of(should_stop(), is_due)
            if stops or saves:
                progress.loss_sum, progress.unreadable = group.all_reduce(sums).tolist()
                progress.train_s, progress.waiting_s = timer.train_s, timer.waiting_s
                sums = _sums_on_main([progress.loss_sum, progress.unreadable], group)
                _save(state, context)
                saved = time.monotonic()
            if stops:
                raise Stopped(f"stopped in epoch {epoch} after {step} of {batch_plan.steps} steps")

            rate = full_scale_learning_rate(recipe, (epoch - 1) * batch_plan.steps + step, batch_plan.steps)
            set_learning_rate(state.optimizer, rate)
            torch.manual_seed(mix_seed(recipe.seed, epoch, step, group.rank))  # used by stochastic depth
            state.optimizer.zero_grad(set_to_none=True)

            for part in range(batch_plan.accumulation_steps):
                with timer.waiting():
                    batch = next(batches)
                with _no_gradient_sync(network, is_last=part + 1 == batch_plan.accumulation_steps):
                    loss = task.loss(network, batch, (epoch, step, part))
                    torch.autograd.backward(state.scaler.scale(loss / batch_plan.accumulation_steps))
                sums[0] += loss.detach()
                sums[1] += (batch[-1] > 0).sum()

            optimizer_step(state.optimizer, state.scaler, clip_norm=recipe.optimizer.clip_norm)
            if state.ema is not None:
                state.ema.update(state.model)
            progress.step = step + 1

            reports = timer.is_due()
            if reports or group.device.type == "cpu":  # on a GPU, reading the loss would wait for the step
                _require_finite(loss.item(), "training", f"in epoch {epoch}, step {step + 1}")
            if reports:
                yield _step_progress(timer, progress.step - first_step, loss.item(), rate, state, context)

        train_s, (loss_sum, unreadable) = timer.train_s, group.all_reduce(sums).tolist()
        train_loss = loss_sum / (batch_plan.steps * batch_plan.accumulation_steps * group.size)
        _require_finite(train_loss, "training", f"in epoch {epoch}")
        task.require_training(batch_plan.steps * batch_plan.batch_size, int(unreadable))
        val, ema = _validated(state, context)
        done = FullScaleEpoch(
            epoch=epoch,
            epochs=recipe.intervals,
            steps=epoch * batch_plan.steps,
            train_loss=train_loss,
            lr=rate,
            train_s=train_s,
            wall_s=timer.train_s,
            images_per_s=batch_plan.steps * batch_plan.batch_size / train_s,
            waiting=timer.waiting_s / train_s,
            unreadable=int(unreadable),
            workers=group.size,
            val=val,
            ema=ema,
        )
        done = state.close_epoch(done)
        _save(state, context)  # before the best weights, which can be written again from the state
        if done.is_best and group.is_main:
            keep_best(state, context)
        saved = time.monotonic()
        yield done


def _sums_on_main(sums: list[float], group: ProcessGroup) -> Tensor:
    """The sums of all workers so far, on rank 0; zeros on the other ranks."""
    return torch.tensor(sums if group.is_main else [0.0] * len(sums), dtype=torch.float64, device=group.device)


def _no_gradient_sync(network: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
    """Context that skips gradient synchronization, except for the last micro-batch of a step."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not is_last else nullcontext()


def _validated(state: TrainingState, context: TrainingContext) -> tuple[Scores | None, Scores | None]:
    """Validate the network and its moving average, with the buffers of rank 0."""
    for model in (state.model, *([] if state.ema is None else [state.ema.module])):
        context.group.broadcast_buffers(model)
    val = context.task.validate(state.model)
    if val is None:
        _require_finite_weights(state)
        return None, None
    _require_finite(val.metrics.get("loss", 0.0), "validation", f"after epoch {state.progress.epoch}")
    return val, None if state.ema is None else context.task.validate(state.ema.module)


def _require_finite(loss: float, kind: str, place: str) -> None:
    if not math.isfinite(loss):
        raise Diverged(f"the {kind} loss is {loss} {place}")


def _require_finite_weights(state: TrainingState) -> None:
    """Raise `Diverged` for weights that are not finite, which no validation would detect."""
    for model in (state.model, *([] if state.ema is None else [state.ema.module])):
        counts = nonfinite_entries(model.state_dict())
        if counts:
            place = f"after epoch {state.progress.epoch}"
            raise Diverged(f"weights must be finite {place}; {count_nonfinite(counts)}")


def keep_best(state: TrainingState, context: TrainingContext) -> None:
    """Write the better weights of the last epoch: of the network or of its moving average."""
    job, (model, model_name) = context.job, state.best_of_epoch()
    context.task.save(job.best, model, f"{job.run.id}, {model_name}{epoch_suffix(state.epochs[-1].epoch)}")


def epoch_suffix(epoch: int) -> str:
    """Suffix of the `source` of the best weights."""
    return f" after epoch {epoch}"


def _save(state: TrainingState, context: TrainingContext) -> None:
    if context.group.is_main:
        run = context.job.run
        state.save(context.job.checkpoints, run.id, context.group.size, run.recipe.keep_last)


def _step_progress(
    timer: Timer, steps: int, loss: float, rate: float, state: TrainingState, context: TrainingContext
) -> StepProgress:
    """The progress within an epoch; `steps` counts those of this epoch in this process."""
    progress, batch_plan, epochs = state.progress, context.batch_plan, context.job.run.recipe.intervals
    step_s = timer.elapsed_s / steps
    last = state.epochs[-1] if state.epochs else None
    validation_s = 0.0 if last is None else last.wall_s - last.train_s
    epochs_left = epochs - progress.epoch
    return StepProgress(
        epoch=progress.epoch,
        step=progress.step,
        steps=batch_plan.steps,
        loss=loss,
        lr=rate,
        images_per_s=batch_plan.batch_size / step_s,
        waiting=timer.waiting_share,
        left_s=(epochs_left * batch_plan.steps + batch_plan.steps - progress.step) * step_s
        + (epochs_left + 1) * validation_s,
    )
