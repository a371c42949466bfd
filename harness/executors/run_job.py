"""Execution of one run in a worker, from start to end, as a generator of plain records.

The last record is always an `Ended`, also after an error; tracebacks go to the run's log.
"""

import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch

from harness.config.measures import CHANCE_TOP1, TRAIN_IMAGES, VAL_IMAGES, is_of_machine
from harness.config.recipes.proxy import ProxyRecipe
from harness.data import Dataset, load, require_same_digest
from harness.errors import HarnessError, Stopped, TimedOut, cause_of
from harness.measures import initial_measures_of, machine_measures_of, measures_of
from harness.measures.base import Measure, TrainedRun
from harness.models.build import build
from harness.system.device_slot import computing, computing_each
from harness.system.machine import keep_freed_memory
from harness.training.checkpoint import Checkpoint
from harness.training.device import environment_of, place_network, require_precision, started_record
from harness.training.fit import fit
from harness.training.run import DataNote, Ended, Job, Measured, Record, RunState, state_after


def run_job(job: Job, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Record]:
    """Train and measure the job's network: `Started`, an `Epoch` each, `Measured`..., and one `Ended` in every case.

    `should_stop` is called before every training step; a run that was stopped or timed out resumes after its last epoch
    when it is executed again. A transfer has no checkpoint: if stopped, it starts again after the last epoch.
    """
    start = time.monotonic()

    def check() -> None:
        if should_stop():
            raise Stopped("stopped by the driver")
        if time.monotonic() - start > 60 * job.minutes:
            raise TimedOut(f"the run took longer than `resources.minutes_per_run`, {job.minutes:g}")

    try:
        yield from _measure_again(job, check) if job.only_times else _train_and_measure(job, check)
    except Exception as error:
        _log(job, traceback.format_exc())
        yield Ended(state_after(error), wall_s=time.monotonic() - start, cause=cause_of(error))
    else:
        yield Ended(RunState.COMPLETE, wall_s=time.monotonic() - start)


def _train_and_measure(job: Job, check: Callable[[], None]) -> Iterator[Record]:
    """Train and measure; raises an error for everything that ends the run early."""
    run, device = job.run, _prepare(job)
    require_precision(run.recipe.precision, device)
    torch.manual_seed(run.training_seed)
    computed_by = environment_of(run.recipe, device, job.cpus)
    with computing(device):
        model = build(run.spec)
        checkpoint = Checkpoint.open(
            job.checkpoint, run.id, epochs=run.recipe.epochs, model=model, environment=computed_by
        )
    if checkpoint.is_of_another_environment and not job.resumes_any:
        checkpoint.set_aside(job.replaced)
    notes = () if checkpoint.note is None else (checkpoint.note,)
    first = len(checkpoint.epochs) + 1
    started = started_record(device, job.cpus, epochs=run.recipe.epochs, first_epoch=first, environment=computed_by)
    yield replace(started, earlier=checkpoint.earlier, notes=notes)
    for note in notes:
        _log(job, f"{note}\n")
    dataset = load(run.recipe, job.data_cache, run.seed)
    require_same_digest(dataset.info, run.data, run.recipe)
    yield from _described(job, dataset)
    untrained = TrainedRun(model, dataset, run.recipe, torch.device("cpu"), job.times)
    yield from _measured(job, untrained, check, initial_measures_of(run.recipe))
    seed = run.training_seed
    epochs = fit(model, dataset, run.recipe, seed=seed, device=device, checkpoint=checkpoint, check=check)
    yield from computing_each(epochs, device)
    yield from validation_baseline(dataset, run.recipe)
    trained = TrainedRun(model.eval(), dataset, run.recipe, device, job.times)
    yield from _measured(job, trained, check, measures_of(run.recipe))
    if run.recipe.transfer is not None:
        from harness.training.transfer import transfer  # loads a library of heads, which only these runs need

        learned = transfer(model, run.spec, dataset, run.recipe, seed=seed, device=device, check=check)
        for name, value in computing_each(learned, device):
            yield Measured(name, value)


def _measure_again(job: Job, check: Callable[[], None]) -> Iterator[Record]:
    """Measure the times of a complete run again, with its stored weights, or the initial ones if it has no training."""
    run, device = job.run, _prepare(job)
    computed_by = environment_of(run.recipe, device, job.cpus)
    yield started_record(device, job.cpus, epochs=run.recipe.epochs, environment=computed_by)
    torch.manual_seed(run.training_seed)
    model = build(run.spec)
    if run.recipe.epochs > 0:
        checkpoint = Checkpoint.open(job.checkpoint, run.id, epochs=run.recipe.epochs, model=model)
        if len(checkpoint.epochs) != run.recipe.epochs:
            raise HarnessError(checkpoint.note or f"no weights of the last epoch are kept ({job.checkpoint})")
        checkpoint.restore_model(model)
    place_network(model, run.recipe, device)
    dataset = load(run.recipe, job.data_cache, run.seed)
    require_same_digest(dataset.info, run.data, run.recipe)
    trained = TrainedRun(model.eval(), dataset, run.recipe, device, job.times)
    for measured in _measured(job, trained, check, machine_measures_of(run.recipe)):
        if is_of_machine(measured.name):
            yield measured


def _prepare(job: Job) -> torch.device:
    """Set this process up for a job; returns the device that it computes on."""
    keep_freed_memory()
    torch.set_num_threads(job.cpus)
    return torch.device("cuda" if job.gpus > 0 and torch.cuda.is_available() else "cpu")


def _described(job: Job, dataset: Dataset) -> Iterator[Record]:
    """Records that describe the data: notes about the data set, and the number of training images read from disk."""
    for note in dataset.notes:
        _log(job, f"{note}\n")
        yield DataNote(note)
    if job.run.data is not None:
        yield Measured(TRAIN_IMAGES, float(len(dataset.train)))


def validation_baseline(dataset: Dataset, recipe: ProxyRecipe) -> Iterator[Measured]:
    """The number of validation images of the last epoch, and the accuracy, in percent, of the best constant answer."""
    if recipe.epochs > 0:
        labels = dataset.val.labels
        yield Measured(VAL_IMAGES, float(len(labels)))
        yield Measured(CHANCE_TOP1, 100.0 * float(np.bincount(labels).max()) / len(labels))


def _measured(
    job: Job, trained: TrainedRun, check: Callable[[], None], measures: Iterable[Measure]
) -> Iterator[Measured]:
    """Yield the metrics of these measures; one that is not finite is written to the log instead."""
    for measure in measures:
        check()
        with computing(trained.device):  # a measure of times reserves the device for itself
            measured = list(measure(trained))
        for name, value in measured:
            if math.isfinite(value):
                yield Measured(name, value)
            else:
                _log(job, f"{name} is {value}, and left out\n")


def _log(job: Job, text: str) -> None:
    """Append to the run's own log."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as file:
        file.write(text)
