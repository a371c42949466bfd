"""The action of `harness train`, training at full scale, and the functions that `harness downstream` shares with it."""

import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import Timeout
from pydantic import ValidationError
from rich.console import Console

from harness.analysis.winner import SHOWN_DIGITS, NetworkQuery, NetworkRef, resolve_network
from harness.cli.arguments import study_options, workspace_of
from harness.config.full_scale_network import adapt_to_data
from harness.config.recipes.full_scale import ClassificationRecipe, FullScaleRecipe
from harness.config.recipes.loading import load_classification_recipe, recipe_names
from harness.config.space import plain_fields
from harness.config.yaml_file import write_yaml
from harness.data.batching import BatchPlan, split_cpus
from harness.data.data_record import DataRecord
from harness.data.expected_images import ExpectedImages, expected_images, is_data_present
from harness.data.image_sources import check_classification, count_classes, count_images, record_classification
from harness.errors import RunFailure, Stopped, UserError
from harness.executors import WorkerRequest
from harness.executors.interrupt import EXIT_CODE, Interrupt
from harness.report.console import is_live, make_console
from harness.report.full_scale import estimate_line, job_view, make_full_scale_view
from harness.storage import FullScaleRow
from harness.storage.full_run_recorder import FullScaleRunRecorder, recording_run
from harness.system.command_line import resume_command
from harness.system.device_slot import computing
from harness.system.fingerprint import fingerprint
from harness.system.machine import available_cpus
from harness.training.full_scale.data_record import require_unchanged_data, write_data_record
from harness.training.full_scale.folder import NETWORK, RECIPE, STATE_PATTERN, is_started, lock_of
from harness.training.full_scale.job import FullScaleJob, FullScaleRun
from harness.training.full_scale.logger import read_epochs
from harness.training.full_scale.messages import FullScaleMessage

if TYPE_CHECKING:
    import torch

    from harness.training.full_scale.process_group import ProcessGroup

FULL_SCALE_FOLDER = "full_scale"
"""Name of the folder of all trainings at full scale, in the results folder."""
FAILED = 1
RECIPE_OPTIONS = ("epochs", "iterations", "validate_every", "precision", "micro_batch", "seed")
"""Keys of a recipe that are overridden by options of the same names."""

R = TypeVar("R", bound=FullScaleRecipe)


def train(args: Namespace) -> int:
    """Train a network at full scale; returns the exit code."""
    query = NetworkQuery(workspace_of(args), args.quick, args.trial, study_options(args))
    network_ref = resolve_network(args.network, query)
    recipe = _recipe(args, network_ref)
    if args.dry_run and not is_data_present(recipe.data.dataset, args.data):
        return _dry_run(args, network_ref, recipe)
    _require_weights(args, recipe)
    classes = count_classes(recipe, args.data)
    job, request = _job(args, network_ref, recipe, classes), worker_request(args)
    batch_plan = BatchPlan.of(recipe, count_images(recipe, args.data), request.workers or 1)
    console = make_console()
    notes = check_classification(recipe, job.root, job.cache) if args.fresh or not is_started(job.folder) else ()
    console.print(job_view(job, batch_plan, network_ref.name))
    show_notes(console, notes)
    if (args.fresh or is_not_started(job)) and request.address is None:
        with TemporaryDirectory() if args.dry_run else nullcontext(job.cache) as cache:
            console.print(estimate(job, batch_plan, open_task(replace(job, cache=Path(cache), loaders=0))))
    if args.dry_run and not is_started(job.folder):
        return 0
    data = record_classification(recipe, job.root, job.cache)
    if not args.fresh:
        require_unchanged_data(job.folder, data)
    if args.dry_run:
        return 0
    with training_lock(job.folder):
        prepare_folder(job, data, is_fresh=args.fresh)
        row = full_scale_row(job, data, network_ref.name, args.recipe or network_ref.recipe or "", network_ref)
        return train_job(job, request, recording_run(row, workspace_of(args).database))


def show_notes(console: Console, notes: Sequence[str]) -> None:
    """Print the notes of the check of the images."""
    for note in notes:
        console.print(f"images: {note}", markup=False, highlight=False, soft_wrap=True)


def _dry_run(args: Namespace, network_ref: NetworkRef, recipe: ClassificationRecipe) -> int:
    """Print what would be trained on images that are not here, and the estimated time."""
    expected = expected_images(recipe.data, recipe.data.dataset)
    job, request = _job(args, network_ref, recipe, expected.classes or network_ref.spec.classes), worker_request(args)
    images = expected.images or recipe.batch_size
    batch_plan, console = BatchPlan.of(recipe, images, request.workers or 1), make_console()
    console.print(job_view(job, batch_plan, network_ref.name, expected))
    if request.address is None:
        console.print(_estimate_of_noise(job, batch_plan, expected, images))
    if _lacks_weights(args, recipe):
        console.print("weights: not checked; to train, `--weights` must name the file that the training starts from")
    return 0


