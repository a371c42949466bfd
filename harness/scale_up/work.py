"""A worker's part of a training at full scale, from its images to the last epoch."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from harness.errors import UserError
from harness.machine import keep_freed_memory
from harness.network import build
from harness.network.checkpointing import enable_checkpointing
from harness.scale_up.images import open_pictures
from harness.scale_up.logs import logs
from harness.scale_up.loop import Course, fit_full
from harness.scale_up.optimiser import build_full_optimizer
from harness.scale_up.pace import Pace
from harness.scale_up.records import FullJob, FullRecord, Note
from harness.scale_up.state import State, newest
from harness.scale_up.team import Team
from harness.weights import read_weights, save_weights

LAST, LAST_EMA = "last.safetensors", "last_ema.safetensors"


def work(job: FullJob, team: Team, *, should_stop: Callable[[], bool] = lambda: False) -> Iterator[FullRecord]:
    """Train, from the newest checkpoint where there is one; the leader of the team also writes what is to be kept.

    Raises `UserError`s for what cannot be done, and `RunFailure`s for what ends a training early.
    """
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    recipe = job.run.recipe
    pictures = open_pictures(recipe, job.root, job.cache)
    course = Course(job, pictures, Pace.of(recipe, len(pictures.train.labels), team.size), team)
    model, note = _network(job, team)
    if note is not None:
        yield note
    state = _state(model, job, team)
    yield from _resumed(state, job, team)
    with logs(job.folder, state.epochs) if team.leads else nullcontext() as log:
        for record in fit_full(_wrapped(model, job, team), state, course, should_stop=should_stop):
            if log is not None:
                log.take(record)
            yield record
    if team.leads:
        _keep(state, job)


def _network(job: FullJob, team: Team) -> tuple[nn.Module, Note | None]:
    """The network on its device, with fresh weights or those of the job's file; and what is to be said of them."""
    run, note = job.run, None
    model = build(run.spec, seed=run.recipe.seed)
    if job.weights is not None:
        found = read_weights(job.weights, run.spec)
        if found.is_merged:
            raise UserError(
                "the weights must be in training form, whose batch norms and small kernels can be trained",
                value=str(job.weights),
                place="--weights",
            )
        own = model.state_dict()
        fitting = {name: value for name, value in found.entries.items() if value.shape == own[name].shape}
        model.load_state_dict(fitting, strict=False)
        if len(fitting) < len(own):
            note = Note(f"a fresh classifier for {run.spec.classes} classes; the weights are for {found.spec.classes}")
    if run.recipe.checkpointing:
        enable_checkpointing(model, run.spec.family)
    if team.size > 1 and team.device.type == "cuda" and run.recipe.sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    memory_format = torch.channels_last if run.recipe.channels_last else torch.contiguous_format
    return model.to(team.device).to(memory_format=memory_format), note


def _state(model: nn.Module, job: FullJob, team: Team) -> State:
    recipe = job.run.recipe
    scaler = torch.amp.GradScaler(team.device.type, enabled=recipe.precision == "float16")
    ema = None if recipe.ema is None else ModelEmaV3(model, decay=recipe.ema)
    return State(model, build_full_optimizer(model, job.run.spec, recipe), scaler, ema)


def _resumed(state: State, job: FullJob, team: Team) -> Iterator[Note]:
    """Put the state where the newest checkpoint has it."""
    kept = newest(job.checkpoints, job.run.id)
    if kept is None:
        return
    state.restore(kept)
    if kept.progress.epoch > job.run.recipe.epochs:
        yield Note("trained to its last epoch already")
        return
    yield Note(f"going on in epoch {kept.progress.epoch} after {kept.progress.step} steps, from {kept.path.name}")
    if kept.workers != team.size:
        yield Note(
            f"warning: there were {kept.workers} workers, and now there are {team.size}; "
            "each step sees the same images, but batch statistics and mixing differ, and so the result does from that "
            "of an undisturbed training"
        )


def _wrapped(model: nn.Module, job: FullJob, team: Team) -> nn.Module:
    """The network as the loop calls it."""
    network: nn.Module = model
    if job.run.recipe.compile:
        network.compile()
    if team.size == 1:
        return network
    return DistributedDataParallel(network, device_ids=[team.device] if team.device.type == "cuda" else None)


def _keep(state: State, job: FullJob) -> None:
    """Write the weights behind the last epoch, un-merged: they can be trained further, and be merged at any time."""
    last = f"{job.run.id}, epoch {job.run.recipe.epochs}"
    save_weights(job.folder / LAST, job.run.spec, state.model, f"{last}, network")
    if state.ema is not None:
        save_weights(job.folder / LAST_EMA, job.run.spec, state.ema.module, f"{last}, moving average")
