"""Worker of a training at full scale: opens the data, resumes the state, trains, and writes logs and weights."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from harness.data.batching import BatchPlan
from harness.models.activation_checkpointing import enable_checkpointing
from harness.models.weights.files import read_metadata
from harness.system.device_slot import computing, computing_each
from harness.system.machine import keep_freed_memory
from harness.training.device import place_network, process_environment, started_record
from harness.training.full_scale.folder import WEIGHTS
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.loop import TrainingContext, epoch_suffix, fit_full_scale, keep_best
from harness.training.full_scale.messages import FullScaleMessage, Message, open_logger
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.full_scale.records import record_environment
from harness.training.full_scale.state import TrainingState, UnusableFile, latest_state
from harness.training.optim import build_full_scale_optimizer
from harness.training.tasks import TASKS


def run_worker(
    job: FullScaleJob[Any], group: ProcessGroup, *, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[FullScaleMessage]:
    """Train, from the newest checkpoint if there is one; rank 0 also writes checkpoints, weights and logs.

    Raises `UserError` for a training that is not possible, and `RunFailure` for one that ends early.
    """
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    with computing(is_main=group.is_main):
        task = TASKS[job.run.recipe.task](job, group)
        context = TrainingContext(job, task, BatchPlan.of(job.run.recipe, task.images, group.size), group)
        model, message = task.build()
        model = prepare_model(model, context)
    if message is not None:
        yield message
    state = _state(model, context)
    yield from _resumed(state, context)
    with open_logger(job.folder, state.epochs) if group.is_main else nullcontext() as log:
        epoch, rounds = state.progress.epoch, job.run.recipe.intervals
        environment = process_environment(group.device, precision=job.run.recipe.precision, threads=job.threads)
        if group.is_main and epoch <= rounds:  # of a complete training, nothing is computed here
            is_resumed = epoch > 1 or state.progress.step > 0
            yield from record_environment(job.folder, environment, epoch, is_resumed=is_resumed)
        yield started_record(group.device, job.threads, epochs=rounds, first_epoch=epoch, environment=environment)
        records = fit_full_scale(_wrap_model(model, job, group), state, context, should_stop=should_stop)
        for record in computing_each(records, group.device, is_main=group.is_main):
            if log is not None:
                log.log(record)
            yield record
    if group.is_main:
        _write_last_weights(state, context)


def prepare_model(model: nn.Module, context: TrainingContext) -> nn.Module:
    """The model on its device, with the recipe's checkpointing, synchronized batch norms and memory format."""
    run, group = context.job.run, context.group
    if run.recipe.checkpointing:
        enable_checkpointing(model.get_submodule(context.task.backbone), run.spec.family)
    if group.size > 1 and group.device.type == "cuda" and run.recipe.sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return place_network(model, run.recipe, group.device)


def _state(model: nn.Module, context: TrainingContext) -> TrainingState:
    run = context.job.run
    scaler = torch.amp.GradScaler(context.group.device.type, enabled=run.recipe.precision == "float16")
    ema = None if run.recipe.ema is None else ModelEmaV3(model, decay=run.recipe.ema)
    optimizer = build_full_scale_optimizer(model, run.spec, run.recipe, context.task.backbone)
    return TrainingState(model, optimizer, scaler, ema)


def _resumed(state: TrainingState, context: TrainingContext) -> Iterator[Message]:
    """Load the newest checkpoint that can be used into the state; yields messages about it.

    Raises `UserError` for the state of another network.
    """
    job, group = context.job, context.group
    saved, unusable = latest_state(
        job.checkpoints, job.run.id, intervals=job.run.recipe.intervals, steps=context.batch_plan.steps
    )
    yield from (Message(f"warning: checkpoint not used: {file.reason} ({file.path})") for file in unusable)
    if saved is None:
        if unusable:
            yield Message("warning: no state of this training can be used; it starts again")
            _discard_unusable(unusable, group)
        return
    state.restore(saved)
    _discard_unusable(unusable, group)
    if group.is_main:
        yield from _ensure_best_weights(state, context)
    if saved.progress.epoch > job.run.recipe.intervals:
        yield Message("trained to its last epoch already")
        return
    yield Message(f"resuming in epoch {saved.progress.epoch} after {saved.progress.step} steps, from {saved.path.name}")
    if saved.workers != group.size:
        yield Message(
            f"warning: there were {saved.workers} workers, and now there are {group.size}; "
            "each step has the same images, but batch statistics and mixing differ, so the result differs from that "
            "of an uninterrupted training"
        )


def _discard_unusable(unusable: list[UnusableFile], group: ProcessGroup) -> None:
    if group.is_main:
        for file in unusable:
            file.set_aside()


def _ensure_best_weights(state: TrainingState, context: TrainingContext) -> Iterator[Message]:
    """Ensure that the weights of the best epoch, which are written after that epoch's state, are there.

    They are written again if the state is the one at the end of that epoch; otherwise a warning is yielded.
    """
    done = [epoch.epoch for epoch in state.epochs if epoch.is_best]
    if not done or not state.epochs:
        return
    best, path = done[-1], context.job.best
    if read_metadata(path).get("source", "").endswith(epoch_suffix(best)):
        return
    if state.progress.epoch == best + 1 and state.progress.step == 0:
        keep_best(state, context)
        return
    yield Message(
        f"warning: {path.name} does not contain the weights of the best epoch, which is epoch {best}; "
        "they are written only after a better epoch, or by training again from the start (`--fresh`)"
    )


def _wrap_model(model: nn.Module, job: FullScaleJob[Any], group: ProcessGroup) -> nn.Module:
    """The network as the loop calls it: compiled if the recipe requires it, and distributed for several workers."""
    network: nn.Module = model
    if job.run.recipe.compile:
        network.compile()
    if group.size == 1:
        return network
    return DistributedDataParallel(network, device_ids=[group.device] if group.device.type == "cuda" else None)


def _write_last_weights(state: TrainingState, context: TrainingContext) -> None:
    """Write the weights after the last epoch, un-merged: they can be trained further, and merged at any time."""
    job, save = context.job, context.task.save
    last = f"{job.run.id}, epoch {job.run.recipe.intervals}"
    save(job.folder / WEIGHTS["last"], state.model, f"{last}, network")
    if state.ema is not None:
        save(job.folder / WEIGHTS["last-ema"], state.ema.module, f"{last}, moving average")