def _lacks_weights(args: Namespace, recipe: ClassificationRecipe) -> bool:
    """Whether the training starts from weights that are not here."""
    return recipe.needs_weights if args.weights is None else not args.weights.is_file()


def _estimate_of_noise(
    job: FullScaleJob[ClassificationRecipe], batch_plan: BatchPlan, expected: ExpectedImages, images: int
) -> str:
    """The estimated time of a training, measured on noise images, as one line."""
    from harness.training.full_scale.noise_images import noise_classification

    job = replace(job, loaders=0)
    return estimate(job, batch_plan, open_task(job, partial(noise_classification, images=images)), expected)


def _recipe(args: Namespace, network_ref: NetworkRef) -> ClassificationRecipe:
    """The recipe of the command line, else of the study, with the options of the command line applied."""
    named = args.recipe or network_ref.recipe
    if named is None:
        names = ", ".join(recipe_names())
        raise UserError("`--recipe` must name a recipe if no study does", remedy=f"Recipes: {names}.")
    return apply_options(load_classification_recipe(named), args, named)


def _require_weights(args: Namespace, recipe: ClassificationRecipe) -> None:
    """Raise `UserError` if the weights that the training starts from are not given or do not exist."""
    if recipe.needs_weights and args.weights is None:
        rule = "`--weights` must name a weights file for this recipe, which starts from one"
        raise UserError(rule, value=recipe.about)
    if args.weights is not None and not args.weights.is_file():
        raise UserError("`--weights` must be an existing file", value=str(args.weights))


def apply_options(recipe: R, args: Namespace, named: str) -> R:
    """The recipe with the options of the command line applied."""
    changes = {name: getattr(args, name, None) for name in RECIPE_OPTIONS}
    changes = {name: value for name, value in changes.items() if value is not None}
    try:
        return type(recipe).model_validate(recipe.model_dump(mode="json") | changes)
    except ValidationError as error:
        raise invalid_recipe_error(error, "recipe", named) from error


def invalid_recipe_error(error: ValidationError, what: str, place: str) -> UserError:
    """A `UserError` with the first thing that is wrong with a recipe changed by options."""
    first = error.errors(include_url=False)[0]
    fault = first["msg"].removeprefix("Value error, ")
    rule = f"the options must leave a valid {what}; {fault[:1].lower()}{fault[1:]}"
    return UserError(rule, place=".".join(map(str, first["loc"])) or place)


def _job(
    args: Namespace, network_ref: NetworkRef, recipe: ClassificationRecipe, classes: int
) -> FullScaleJob[ClassificationRecipe]:
    """The job: the run, its folder, its images and its resources."""
    from harness.models.weights import sha256

    weights = args.weights.absolute() if args.weights is not None and args.weights.is_file() else None
    digest = None if weights is None else sha256(weights)
    run = FullScaleRun(adapt_to_data(network_ref.spec, recipe, classes), recipe, digest)
    results = args.results.absolute()
    loaders, threads = worker_resources(args)
    return FullScaleJob(
        run=run,
        folder=results / FULL_SCALE_FOLDER / f"{network_ref.name}-{run.id[:SHOWN_DIGITS]}",
        cache=results / "data",
        root=None if args.data is None else args.data.expanduser().absolute(),
        weights=weights,
        loaders=loaders,
        threads=threads,
    )


def _workers(args: Namespace) -> int:
    """The number of workers that the command line asks for; else one per GPU of this machine, or a single one."""
    import torch

    workers: int = args.workers or max(1, torch.cuda.device_count())
    return workers


