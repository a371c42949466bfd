"""How `harness train` and `harness downstream` launch a training at full scale: options, job, estimate, training."""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console, RenderableType

from harness.cli.arguments import workspace_of
from harness.config.recipes.full_scale import FullScaleRecipe
from harness.config.recipes.loading import override_recipe
from harness.data.batching import BatchPlan, split_cpus
from harness.data.data_record import DataRecord
from harness.data.image_sources import ExpectedImages
from harness.errors import RunFailure, Stopped
from harness.executors.base import WorkerRequest
from harness.executors.full_scale import measure_step, train_full_scale
from harness.executors.interrupt import EXIT_CODE, Interrupt
from harness.models.spec.network import NetworkSpec
from harness.report.console import is_live, make_console
from harness.report.full_scale import estimate_line, make_full_scale_view
from harness.storage import FullScaleRow
from harness.storage.full_run_recorder import FullScaleRunRecorder, recording_run
from harness.system.command_line import resume_command
from harness.system.fingerprint import short_id
from harness.system.machine import available_cpus
from harness.training.full_scale.folder import is_started
from harness.training.full_scale.job import FullScaleJob, FullScaleRun
from harness.training.full_scale.records import has_state, prepare_folder, require_unchanged_data, training_lock

FAILED = 1
RECIPE_OPTIONS = ("epochs", "iterations", "validate_every", "precision", "micro_batch", "seed")
"""Keys of a recipe that are overridden by options of the same names."""

R = TypeVar("R", bound=FullScaleRecipe)


@dataclass(frozen=True, slots=True)
class PlannedTraining:
    """A training that a command has prepared; the functions are called only where their result is needed."""

    job: FullScaleJob[Any]
    request: WorkerRequest
    view: RenderableType
    """What is trained, and its cost."""
    check_images: Callable[[], Sequence[str]]
    """Notes on the images. Raises `DataError` for images that cannot be trained on."""
    estimate: Callable[[], str]
    """The estimated time as one line, from a measured step."""
    data_record: Callable[[], DataRecord]
    row: Callable[[DataRecord], FullScaleRow]
    """Its row in the results database."""
    finish: Callable[[Console], None] = lambda _: None
    """What follows after the last epoch."""


def launch(args: Namespace, planned: PlannedTraining) -> int:
    """Print what is trained, its cost and time, then train it unless it is a dry run; returns the exit code."""
    job, console = planned.job, make_console()
    notes = planned.check_images() if args.fresh or not is_started(job.folder) else ()
    console.print(planned.view)
    for note in notes:
        console.print(f"images: {note}", markup=False, highlight=False, soft_wrap=True)
    if (args.fresh or not has_state(job)) and planned.request.address is None:
        console.print(planned.estimate())
    if args.dry_run and not is_started(job.folder):
        return 0
    data = planned.data_record()
    if not args.fresh:
        require_unchanged_data(job.folder, data)
    if args.dry_run:
        return 0
    with training_lock(job.folder):
        prepare_folder(job, data, is_fresh=args.fresh)
        code = _train(job, planned.request, recording_run(planned.row(data), workspace_of(args).database))
        if code == 0:
            planned.finish(console)
        return code


def _train(
    job: FullScaleJob[Any], request: WorkerRequest, keeping: AbstractContextManager[FullScaleRunRecorder]
) -> int:
    """Train, show the progress and record it; returns the exit code."""
    console = make_console()
    try:
        with (
            Interrupt() as interrupt,
            keeping as recorder,
            make_full_scale_view(console, is_live=is_live(console)) as view,
        ):
            interrupt.is_busy = lambda: True  # `is_asked` is checked before every step
            for record in train_full_scale(job, request, should_stop=lambda: interrupt.is_asked):
                recorder.record(record)
                view.show(record)
    except Stopped as stopped:
        print(f"{stopped}; nothing is lost. To resume:\n  {resume_command()}", file=sys.stderr)
        return EXIT_CODE
    except RunFailure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return FAILED
    print(f"trained; weights, states, epochs.jsonl and TensorBoard files are in {job.folder}")
    return 0


def make_job(
    args: Namespace, spec: NetworkSpec, recipe: R, weights: Path | None, *, parent: str, name: str
) -> FullScaleJob[R]:
    """The job of a network as it is trained, in a folder of its own below `parent` in the results folder."""
    from harness.models.weights import sha256

    run = FullScaleRun(spec, recipe, None if weights is None else sha256(weights))
    folder = args.results.absolute() / parent / f"{name}-{short_id(run.id)}"
    return FullScaleJob(run, folder, weights=weights, **job_resources(args))


def job_resources(args: Namespace) -> dict[str, Any]:
    """The fields of a job that do not change its results: cache, image folder, data loaders and threads."""
    loaders, threads = _worker_resources(args)
    return {
        "cache": args.results.absolute() / "data",
        "root": None if args.data is None else args.data.expanduser().absolute(),
        "loaders": loaders,
        "threads": threads,
    }


def worker_request(args: Namespace) -> WorkerRequest:
    """The request for the workers that the command line asks for."""
    import torch

    is_here = args.ray_address is None
    return WorkerRequest(
        cpus=max(1, available_cpus() // _workers(args)) if is_here else sum(_worker_resources(args)),
        gpus=0.0 if is_here and not torch.cuda.is_available() else 1.0,
        workers=_workers(args),
        address=args.ray_address,
    )


def _worker_resources(args: Namespace) -> tuple[int, int]:
    """The number of data-loading processes and of threads of a worker."""
    import torch

    cpus = 1 if args.ray_address is not None else max(1, available_cpus() // _workers(args))
    return split_cpus(cpus, args.loaders, has_gpu=torch.cuda.is_available())


def _workers(args: Namespace) -> int:
    """The number of workers that the command line asks for; else one per GPU of this machine, or a single one."""
    import torch

    workers: int = args.workers or max(1, torch.cuda.device_count())
    return workers


def with_options(recipe: R, args: Namespace, named: str) -> R:
    """The recipe with the options of the command line applied."""
    return override_recipe(recipe, {name: getattr(args, name, None) for name in RECIPE_OPTIONS}, named)


def estimate(job: FullScaleJob[Any], batch_plan: BatchPlan, task: Any, expected: ExpectedImages | None = None) -> str:
    """The estimated time of a training, from a measured step, as one line."""
    return estimate_line(measure_step(job, batch_plan, task), batch_plan, job.run.recipe.intervals, expected)
