"""A worker's part of a training at full scale, from its images to the last epoch."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from harness.data.batching import Pace
from harness.models.activation_checkpointing import enable_checkpointing
from harness.models.weights.files import read_metadata
from harness.system.device_slot import computing, in_turn
from harness.system.machine import keep_freed_memory
from harness.training.device import process_environment, started
from harness.training.full_scale.environments import keep_environment
from harness.training.full_scale.folder import WEIGHTS
from harness.training.full_scale.job import FullJob
from harness.training.full_scale.logger import logs
from harness.training.full_scale.loop import Course, epoch_of, fit_full, keep_best
from harness.training.full_scale.messages import FullRecord, Note
from harness.training.full_scale.optim import build_full_optimizer
from harness.training.full_scale.process_group import Team
from harness.training.full_scale.state import Passed, State, newest
from harness.training.tasks import TASKS


def work(job: FullJob[Any], team: Team, *, should_stop: Callable[[], bool] = lambda: False) -> Iterator[FullRecord]:
    """Train, from the newest checkpoint where there is one; the leader of the team also writes what is to be kept.

    Raises `UserError`s for what cannot be done, and `RunFailure`s for what ends a training early.
    """
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    with computing(leads=team.leads):
        task = TASKS[job.run.recipe.task](job, team)
        course = Course(job, task, Pace.of(job.run.recipe, task.images, team.size), team)
        model, note = task.build()
        model = prepared(model, course)
    if note is not None:
        yield note
    state = _state(model, course)
    yield from _resumed(state, course)
    with logs(job.folder, state.epochs) if team.leads else nullcontext() as log:
        epoch, rounds = state.progress.epoch, job.run.recipe.rounds
        environment = process_environment(team.device, precision=job.run.recipe.precision, threads=job.threads)
        if team.leads and epoch <= rounds:  # of one that is trained to its end, nothing is computed here
            is_resumed = epoch > 1 or state.progress.step > 0
            yield from keep_environment(job.folder, environment, epoch, is_resumed=is_resumed)
        yield started(team.device, job.threads, epochs=rounds, first_epoch=epoch, environment=environment)
        records = fit_full(_wrapped(model, job, team), state, course, should_stop=should_stop)
        for record in in_turn(records, team.device, leads=team.leads):
            if log is not None:
                log.take(record)
            yield record
    if team.leads:
        _keep(state, course)


def prepared(model: nn.Module, course: Course) -> nn.Module:
    """The model as the recipe wants it computed, on its device."""
    run, team = course.job.run, course.team
    if run.recipe.checkpointing:
        enable_checkpointing(model.get_submodule(course.task.backbone), run.spec.family)
    if team.size > 1 and team.device.type == "cuda" and run.recipe.sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    memory_format = torch.channels_last if run.recipe.channels_last else torch.contiguous_format
    return model.to(team.device).to(memory_format=memory_format)


def _state(model: nn.Module, course: Course) -> State:
    run = course.job.run
    scaler = torch.amp.GradScaler(course.team.device.type, enabled=run.recipe.precision == "float16")
    ema = None if run.recipe.ema is None else ModelEmaV3(model, decay=run.recipe.ema)
    optimizer = build_full_optimizer(model, run.spec, run.recipe, course.task.backbone)
    return State(model, optimizer, scaler, ema)


def _resumed(state: State, course: Course) -> Iterator[Note]:
    """Put the state where the newest checkpoint has it that can be used.

    Raises `UserError` for the state of another network.
    """
    job, team = course.job, course.team
    kept, passed = newest(job.checkpoints, job.run.id, rounds=job.run.recipe.rounds, steps=course.pace.steps)
    yield from (Note(f"warning: checkpoint not used: {each.reason} ({each.path})") for each in passed)
    if kept is None:
        if passed:
            yield Note("warning: no state of this training can be used; it begins anew")
            _set_aside(passed, team)
        return
    state.restore(kept)
    _set_aside(passed, team)
    if team.leads:
        yield from _best_kept(state, course)
    if kept.progress.epoch > job.run.recipe.rounds:
        yield Note("trained to its last epoch already")
        return
    yield Note(f"going on in epoch {kept.progress.epoch} after {kept.progress.step} steps, from {kept.path.name}")
    if kept.workers != team.size:
        yield Note(
            f"warning: there were {kept.workers} workers, and now there are {team.size}; "
            "each step sees the same images, but batch statistics and mixing differ, and so the result does from that "
            "of an undisturbed training"
        )


def _set_aside(passed: list[Passed], team: Team) -> None:
    if team.leads:
        for each in passed:
            each.set_aside()


def _best_kept(state: State, course: Course) -> Iterator[Note]:
    """See that the weights of the best epoch are there, which are written after the state of that epoch.

    They are written again where the state is the one behind that epoch; else it is said that they are gone.
    """
    done = [each.epoch for each in state.epochs if each.is_best]
    if not done or not state.epochs:
        return
    best, path = done[-1], course.job.best
    if read_metadata(path).get("source", "").endswith(epoch_of(best)):
        return
    if state.progress.epoch == best + 1 and state.progress.step == 0:
        keep_best(state, course)
        return
    yield Note(
        f"warning: {path.name} does not hold the weights of the best epoch, which is epoch {best}; "
        "they come only with a better epoch, or with training anew (`--fresh`)"
    )


def _wrapped(model: nn.Module, job: FullJob[Any], team: Team) -> nn.Module:
    """The network as the loop calls it."""
    network: nn.Module = model
    if job.run.recipe.compile:
        network.compile()
    if team.size == 1:
        return network
    return DistributedDataParallel(network, device_ids=[team.device] if team.device.type == "cuda" else None)


def _keep(state: State, course: Course) -> None:
    """Write the weights behind the last epoch, un-merged: they can be trained further, and be merged at any time."""
    job, save = course.job, course.task.save
    last = f"{job.run.id}, epoch {job.run.recipe.rounds}"
    save(job.folder / WEIGHTS["last"], state.model, f"{last}, network")
    if state.ema is not None:
        save(job.folder / WEIGHTS["last-ema"], state.ema.module, f"{last}, moving average")
