"""The action of `harness downstream`: train a network with a head un-merged, then merge it and evaluate it."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

from harness.analysis.formatting import json_text
from harness.analysis.network_forms import NETWORKS, NetworkForm, NetworkUse
from harness.analysis.networks import NetworkRef
from harness.cli.arguments import named_network
from harness.cli.full_scale import (
    PlannedTraining,
    estimate,
    job_resources,
    launch,
    make_job,
    with_options,
    worker_request,
)
from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.full_scale import FullScaleRecipe
from harness.config.recipes.loading import load_task_recipe, override_recipe, recipe_names
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.data.batching import BatchPlan
from harness.data.image_sources import expected_images, is_data_present
from harness.data.labels import class_differences
from harness.errors import UserError
from harness.executors.full_scale import device_for, open_task
from harness.models.spec.network import NetworkSpec
from harness.report.console import make_console
from harness.report.dense import detection_view, downstream_view, merged_evaluation_lines, segmentation_view
from harness.storage.full_run_recorder import full_scale_row
from harness.system.device_slot import computing
from harness.training.full_scale.folder import weights_file
from harness.training.full_scale.job import FullScaleJob, FullScaleRun
from harness.training.full_scale.records import read_environments

if TYPE_CHECKING:
    from harness.training.tasks.dense import DenseTask, MergedEvaluation

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
EVALUATED = NetworkUse(
    frozenset((NetworkForm.WITH_HEAD,)),
    dict.fromkeys(NETWORKS, "Without `--evaluate-only`, this command trains it with a head."),
)
"""What is evaluated: weights or a folder that this command has written."""
RANDOM_WEIGHTS = "random weights (warning: useful only as a test; name trained weights for real results)"


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
    initial = initial_network(named_network(args))
    recipe = _recipe(args, command)
    job, request = _job(args, initial, recipe), worker_request(args)
    if args.dry_run and not is_data_present(job.run.recipe.data.dataset, args.data):
        return _dry_run(job, initial, request.workers or 1)
    task: DenseTask[Any] = open_task(job)
    batch_plan = BatchPlan.of(recipe, task.images, request.workers or 1)
    planned = PlannedTraining(
        job,
        request,
        downstream_view(job, batch_plan, initial.name, initial.about, len(task.class_names)),
        check_images=task.check_images,
        estimate=lambda: estimate(job, batch_plan, task),
        data_record=task.data_record,
        row=lambda data: full_scale_row(job, data, initial.name, args.recipe),
        finish=lambda console: _finish(job, command, task, console),
    )
    return launch(args, planned)


def _dry_run(job: FullScaleJob[Any], initial: InitialNetwork, workers: int) -> int:
    """Print what would be trained on images that are not here; without a time, which depends on their sizes."""
    recipe = job.run.recipe
    expected = expected_images(recipe.data, recipe.data.dataset)
    batch_plan = BatchPlan.of(recipe, expected.images or recipe.batch_size, workers)
    make_console().print(downstream_view(job, batch_plan, initial.name, initial.about, expected.classes or 0, expected))
    return 0


def _finish(job: FullScaleJob[Any], command: DownstreamCommand, task: "DenseTask[Any]", console: Console) -> None:
    """Merge the best weights, evaluate them in merged form, and write weights and metrics."""
    from harness.training.tasks.dense import evaluate_merged
    from harness.training.tasks.weights_file import read_dense

    device = device_for(job)
    with computing(device):
        model = task.load(read_dense(job.best)).to(device)
        merged, evaluation = evaluate_merged(model, task)
        task.save(job.folder / MERGED, merged, f"{job.run.id}, {job.best.name} merged", is_merged=True)
    trained_by = [
        {"epoch": epoch, "environment": environment and environment.values()}
        for epoch, environment in read_environments(job.folder)
    ]
    values = _values(evaluation, job) | {"trained_by": trained_by}
    (job.folder / METRICS).write_text(f"{json_text(values)}\n", encoding="utf-8")
    _show(command, task, evaluation, console)
    console.print(f"merged weights: {job.folder / MERGED}; metrics: {job.folder / METRICS}")


def _evaluate(args: Namespace, command: DownstreamCommand) -> int:
    """Evaluate weights that this command has written; weights in training form are merged first."""
    from harness.models.finite import as_user_error
    from harness.training.tasks.dense import MergedEvaluation, evaluate_merged
    from harness.training.tasks.weights_file import read_dense

    named_network(args, EVALUATED)
    path = Path(args.network)
    weights = read_dense(weights_file(path, BEST) if path.is_dir() else path)
    if not isinstance(weights.recipe, command.recipe):
        raise UserError(f"the weights must be of a {command.task}", value=str(path), remedy="See `harness recipes`.")
    recipe = _with_evaluation_options(with_options(weights.recipe, args, str(path)), args, command)
    job: FullScaleJob[Any] = FullScaleJob(FullScaleRun(weights.spec, recipe), path.parent, **job_resources(args))
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
    task: "DenseTask[Any]",
    evaluation: "MergedEvaluation",
    console: Console,
    *,
    is_compared: bool = True,
) -> None:
    console.print(command.view(evaluation.metrics, task.class_names))
    for line in merged_evaluation_lines(evaluation, is_compared=is_compared):
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


def initial_network(ref: NetworkRef) -> InitialNetwork:
    """The network that was named, and its weights, which must be in training form."""
    path = ref.weights_path()
    if path is None:
        return InitialNetwork(ref.name, ref.spec.replace(in_channels=CHANNELS))
    from harness.training.checkpoint import require_own_name
    from harness.training.tasks.weights_file import load_training_weights

    if ref.run is not None:
        require_own_name(path)
    spec = load_training_weights(path, None if ref.run is None else ref.run.spec, place=NETWORK).spec
    if spec.in_channels not in KNOWN_CHANNELS:
        raise UserError("the network must take gray or color images", value=spec.in_channels, place=str(path))
    return InitialNetwork(ref.name, spec, path.absolute())


def _recipe(args: Namespace, command: DownstreamCommand) -> FullScaleRecipe:
    if args.recipe is None:
        names = ", ".join(recipe_names(command.task))
        raise UserError("`--recipe` must name a recipe", remedy=f"Recipes for {command.task}: {names}.")
    return with_options(load_task_recipe(args.recipe, command.task, command.recipe), args, args.recipe)


def _with_evaluation_options(recipe: FullScaleRecipe, args: Namespace, command: DownstreamCommand) -> FullScaleRecipe:
    """The recipe with the evaluation options of the command line applied."""
    options = {name: getattr(args, name) for name in command.evaluation_options if getattr(args, name, None)}
    evaluation = {**recipe.model_dump(mode="json")["evaluation"], **options, **_mode(args)}
    return override_recipe(recipe, {"evaluation": evaluation}, args.network, kind="evaluation")


def _mode(args: Namespace) -> dict[str, Any]:
    """The changes of the recipe's `evaluation` for `--whole` or `--slide`; empty without these options."""
    if getattr(args, "whole", False):
        return {"mode": "whole", "window": None, "stride": None}
    if getattr(args, "slide", None):
        window, stride = args.slide
        return {"mode": "slide", "window": [window, window], "stride": [stride, stride]}
    return {}


def _job(args: Namespace, initial: InitialNetwork, recipe: FullScaleRecipe) -> FullScaleJob[Any]:
    """The job of the network, with the recipe's stochastic depth."""
    drop_path = initial.spec.drop_path if recipe.drop_path is None else recipe.drop_path
    spec, name = initial.spec.replace(drop_path=drop_path), f"{initial.name}-{args.task}"
    return make_job(args, spec, recipe, initial.weights, parent=DOWNSTREAM_FOLDER, name=name)
