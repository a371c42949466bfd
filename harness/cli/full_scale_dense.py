"""The action of `harness downstream`: train a network with a head un-merged, then merge it and evaluate it."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError
from rich.console import Console, RenderableType

from harness.analysis.formatting import json_text
from harness.analysis.winner import SHOWN_DIGITS, NetworkQuery, resolve_network
from harness.cli.full_scale import (
    apply_options,
    device_for,
    estimate,
    full_scale_row,
    invalid_recipe_error,
    is_not_started,
    open_task,
    prepare_folder,
    show_notes,
    train_job,
    training_lock,
    worker_request,
    worker_resources,
)
from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.full_scale import FullScaleRecipe
from harness.config.recipes.loading import load_task_recipe, recipe_names
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.data.batching import BatchPlan
from harness.data.data_record import DataRecord
from harness.data.expected_images import expected_images, is_data_present
from harness.data.labels import class_differences
from harness.errors import UserError
from harness.models.spec.network import NetworkSpec
from harness.report.console import make_console
from harness.report.dense import detection_view, downstream_view, merged_evaluation_lines, segmentation_view
from harness.storage.full_run_recorder import recording_run
from harness.storage.workspace import Workspace
from harness.system.device_slot import computing
from harness.training.full_scale.data_record import require_unchanged_data
from harness.training.full_scale.environments import read_environments
from harness.training.full_scale.folder import WEIGHTS, is_started, weights_file
from harness.training.full_scale.job import FullScaleJob, FullScaleRun

if TYPE_CHECKING:
    from torch import nn

    from harness.training.tasks.merged_evaluation import MergedEvaluation
    from harness.training.tasks.weights_file import DenseWeights

BEST = "best"
"""The weights that are read from the folder of a training."""
NETWORK = "NETWORK"
"""Name of the network's argument on the command line."""
DOWNSTREAM_FOLDER = "downstream"
"""Name of the folder of all downstream trainings, in the results folder."""
MERGED, METRICS = "merged.safetensors", "evaluation.json"
CHANNELS = 3
"""Image channels of a network without weights."""
KNOWN_CHANNELS = (1, CHANNELS)
RANDOM_WEIGHTS = "random weights (warning: useful only as a test; name trained weights for real results)"


class DownstreamTask(Protocol):
    """What `harness downstream` needs of a task, in addition to what the training loop needs."""

    backbone: str

    @property
    def images(self) -> int:
        """The number of training images."""
        ...

    @property
    def validation_images(self) -> int:
        """The number of validation images, readable or not."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes."""
        ...

    def data_record(self) -> DataRecord:
        """The record of the data it is trained on."""
        ...

    def check_images(self) -> tuple[str, ...]:
        """Notes on its images. Raises `DataError` for images that cannot be trained on."""
        ...

    def evaluate(self, model: "nn.Module") -> tuple[Mapping[str, float], int]:
        """All metrics by name, and the number of validation images that could not be read."""
        ...

    def load(self, weights: "DenseWeights") -> "nn.Module":
        """The model with the weights of a file, in the same form (training or merged)."""
        ...

    def save(self, path: Path, model: "nn.Module", source: str, *, is_merged: bool = False) -> None:
        """Write a model's weights to a file."""
        ...


@dataclass(frozen=True, slots=True)
class DownstreamCommand:
    """A subcommand of `harness downstream`: its task, recipe and table."""

    task: str
    """Name of the task in recipes."""
    recipe: type[FullScaleRecipe]
    view: Callable[[Mapping[str, float], Sequence[str]], RenderableType]
    """Builds the table of the metrics, from the metrics and the names of the classes."""
    evaluation_options: tuple[str, ...] = ()
    """Options that change the recipe's `evaluation` with `--evaluate-only`."""


DOWNSTREAM_COMMANDS: dict[str, DownstreamCommand] = {
    "segment": DownstreamCommand("segmentation", SegmentationRecipe, segmentation_view, ("scales", "flip")),
    "detect": DownstreamCommand("detection", DetectionRecipe, detection_view, ("short", "longest")),
}
"""The tasks by their names on the command line."""


@dataclass(frozen=True, slots=True)
class InitialNetwork:
    """The network from which a training starts."""

    name: str
    spec: NetworkSpec
    weights: Path | None = None

    @property
    def about(self) -> str:
        """Description of the weights, as text."""
        return RANDOM_WEIGHTS if self.weights is None else f"the weights in {self.weights}"


def downstream(args: Namespace) -> int:
    """Train a network on another task, or evaluate one that was trained; returns the exit code."""
    command = DOWNSTREAM_COMMANDS[args.task]
    return _evaluate(args, command) if args.evaluate_only else _train(args, command)


