"""A training at full scale: options, job, estimate and launch, and the action of `harness train`."""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from rich.console import Console, RenderableType

from harness.analysis.network_forms import NetworkUse
from harness.analysis.networks import NetworkRef
from harness.cli.arguments import named_network, workspace_of
from harness.config.recipes.full_scale import ClassificationRecipe, FullScaleRecipe, adapt_to_data
from harness.config.recipes.loading import load_classification_recipe, override_recipe, recipe_names
from harness.data.batching import BatchPlan, split_cpus
from harness.data.data_record import DataRecord
from harness.data.image_sources import (
    ExpectedImages,
    check_classification,
    count_classes,
    count_images,
    expected_images,
    is_data_present,
    record_classification,
)
from harness.errors import RunFailure, Stopped, UserError
from harness.executors.base import WorkerRequest
from harness.executors.full_scale import measure_step, open_task, train_full_scale
from harness.executors.interrupt import EXIT_CODE, Interrupt
from harness.models.spec.network import NetworkSpec
from harness.report.console import is_live, make_console, make_status_line
from harness.report.full_scale import estimate_line, job_view, show_message
from harness.storage import FullScaleRow
from harness.storage.full_run_recorder import FullScaleRunRecorder, full_scale_row, recording_run
from harness.system.command_line import resume_command
from harness.system.fingerprint import short_id
from harness.system.machine import available_cpus
from harness.training.full_scale.folder import is_started
from harness.training.full_scale.job import FullScaleJob, FullScaleRun
from harness.training.full_scale.records import has_state, prepare_folder, require_unchanged_data, training_lock

FAILED = 1
RECIPE_OPTIONS = ("epochs", "iterations", "validate_every", "precision", "micro_batch", "seed")
"""Keys of a recipe that are overridden by options of the same names."""
FULL_SCALE_FOLDER = "full_scale"
"""Name of the folder of all trainings of `harness train`, in the results folder."""

R = TypeVar("R", bound=FullScaleRecipe)


def train(args: Namespace, use: NetworkUse) -> int:
    """Train a network at full scale; returns the exit code."""
    network_ref = named_network(args, use)
    recipe = _recipe(args, network_ref)
    if network_ref.proxy_choices:
        note = f"{network_ref.proxy_choices} is of the proxy and not applied: the recipe at full scale has its own"
        make_console().print(note, markup=False, highlight=False, soft_wrap=True)
    if args.dry_run and not is_data_present(recipe.data.dataset, args.data):
        return _dry_run(args, network_ref, recipe)
    _require_weights(args, recipe)
    job, request = _job(args, network_ref, recipe, count_classes(recipe, args.data)), worker_request(args)
    batch_plan = BatchPlan.of(recipe, count_images(recipe, args.data), request.workers or 1)
    planned = PlannedTraining(
        job,
        request,
        job_view(job, batch_plan, network_ref.name),
        check_images=lambda: check_classification(recipe, job.root, job.cache),
        estimate=lambda: _estimate(args, job, batch_plan),
        data_record=lambda: record_classification(recipe, job.root, job.cache),
        row=lambda data: full_scale_row(
            job,
            data,
            network_ref.name,
            args.recipe or network_ref.recipe or "",
            study=network_ref.study,
            trial=network_ref.trial,
        ),
    )
    return launch(args, planned)


def _estimate(args: Namespace, job: FullScaleJob[ClassificationRecipe], batch_plan: BatchPlan) -> str:
    """The estimated time as one line; a dry run writes no prepared data set."""
    with TemporaryDirectory() if args.dry_run else nullcontext(job.cache) as cache:
        return estimate(job, batch_plan, open_task(replace(job, cache=Path(cache), loaders=0)))


def _dry_run(args: Namespace, network_ref: NetworkRef, recipe: ClassificationRecipe) -> int:
    """Print what would be trained on images that are not here, and the estimated time, measured on noise images."""
    from harness.training.full_scale.step_time import noise_classification

    expected = expected_images(recipe.data, recipe.data.dataset)
    job, request = _job(args, network_ref, recipe, expected.classes or network_ref.spec.classes), worker_request(args)
    images = expected.images or recipe.batch_size
    batch_plan, console = BatchPlan.of(recipe, images, request.workers or 1), make_console()
    console.print(job_view(job, batch_plan, network_ref.name, expected))
    if request.address is None:
        job = replace(job, loaders=0)
        console.print(estimate(job, batch_plan, open_task(job, partial(noise_classification, images=images)), expected))
    lacks_weights = recipe.needs_weights if args.weights is None else not args.weights.is_file()
    if lacks_weights:
        console.print("weights: not checked; to train, `--weights` must name the file that the training starts from")
    return 0


def _recipe(args: Namespace, network_ref: NetworkRef) -> ClassificationRecipe:
    """The recipe of the command line, else of the study, with the options of the command line applied."""
    named = args.recipe or network_ref.recipe
    if named is None:
        names = ", ".join(recipe_names())
        raise UserError("`--recipe` must name a recipe if no study does", remedy=f"Recipes: {names}.")
    return with_options(load_classification_recipe(named), args, named)


def _require_weights(args: Namespace, recipe: ClassificationRecipe) -> None:
    """Raise `UserError` if the weights that the training starts from are not given or do not exist."""
    if recipe.needs_weights and args.weights is None:
        rule = "`--weights` must name a weights file for this recipe, which starts from one"
        raise UserError(rule, value=recipe.about)
    if args.weights is not None and not args.weights.is_file():
        raise UserError("`--weights` must be an existing file", value=str(args.weights))


def _job(
    args: Namespace, network_ref: NetworkRef, recipe: ClassificationRecipe, classes: int
) -> FullScaleJob[ClassificationRecipe]:
    """The job of the network, adapted to the images."""
    weights = args.weights.absolute() if args.weights is not None and args.weights.is_file() else None
    spec = adapt_to_data(network_ref.spec, recipe, classes)
    return make_job(args, spec, recipe, weights, parent=FULL_SCALE_FOLDER, name=network_ref.name)


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
            make_status_line(console, is_live=is_live(console)) as status_line,
        ):
            interrupt.is_busy = lambda: True  # `is_asked` is checked before every step
            for record in train_full_scale(job, request, should_stop=lambda: interrupt.is_asked):
                recorder.record(record)
                show_message(record, status_line)
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
