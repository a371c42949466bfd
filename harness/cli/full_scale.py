"""Trainings at full scale on the command line: what `harness train` does, and what `downstream` shares with it."""

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

from harness.analysis.winner import SHOWN_DIGITS, Sought, Target, find_target
from harness.cli.arguments import study_options, workspace_of
from harness.cli.interrupt import EXIT_CODE, Interrupt
from harness.config.full_scale_network import fitted
from harness.config.recipes.full_scale import FullRecipe, FullTraining
from harness.config.recipes.loading import load_full_recipe, recipe_names
from harness.config.space import plain_fields
from harness.config.yaml_file import write_yaml
from harness.data.batching import Pace, shared
from harness.data.data_record import DataRecord
from harness.data.expected_images import Expected, expected_images, is_here
from harness.data.image_sources import check_pictures, count_classes, count_images, record_pictures
from harness.errors import RunFailure, Stopped, UserError
from harness.executors import Crew
from harness.report.console import is_live, make_console
from harness.report.full_scale import estimate_line, full_view, job_view
from harness.storage import FullRow
from harness.storage.full_run_recorder import Recorder, recorded
from harness.system.command_line import typed_again
from harness.system.device_slot import computing
from harness.system.fingerprint import fingerprint
from harness.system.machine import available_cpus
from harness.training.full_scale.data_record import keep_data, require_same_data
from harness.training.full_scale.folder import NETWORK, RECIPE, STATES, is_started, lock_of
from harness.training.full_scale.job import FullJob, FullRun
from harness.training.full_scale.logger import read_epochs
from harness.training.full_scale.messages import FullRecord

if TYPE_CHECKING:
    import torch

    from harness.training.full_scale.process_group import Team

FOLDER = "full_scale"
"""Of all trainings at full scale, in the results folder."""
FAILED = 1
CHANGED = ("epochs", "iterations", "validate_every", "precision", "micro_batch", "seed")
"""Keys of a recipe that options of the same names change."""

R = TypeVar("R", bound=FullTraining)


def train(args: Namespace) -> int:
    """Train a network at full scale."""
    sought = Sought(workspace_of(args), args.quick, args.trial, study_options(args))
    target = find_target(args.network, sought)
    recipe = _recipe(args, target)
    if args.dry_run and not is_here(recipe.data.dataset, args.data):
        return _foresee(args, target, recipe)
    _require_weights(args, recipe)
    classes = count_classes(recipe, args.data)
    job, crew = _job(args, target, recipe, classes), crew_of(args)
    pace = Pace.of(recipe, count_images(recipe, args.data), crew.workers or 1)
    console = make_console()
    notes = check_pictures(recipe, job.root, job.cache) if args.fresh or not is_started(job.folder) else ()
    console.print(job_view(job, pace, target.name))
    show_notes(console, notes)
    if (args.fresh or is_new(job)) and crew.address is None:
        with TemporaryDirectory() if args.dry_run else nullcontext(job.cache) as cache:
            console.print(estimate(job, pace, opened(replace(job, cache=Path(cache), loaders=0))))
    if args.dry_run and not is_started(job.folder):
        return 0
    data = record_pictures(recipe, job.root, job.cache)
    if not args.fresh:
        require_same_data(job.folder, data)
    if args.dry_run:
        return 0
    with alone(job.folder):
        prepare_folder(job, data, is_fresh=args.fresh)
        row = row_of(job, data, target.name, args.recipe or target.recipe or "", target)
        return train_job(job, crew, recorded(row, workspace_of(args).database))


def show_notes(console: Console, notes: Sequence[str]) -> None:
    """Print what was seen of the images before the training."""
    for note in notes:
        console.print(f"images: {note}", markup=False, highlight=False, soft_wrap=True)


def _foresee(args: Namespace, target: Target, recipe: FullRecipe) -> int:
    """Print what would be trained on images that are not here, and about how long that takes."""
    expected = expected_images(recipe.data, recipe.data.dataset)
    job, crew = _job(args, target, recipe, expected.classes or target.spec.classes), crew_of(args)
    images = expected.images or recipe.batch_size
    pace, console = Pace.of(recipe, images, crew.workers or 1), make_console()
    console.print(job_view(job, pace, target.name, expected))
    if crew.address is None:
        console.print(_estimate_of_noise(job, pace, expected, images))
    if _lacks_weights(args, recipe):
        console.print("weights: not looked at; to train, `--weights` must name the file that the training begins from")
    return 0