def worker_resources(args: Namespace) -> tuple[int, int]:
    """The number of data-loading processes and of threads of a worker."""
    import torch

    cpus = 1 if args.ray_address is not None else max(1, available_cpus() // _workers(args))
    return split_cpus(cpus, args.loaders, has_gpu=torch.cuda.is_available())


def worker_request(args: Namespace) -> WorkerRequest:
    """The request for the workers that the command line asks for."""
    import torch

    is_here = args.ray_address is None
    return WorkerRequest(
        cpus=max(1, available_cpus() // _workers(args)) if is_here else sum(worker_resources(args)),
        gpus=0.0 if is_here and not torch.cuda.is_available() else 1.0,
        workers=_workers(args),
        address=args.ray_address,
    )


def full_scale_row(
    job: FullScaleJob[Any], data: DataRecord, name: str, recipe: str, network_ref: NetworkRef | None = None
) -> FullScaleRow:
    """The training as a row of the results database; `network_ref` names the study and trial it comes from, if any.

    Several results folders may share a database: the same network and recipe on other data is another row.
    """
    run = job.run
    return FullScaleRow(
        id=fingerprint([run.id, data.dataset, data.classes, data.digest]),
        name=name,
        spec=run.spec,
        recipe=run.recipe.model_dump(mode="json"),
        recipe_name=Path(recipe).stem,
        recipe_fingerprint=run.recipe.fingerprint(),
        folder=job.folder,
        epochs=run.recipe.intervals,
        study=None if network_ref is None else network_ref.study,
        trial=None if network_ref is None else network_ref.trial,
        weights=run.weights,
    )


def train_job(
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
            for record in _records(job, request, interrupt):
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


def _records(job: FullScaleJob[Any], request: WorkerRequest, interrupt: Interrupt) -> Iterator[FullScaleMessage]:
    """The messages of the training: from this process for a single local worker, else from the first Ray worker."""
    if request.workers == 1 and request.address is None:
        from harness.training.full_scale.process_group import ProcessGroup
        from harness.training.full_scale.worker import run_worker

        return run_worker(job, ProcessGroup(device_for(job)), should_stop=lambda: interrupt.is_asked)
    from harness.executors.ray_train import train_with_ray

    return train_with_ray(job, request, should_stop=lambda: interrupt.is_asked)


def device_for(job: FullScaleJob[Any]) -> "torch.device":
    """The GPU if there is one, else the CPU. Raises `UserError` for a precision that a CPU does not support."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if job.run.recipe.precision == "float16":
        raise UserError("`precision: float16` needs a GPU", remedy="Take `--precision bfloat16` or float32.")
    return torch.device("cpu")


@computing()
def open_task(job: FullScaleJob[Any], make: Callable[[FullScaleJob[Any], "ProcessGroup"], Any] | None = None) -> Any:
    """The task in this process, with as many threads as a worker has: the recipe's, or the result of `make`."""
    import torch

    from harness.training.full_scale.process_group import ProcessGroup
    from harness.training.tasks import TASKS

    torch.set_num_threads(job.threads)
    return (make or TASKS[job.run.recipe.task])(job, ProcessGroup(device_for(job)))


def estimate(job: FullScaleJob[Any], batch_plan: BatchPlan, task: Any, expected: ExpectedImages | None = None) -> str:
    """The estimated time of a training, from a measured step, as one line."""
    from harness.training.full_scale.loop import TrainingContext
    from harness.training.full_scale.step_time import seconds_per_image

    return estimate_line(
        seconds_per_image(TrainingContext(job, task, batch_plan, task.team)),
        batch_plan,
        job.run.recipe.intervals,
        expected,
    )


def is_not_started(job: FullScaleJob[Any]) -> bool:
    """Whether there is no state to resume from."""
    return not any(job.checkpoints.glob(f"{STATE_PATTERN}*"))


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Lock the folder of a training. Raises `UserError` if another process has locked it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            "a training must run in one process at a time, and another process is running this one", place=str(folder)
        ) from error
    try:
        yield
    finally:
        lock.release()


def prepare_folder(job: FullScaleJob[Any], data: DataRecord, *, is_fresh: bool) -> None:
    """Write what is trained, and on which data, into the training's folder; another training is not overwritten.

    Raises `UserError` if the folder's training is on other data, or has completed epochs but no state.
    """
    if is_fresh:
        remove_training(job.folder)
    write_data_record(job.folder, data)
    done = read_epochs(job.folder)
    if done and is_not_started(job):
        raise UserError(
            f"a training of which {len(done)} epochs are done must have a state to be resumed from",
            place=str(job.checkpoints),
            remedy="Put its states back, choose another folder with `--results`, or start again with `--fresh`, which "
            "deletes its weights.",
        )
    write_description(job)


def remove_training(folder: Path) -> None:
    """Delete the folder of a training, if there is one."""
    if folder.is_dir():
        shutil.rmtree(folder)


def write_description(job: FullScaleJob[Any]) -> None:
    """Write network and recipe, with all defaults, as files that `harness train` can read."""
    job.folder.mkdir(parents=True, exist_ok=True)
    run = job.run
    texts: dict[str, dict[str, Any]] = {
        NETWORK: plain_fields(run.spec),
        RECIPE: run.recipe.model_dump(mode="json"),
    }
    for name, values in texts.items():
        (job.folder / name).write_text(write_yaml(values, f"Of the training {run.id}."), encoding="utf-8")