def _train(args: Namespace, command: DownstreamCommand) -> int:
    initial, recipe = resolve_initial_network(args.network, args.storage), _recipe(args, command)
    job, request = _job(args, initial, recipe), worker_request(args)
    if args.dry_run and not is_data_present(job.run.recipe.data.dataset, args.data):
        return _dry_run(job, initial, request.workers or 1)
    task, console = open_task(job), make_console()
    batch_plan = BatchPlan.of(recipe, task.images, request.workers or 1)
    notes = task.check_images() if args.fresh or not is_started(job.folder) else ()
    console.print(downstream_view(job, batch_plan, initial.name, initial.about, len(task.class_names)))
    show_notes(console, notes)
    if (args.fresh or is_not_started(job)) and request.address is None:
        console.print(estimate(job, batch_plan, task))
    data = task.data_record()
    if not args.fresh:
        require_unchanged_data(job.folder, data)
    if args.dry_run:
        return 0
    with training_lock(job.folder):
        prepare_folder(job, data, is_fresh=args.fresh)
        row = full_scale_row(job, data, initial.name, args.recipe)
        code = train_job(job, request, recording_run(row, Workspace(args.results, args.storage).database))
        return code or _finish(job, command, task, console)


def _dry_run(job: FullScaleJob[Any], initial: InitialNetwork, workers: int) -> int:
    """Print what would be trained on images that are not here; without a time, which depends on their sizes."""
    recipe = job.run.recipe
    expected = expected_images(recipe.data, recipe.data.dataset)
    batch_plan = BatchPlan.of(recipe, expected.images or recipe.batch_size, workers)
    make_console().print(downstream_view(job, batch_plan, initial.name, initial.about, expected.classes or 0, expected))
    return 0


def _finish(job: FullScaleJob[Any], command: DownstreamCommand, task: DownstreamTask, console: Console) -> int:
    """Merge the best weights, evaluate them in merged form, and write weights and metrics."""
    from harness.training.tasks.merged_evaluation import evaluate_merged
    from harness.training.tasks.weights_file import read_dense

    device = device_for(job)
    with computing(device):
        model = task.load(read_dense(job.best)).to(device)
        merged, evaluation = evaluate_merged(model, task)
        task.save(job.folder / MERGED, merged, f"{job.run.id}, {job.best.name} merged", is_merged=True)
    values = _values(evaluation, job) | {"trained_by": _trained_by(job.folder)}
    (job.folder / METRICS).write_text(f"{json_text(values)}\n", encoding="utf-8")
    _show(command, task, evaluation, console)
    console.print(f"merged weights: {job.folder / MERGED}; metrics: {job.folder / METRICS}")
    return 0


def _evaluate(args: Namespace, command: DownstreamCommand) -> int:
    """Evaluate weights that this command has written; weights in training form are merged first."""
    from harness.models.finite import as_user_error
    from harness.training.tasks.merged_evaluation import MergedEvaluation, evaluate_merged
    from harness.training.tasks.weights_file import read_dense

    path = Path(args.network)
    weights = read_dense(weights_file(path, BEST) if path.is_dir() else path)
    if not isinstance(weights.recipe, command.recipe):
        raise UserError(f"the weights must be of a {command.task}", value=str(path), remedy="See `harness recipes`.")
    recipe = _with_evaluation_options(apply_options(weights.recipe, args, str(path)), args, command)
    job: FullScaleJob[Any] = FullScaleJob(FullScaleRun(weights.spec, recipe), path.parent, **_means(args))
    task = open_task(job)
    _check_classes(task.class_names, weights.names, str(path))
    device = device_for(job)
    with as_user_error(args.network), computing(device):
        model = task.load(weights).to(device)
        if weights.is_merged:
            metrics, unreadable = task.evaluate(model)
            evaluation = MergedEvaluation(metrics, {}, 0.0, unreadable, task.validation_images - unreadable)
        else:
            _, evaluation = evaluate_merged(model, task)
    if args.json:
        print(json_text(_values(evaluation, job)))
        return 0
    _show(command, task, evaluation, make_console(), is_compared=not weights.is_merged)
    return 0


def _check_classes(names: Sequence[str], trained: Sequence[str], place: str) -> None:
    """Raise `UserError` unless the classes of the images are those of the weights, in the same order."""
    if tuple(names) == tuple(trained):
        return
    rule = "the images must be of the classes of the weights"
    if set(names) == set(trained):
        i = next(i for i, (one, other) in enumerate(zip(names, trained, strict=True)) if one != other)
        value = f"`{names[i]}` for `{trained[i]}` as class {i}"
        raise UserError(f"{rule}, in the same order", value=value, place=place)
    raise UserError(rule, value=class_differences(names, trained), place=place)


def _show(
    command: DownstreamCommand,
    task: DownstreamTask,
    evaluation: "MergedEvaluation",
    console: Console,
    *,
    is_compared: bool = True,
) -> None:
    console.print(command.view(evaluation.metrics, task.class_names))
    compared = evaluation.feature_difference if is_compared else None
    for line in merged_evaluation_lines(
        evaluation.metric_differences, compared, evaluation.unreadable, evaluation.images
    ):
        console.print(line)