def _lacks_weights(args: Namespace, recipe: FullRecipe) -> bool:
    """Whether the training begins from weights that are not here."""
    return recipe.needs_weights if args.weights is None else not args.weights.is_file()


def _estimate_of_noise(job: FullJob[FullRecipe], pace: Pace, expected: Expected, images: int) -> str:
    """How long it takes, in a line."""
    from harness.training.full_scale.noise_images import classification_of_noise

    job = replace(job, loaders=0)
    return estimate(job, pace, opened(job, partial(classification_of_noise, images=images)), expected)


def _recipe(args: Namespace, target: Target) -> FullRecipe:
    """The recipe of the command line, else of the study, with what the command line changes in it."""
    named = args.recipe or target.recipe
    if named is None:
        names = ", ".join(recipe_names())
        raise UserError("`--recipe` must name a recipe where no study does", remedy=f"Recipes: {names}.")
    return changed(load_full_recipe(named), args, named)


def _require_weights(args: Namespace, recipe: FullRecipe) -> None:
    """Raise `UserError` where the weights that the training begins from are not given, or not there."""
    if recipe.needs_weights and args.weights is None:
        rule = "`--weights` must name a file of weights for this recipe, which goes on from them"
        raise UserError(rule, value=recipe.about)
    if args.weights is not None and not args.weights.is_file():
        raise UserError("`--weights` must be an existing file", value=str(args.weights))


def changed(recipe: R, args: Namespace, named: str) -> R:
    """The recipe with what the command line changes in it."""
    changes = {name: getattr(args, name, None) for name in CHANGED}
    changes = {name: value for name, value in changes.items() if value is not None}
    try:
        return type(recipe).model_validate(recipe.model_dump(mode="json") | changes)
    except ValidationError as error:
        raise unsound(error, "recipe", named) from error


def unsound(error: ValidationError, what: str, place: str) -> UserError:
    """The first thing that is wrong with what options have made."""
    found = error.errors(include_url=False)[0]
    fault = found["msg"].removeprefix("Value error, ")
    rule = f"the options must leave a sound {what}; {fault[:1].lower()}{fault[1:]}"
    return UserError(rule, place=".".join(map(str, found["loc"])) or place)


def _job(args: Namespace, target: Target, recipe: FullRecipe, classes: int) -> FullJob[FullRecipe]:
    """The run with its folder and its means."""
    from harness.models.weights import sha256

    weights = args.weights.absolute() if args.weights is not None and args.weights.is_file() else None
    digest = None if weights is None else sha256(weights)
    run = FullRun(fitted(target.spec, recipe, classes), recipe, digest)
    results = args.results.absolute()
    loaders, threads = shares_of(args)
    return FullJob(
        run=run,
        folder=results / FOLDER / f"{target.name}-{run.id[:SHOWN_DIGITS]}",
        cache=results / "data",
        root=None if args.data is None else args.data.expanduser().absolute(),
        weights=weights,
        loaders=loaders,
        threads=threads,
    )


def _workers(args: Namespace) -> int:
    """As many as are asked for; else one for each GPU of this machine, or a single one."""
    import torch

    workers: int = args.workers or max(1, torch.cuda.device_count())
    return workers


