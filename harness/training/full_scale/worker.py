"""A worker's part of a training at full scale, from its images to the last epoch."""

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
from harness.training.device import process_environment, started_record
from harness.training.full_scale.environments import record_environment
from harness.training.full_scale.folder import WEIGHTS
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.logger import open_logger
from harness.training.full_scale.loop import TrainingContext, epoch_suffix, fit_full_scale, keep_best
from harness.training.full_scale.messages import FullScaleMessage, Message
from harness.training.full_scale.optim import build_full_scale_optimizer
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.full_scale.state import TrainingState, UnusableFile, latest_state
from harness.training.tasks import TASKS


def run_worker(
    job: FullScaleJob[Any], team: ProcessGroup, *, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[FullScaleMessage]:
    """Train, from the newest checkpoint where there is one; the leader of the team also writes what is to be kept.

    Raises `UserError`s for what cannot be done, and `RunFailure`s for what ends a training early.
    """
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    with computing(is_main=team.is_main):
        task = TASKS[job.run.recipe.task](job, team)
        course = TrainingContext(job, task, BatchPlan.of(job.run.recipe, task.images, team.size), team)
        model, note = task.build()
        model = prepare_model(model, course)
    if note is not None:
        yield note
    state = _state(model, course)
    yield from _resumed(state, course)
    with open_logger(job.folder, state.epochs) if team.is_main else nullcontext() as log:
        epoch, rounds = state.progress.epoch, job.run.recipe.intervals
        environment = process_environment(team.device, precision=job.run.recipe.precision, threads=job.threads)
        if team.is_main and epoch <= rounds:  # of one that is trained to its end, nothing is computed here
            is_resumed = epoch > 1 or state.progress.step > 0
            yield from record_environment(job.folder, environment, epoch, is_resumed=is_resumed)
        yield started_record(team.device, job.threads, epochs=rounds, first_epoch=epoch, environment=environment)
        records = fit_full_scale(_wrap_model(model, job, team), state, course, should_stop=should_stop)
        for record in computing_each(records, team.device, is_main=team.is_main):
            if log is not None:
                log.log(record)
            yield record
    if team.is_main:
        _write_last_weights(state, course)


def prepare_model(model: nn.Module, course: TrainingContext) -> nn.Module:
    """The model as the recipe wants it computed, on its device."""
    run, team = course.job.run, course.group
    if run.recipe.checkpointing:
        enable_checkpointing(model.get_submodule(course.task.backbone), run.spec.family)
    if team.size > 1 and team.device.type == "cuda" and run.recipe.sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    memory_format = torch.channels_last if run.recipe.channels_last else torch.contiguous_format
    return model.to(team.device).to(memory_format=memory_format)


def _state(model: nn.Module, course: TrainingContext) -> TrainingState:
    run = course.job.run
    scaler = torch.amp.GradScaler(course.group.device.type, enabled=run.recipe.precision == "float16")
    ema = None if run.recipe.ema is None else ModelEmaV3(model, decay=run.recipe.ema)
    optimizer = build_full_scale_optimizer(model, run.spec, run.recipe, course.task.backbone)
    return TrainingState(model, optimizer, scaler, ema)


def _resumed(state: TrainingState, course: TrainingContext) -> Iterator[Message]:
    """Put the state where the newest checkpoint has it that can be used.

    Raises `UserError` for the state of another network.
    """
    job, team = course.job, course.group
    kept, passed = latest_state(
        job.checkpoints, job.run.id, intervals=job.run.recipe.intervals, steps=course.batch_plan.steps
    )
    yield from (Message(f"warning: checkpoint not used: {each.reason} ({each.path})") for each in passed)
    if kept is None:
        if passed:
            yield Message("warning: no state of this training can be used; it begins anew")
            _discard_unusable(passed, team)
        return
    state.restore(kept)
    _discard_unusable(passed, team)
    if team.is_main:
        yield from _ensure_best_weights(state, course)
    if kept.progress.epoch > job.run.recipe.intervals:
        yield Message("trained to its last epoch already")
        return
    yield Message(f"going on in epoch {kept.progress.epoch} after {kept.progress.step} steps, from {kept.path.name}")
    if kept.workers != team.size:
        yield Message(
            f"warning: there were {kept.workers} workers, and now there are {team.size}; "
            "each step sees the same images, but batch statistics and mixing differ, and so the result does from that "
            "of an undisturbed training"
        )


def _discard_unusable(passed: list[UnusableFile], team: ProcessGroup) -> None:
    if team.is_main:
        for each in passed:
            each.set_aside()


def _ensure_best_weights(state: TrainingState, course: TrainingContext) -> Iterator[Message]:
    """See that the weights of the best epoch are there, which are written after the state of that epoch.

    They are written again where the state is the one behind that epoch; else it is said that they are gone.
    """
    done = [each.epoch for each in state.epochs if each.is_best]
    if not done or not state.epochs:
        return
    best, path = done[-1], course.job.best
    if read_metadata(path).get("source", "").endswith(epoch_suffix(best)):
        return
    if state.progress.epoch == best + 1 and state.progress.step == 0:
        keep_best(state, course)
        return
    yield Message(
        f"warning: {path.name} does not hold the weights of the best epoch, which is epoch {best}; "
        "they come only with a better epoch, or with training anew (`--fresh`)"
    )


def _wrap_model(model: nn.Module, job: FullScaleJob[Any], team: ProcessGroup) -> nn.Module:
    """The network as the loop calls it."""
    network: nn.Module = model
    if job.run.recipe.compile:
        network.compile()
    if team.size == 1:
        return network
    return DistributedDataParallel(network, device_ids=[team.device] if team.device.type == "cuda" else None)


def _write_last_weights(state: TrainingState, course: TrainingContext) -> None:
    """Write the weights behind the last epoch, un-merged: they can be trained further, and be merged at any time."""
    job, save = course.job, course.task.save
    last = f"{job.run.id}, epoch {job.run.recipe.intervals}"
    save(job.folder / WEIGHTS["last"], state.model, f"{last}, network")
    if state.ema is not None:
        save(job.folder / WEIGHTS["last-ema"], state.ema.module, f"{last}, moving average")