def _values(evaluation: "MergedEvaluation", job: FullScaleJob[Any]) -> dict[str, Any]:
    """The values that are written for an evaluation, with the environment in which it was computed."""
    from harness.training.device import process_environment

    return {
        "figures": dict(evaluation.metrics),
        "merged_apart": dict(evaluation.metric_differences),
        "maps_apart": evaluation.feature_difference,
        "images": evaluation.images,
        "unreadable": evaluation.unreadable,
        "environment": process_environment(device_for(job), precision=job.run.recipe.precision).values(),
    }


def _trained_by(folder: Path) -> list[dict[str, Any]]:
    """The environments in which the training was computed, each with its first epoch."""
    return [
        {"epoch": epoch, "environment": environment and environment.values()}
        for epoch, environment in read_environments(folder)
    ]


def resolve_initial_network(named: str, storage: str | None) -> InitialNetwork:
    """The network with this name, file or folder, and its weights, which must be in training form."""
    path = Path(named)
    if path.is_dir():
        path = weights_file(path, BEST)
    if path.is_file() and path.suffix not in (".pt", ".yaml", ".yml"):
        return _from_weights(path)
    network_ref = resolve_network([str(path)], NetworkQuery(Workspace(path.parent, storage)))
    if path.suffix != ".pt":
        return InitialNetwork(network_ref.name, network_ref.spec.replace(in_channels=CHANNELS))
    from harness.training.checkpoint import require_own_name
    from harness.training.full_scale.initial_weights import load_training_weights

    require_own_name(path)
    return InitialNetwork(
        network_ref.name, load_training_weights(path, network_ref.spec, place=NETWORK).spec, path.absolute()
    )


def _from_weights(path: Path) -> InitialNetwork:
    """The network and weights of a file that contains the network's spec."""
    from harness.training.full_scale.initial_weights import load_training_weights
    from harness.training.tasks.weights_file import is_dense

    if is_dense(path):
        raise UserError(
            "the network must not have a head; this file was written by `harness downstream` itself",
            value=str(path),
            place=NETWORK,
            remedy="Evaluate it with `--evaluate-only`.",
        )
    spec = load_training_weights(path, place=NETWORK).spec
    if spec.in_channels not in KNOWN_CHANNELS:
        raise UserError("the network must take gray or color images", value=spec.in_channels, place=str(path))
    return InitialNetwork(
        path.absolute().parent.name if path.name == WEIGHTS[BEST] else path.stem, spec, path.absolute()
    )


def _recipe(args: Namespace, command: DownstreamCommand) -> FullScaleRecipe:
    if args.recipe is None:
        names = ", ".join(recipe_names(command.task))
        raise UserError("`--recipe` must name a recipe", remedy=f"Recipes for {command.task}: {names}.")
    return apply_options(load_task_recipe(args.recipe, command.task, command.recipe), args, args.recipe)


def _with_evaluation_options(recipe: FullScaleRecipe, args: Namespace, command: DownstreamCommand) -> FullScaleRecipe:
    """The recipe with the evaluation options of the command line applied."""
    values = recipe.model_dump(mode="json")
    options = {name: getattr(args, name) for name in command.evaluation_options if getattr(args, name, None)}
    values["evaluation"] = {**values["evaluation"], **options, **_mode(args)}
    try:
        return type(recipe).model_validate(values)
    except ValidationError as error:
        raise invalid_recipe_error(error, "evaluation", args.network) from error


def _mode(args: Namespace) -> dict[str, Any]:
    """The changes of the recipe's `evaluation` for `--whole` or `--slide`; empty without these options."""
    if getattr(args, "whole", False):
        return {"mode": "whole", "window": None, "stride": None}
    if getattr(args, "slide", None):
        window, stride = args.slide
        return {"mode": "slide", "window": [window, window], "stride": [stride, stride]}
    return {}


def _job(args: Namespace, initial: InitialNetwork, recipe: FullScaleRecipe) -> FullScaleJob[Any]:
    """The job: the run, its folder, its images and its resources."""
    from harness.models.weights import sha256

    drop_path = initial.spec.drop_path if recipe.drop_path is None else recipe.drop_path
    digest = None if initial.weights is None else sha256(initial.weights)
    run = FullScaleRun(initial.spec.replace(drop_path=drop_path), recipe, digest)
    folder = args.results.absolute() / DOWNSTREAM_FOLDER / f"{initial.name}-{args.task}-{run.id[:SHOWN_DIGITS]}"
    return FullScaleJob(run, folder, weights=initial.weights, **_means(args))


def _means(args: Namespace) -> dict[str, Any]:
    """The fields of a job that do not change its results: cache, image folder, data loaders and threads."""
    loaders, threads = worker_resources(args)
    return {
        "cache": args.results.absolute() / "data",
        "root": None if args.data is None else args.data.expanduser().absolute(),
        "loaders": loaders,
        "threads": threads,
    }