def shares_of(args: Namespace) -> tuple[int, int]:
    """A worker's processes that read images, and its threads."""
    import torch

    cpus = 1 if args.ray_address is not None else max(1, available_cpus() // _workers(args))
    return shared(cpus, args.loaders, has_gpu=torch.cuda.is_available())


def crew_of(args: Namespace) -> Crew:
    """The workers that the command line asks for."""
    import torch

    is_here = args.ray_address is None
    return Crew(
        cpus=max(1, available_cpus() // _workers(args)) if is_here else sum(shares_of(args)),
        gpus=0.0 if is_here and not torch.cuda.is_available() else 1.0,
        workers=_workers(args),
        address=args.ray_address,
    )


def row_of(job: FullJob[Any], data: DataRecord, name: str, recipe: str, target: Target | None = None) -> FullRow:
    """The training as the results database has it; `target` is on whose advice it is trained.

    Several results folders may share a database: the same network and recipe on other data is another row.
    """
    run = job.run
    return FullRow(
        id=fingerprint([run.id, data.dataset, data.classes, data.digest]),
        name=name,
        spec=run.spec,
        recipe=run.recipe.model_dump(mode="json"),
        recipe_name=Path(recipe).stem,
        recipe_fingerprint=run.recipe.fingerprint(),
        folder=job.folder,
        epochs=run.recipe.rounds,
        study=None if target is None else target.study,
        trial=None if target is None else target.trial,
        weights=run.weights,
    )


def train_job(job: FullJob[Any], crew: Crew, keeping: AbstractContextManager[Recorder]) -> int:
    """Train, show and record; gives the exit code."""
    console = make_console()
    try:
        with (
            Interrupt() as interrupt,
            keeping as recorder,
            full_view(console, is_live=is_live(console)) as view,
        ):
            interrupt.is_busy = lambda: True  # it is asked for before every step
            for record in _records(job, crew, interrupt):
                recorder.take(record)
                view.show(record)
    except Stopped as stopped:
        print(f"{stopped}; nothing is lost. To go on where it was:\n  {typed_again()}", file=sys.stderr)
        return EXIT_CODE
    except RunFailure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return FAILED
    print(f"trained; weights, states, epochs.jsonl and TensorBoard's files are in {job.folder}")
    return 0


def _records(job: FullJob[Any], crew: Crew, interrupt: Interrupt) -> Iterator[FullRecord]:
    """From this process where one worker is all that there is; else from the first worker of Ray Train."""
    if crew.workers == 1 and crew.address is None:
        from harness.training.full_scale.process_group import Team
        from harness.training.full_scale.worker import work

        return work(job, Team(device_for(job)), should_stop=lambda: interrupt.is_asked)
    from harness.executors.ray_train import work_together

    return work_together(job, crew, should_stop=lambda: interrupt.is_asked)


def device_for(job: FullJob[Any]) -> "torch.device":
    """The GPU where there is one. Raises `UserError` for what a CPU cannot do."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if job.run.recipe.precision == "float16":
        raise UserError("`precision: float16` needs a GPU", remedy="Take `--precision bfloat16` or float32.")
    return torch.device("cpu")


@computing()
def opened(job: FullJob[Any], make: Callable[[FullJob[Any], "Team"], Any] | None = None) -> Any:
    """The task in this process, with all processors that a worker has; that of the recipe, or what `make` gives."""
    import torch

    from harness.training.full_scale.process_group import Team
    from harness.training.tasks import TASKS

    torch.set_num_threads(job.threads)
    return (make or TASKS[job.run.recipe.task])(job, Team(device_for(job)))


def estimate(job: FullJob[Any], pace: Pace, task: Any, expected: Expected | None = None) -> str:
    """How long it takes, in a line."""
    from harness.training.full_scale.loop import Course
    from harness.training.full_scale.step_time import image_s

    return estimate_line(image_s(Course(job, task, pace, task.team)), pace, job.run.recipe.rounds, expected)


def is_new(job: FullJob[Any]) -> bool:
    """Whether there is no state to resume from."""
    return not any(job.checkpoints.glob(f"{STATES}*"))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes off a training. Raises `UserError` where one is at it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            "a training must have one process at a time, and another is at this one", place=str(folder)
        ) from error
    try:
        yield
    finally:
        lock.release()


def prepare_folder(job: FullJob[Any], data: DataRecord, *, is_fresh: bool) -> None:
    """Have a training's folder say what is trained, and on which data; nothing of another training is overwritten.

    Raises `UserError` where the training that is there is of other data, or has ended epochs and left no state.
    """
    if is_fresh:
        forget(job.folder)
    keep_data(job.folder, data)
    done = read_epochs(job.folder)
    if done and is_new(job):
        raise UserError(
            f"a training of which {len(done)} epochs are done must have a state to be resumed from",
            place=str(job.checkpoints),
            remedy="Put its states back, give another folder with `--results`, or begin anew in its place with "
            "`--fresh`, which removes its weights.",
        )
    describe(job)


def forget(folder: Path) -> None:
    """Remove what the training has left behind."""
    if folder.is_dir():
        shutil.rmtree(folder)


def describe(job: FullJob[Any]) -> None:
    """Write down what is trained, every default included: as files that `harness train` reads again."""
    job.folder.mkdir(parents=True, exist_ok=True)
    run = job.run
    texts: dict[str, dict[str, Any]] = {
        NETWORK: plain_fields(run.spec),
        RECIPE: run.recipe.model_dump(mode="json"),
    }
    for name, values in texts.items():
        (job.folder / name).write_text(write_yaml(values, f"Of the training {run.id}."), encoding="utf-8")
