"""What `harness downstream` does: train a network with a head un-merged, merge it last, and evaluate it."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError
from rich.console import Console, RenderableType

from harness.analysis.winner import SHOWN_DIGITS, Sought, find_target
from harness.cli.full_scale import (
    alone,
    changed,
    crew_of,
    device_for,
    estimate,
    is_new,
    opened,
    prepare_folder,
    row_of,
    shares_of,
    show_notes,
    train_job,
    unsound,
)
from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.full_scale import FullTraining
from harness.config.recipes.loading import load_recipe_of, recipe_names
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.data.batching import Pace
from harness.data.data_record import DataRecord
from harness.data.expected_images import expected_images, is_here
from harness.data.labels import differing
from harness.errors import UserError
from harness.models.spec.network import NetworkSpec
from harness.report.console import make_console
from harness.report.dense import detection_view, downstream_view, ending_lines, segmentation_view
from harness.report.summary import json_text
from harness.storage.full_run_recorder import recorded
from harness.storage.workspace import Place
from harness.system.device_slot import computing
from harness.training.full_scale.data_record import require_same_data
from harness.training.full_scale.environments import read_environments
from harness.training.full_scale.folder import WEIGHTS, is_started, weights_in
from harness.training.full_scale.job import FullJob, FullRun

if TYPE_CHECKING:
    from torch import nn

    from harness.training.tasks.merged_evaluation import Ending
    from harness.training.tasks.weights_file import DenseWeights

BEST = "best"
"""Which weights of a training's folder are meant."""
NETWORK = "NETWORK"
"""What the command line calls the network."""
FOLDER = "downstream"
"""Of all such trainings, in the results folder."""
MERGED, FIGURES = "merged.safetensors", "evaluation.json"
CHANNELS = 3
"""Of the images, for a network that does not come with weights."""
KNOWN_CHANNELS = (1, CHANNELS)
RANDOM = "random weights (warning: name trained weights to get more than a test of the machinery)"


class DenseTask(Protocol):
    """What the door needs of a task besides what the loop needs."""

    backbone: str

    @property
    def images(self) -> int:
        """The number of training images."""
        ...

    @property
    def validation_images(self) -> int:
        """How many there are, readable or not."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """The classes."""
        ...

    def data_record(self) -> DataRecord:
        """What it is trained on."""
        ...

    def check_images(self) -> tuple[str, ...]:
        """Notes on its images. Raises `DataError` for those that no training could go on with."""
        ...

    def figures_of(self, model: "nn.Module") -> tuple[Mapping[str, float], int]:
        """All figures by name, and how many validation images could not be read."""
        ...

    def load(self, found: "DenseWeights") -> "nn.Module":
        """The model of a file, in the form that the file has."""
        ...

    def save(self, path: Path, model: "nn.Module", source: str, *, is_merged: bool = False) -> None:
        """Keep a model's weights."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A task as this door knows it."""

    task: str
    """As recipes name it."""
    recipe: type[FullTraining]
    view: Callable[[Mapping[str, float], Sequence[str]], RenderableType]
    """Shows the figures, given the names of the classes."""
    looks: tuple[str, ...] = ()
    """Options that change the recipe's `evaluation` where weights are only evaluated."""


KINDS: dict[str, Kind] = {
    "segment": Kind("segmentation", SegmentationRecipe, segmentation_view, ("scales", "flip")),
    "detect": Kind("detection", DetectionRecipe, detection_view, ("short", "longest")),
}
"""The tasks by what they are called on the command line."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a training begins from."""

    name: str
    spec: NetworkSpec
    weights: Path | None = None

    @property
    def about(self) -> str:
        """In words."""
        return RANDOM if self.weights is None else f"the weights in {self.weights}"


def downstream(args: Namespace) -> int:
    """Train a network on another task, or evaluate one that was."""
    kind = KINDS[args.task]
    return _evaluate(args, kind) if args.evaluate_only else _train(args, kind)


def _train(args: Namespace, kind: Kind) -> int:
    start, recipe = find_start(args.network, args.storage), _recipe(args, kind)
    job, crew = _job(args, start, recipe), crew_of(args)
    if args.dry_run and not is_here(job.run.recipe.data.dataset, args.data):
        return _foresee(job, start, crew.workers or 1)
    task, console = opened(job), make_console()
    pace = Pace.of(recipe, task.images, crew.workers or 1)
    notes = task.check_images() if args.fresh or not is_started(job.folder) else ()
    console.print(downstream_view(job, pace, start.name, start.about, len(task.names)))
    show_notes(console, notes)
    if (args.fresh or is_new(job)) and crew.address is None:
        console.print(estimate(job, pace, task))
    data = task.data_record()
    if not args.fresh:
        require_same_data(job.folder, data)
    if args.dry_run:
        return 0
    with alone(job.folder):
        prepare_folder(job, data, is_fresh=args.fresh)
        row = row_of(job, data, start.name, args.recipe)
        code = train_job(job, crew, recorded(row, Place(args.results, args.storage).database))
        return code or _finish(job, kind, task, console)


def _foresee(job: FullJob[Any], start: Start, workers: int) -> int:
    """Print what would be trained on images that are not here; how long a step takes depends on their sizes."""
    recipe = job.run.recipe
    expected = expected_images(recipe.data, recipe.data.dataset)
    pace = Pace.of(recipe, expected.images or recipe.batch_size, workers)
    make_console().print(downstream_view(job, pace, start.name, start.about, expected.classes or 0, expected))
    return 0


def _finish(job: FullJob[Any], kind: Kind, task: DenseTask, console: Console) -> int:
    """Merge the best weights, judge them in that form, and write both down."""
    from harness.training.tasks.merged_evaluation import merged_last
    from harness.training.tasks.weights_file import read_dense

    device = device_for(job)
    with computing(device):
        model = task.load(read_dense(job.best)).to(device)
        merged, ending = merged_last(model, task)
        task.save(job.folder / MERGED, merged, f"{job.run.id}, {job.best.name} merged", is_merged=True)
    values = _values(ending, job) | {"trained_by": _trained_by(job.folder)}
    (job.folder / FIGURES).write_text(f"{json_text(values)}\n", encoding="utf-8")
    _show(kind, task, ending, console)
    console.print(f"merged weights: {job.folder / MERGED}; figures: {job.folder / FIGURES}")
    return 0


def _evaluate(args: Namespace, kind: Kind) -> int:
    """Judge weights that this verb has written; such in training form are merged first."""
    from harness.models.finite import as_user_error
    from harness.training.tasks.merged_evaluation import Ending, merged_last
    from harness.training.tasks.weights_file import read_dense

    path = Path(args.network)
    found = read_dense(weights_in(path, BEST) if path.is_dir() else path)
    if not isinstance(found.recipe, kind.recipe):
        raise UserError(f"the weights must be of a {kind.task}", value=str(path), remedy="See `harness recipes`.")
    recipe = _looked(changed(found.recipe, args, str(path)), args, kind)
    job: FullJob[Any] = FullJob(FullRun(found.spec, recipe), path.parent, **_means(args))
    task = opened(job)
    _check_classes(task.names, found.names, str(path))
    device = device_for(job)
    with as_user_error(args.network), computing(device):
        model = task.load(found).to(device)
        if found.is_merged:
            figures, unreadable = task.figures_of(model)
            ending = Ending(figures, {}, 0.0, unreadable, task.validation_images - unreadable)
        else:
            _, ending = merged_last(model, task)
    if args.json:
        print(json_text(_values(ending, job)))
        return 0
    _show(kind, task, ending, make_console(), is_compared=not found.is_merged)
    return 0


def _check_classes(names: Sequence[str], known: Sequence[str], place: str) -> None:
    """Raise `UserError` where the classes of the images are not those of the weights, in the same order."""
    if tuple(names) == tuple(known):
        return
    rule = "the images must be of the classes of the weights"
    if set(names) == set(known):
        i = next(i for i, (one, other) in enumerate(zip(names, known, strict=True)) if one != other)
        value = f"`{names[i]}` for `{known[i]}` as class {i}"
        raise UserError(f"{rule}, in the same order", value=value, place=place)
    raise UserError(rule, value=differing(names, known), place=place)


def _show(kind: Kind, task: DenseTask, ending: "Ending", console: Console, *, is_compared: bool = True) -> None:
    console.print(kind.view(ending.figures, task.names))
    compared = ending.maps_apart if is_compared else None
    for line in ending_lines(ending.apart, compared, ending.unreadable, ending.images):
        console.print(line)


def _values(ending: "Ending", job: FullJob[Any]) -> dict[str, Any]:
    """What is written down, with what has judged the model."""
    from harness.training.device import process_environment

    return {
        "figures": dict(ending.figures),
        "merged_apart": dict(ending.apart),
        "maps_apart": ending.maps_apart,
        "images": ending.images,
        "unreadable": ending.unreadable,
        "environment": process_environment(device_for(job), precision=job.run.recipe.precision).values(),
    }


def _trained_by(folder: Path) -> list[dict[str, Any]]:
    """What has computed the training, each with the epoch from which it has."""
    return [{"epoch": epoch, "environment": each and each.values()} for epoch, each in read_environments(folder)]


def find_start(named: str, storage: str | None) -> Start:
    """The network of that name or in that file or folder, and its weights, which must be in training form."""
    path = Path(named)
    if path.is_dir():
        path = weights_in(path, BEST)
    if path.is_file() and path.suffix not in (".pt", ".yaml", ".yml"):
        return _from_weights(path)
    target = find_target([str(path)], Sought(Place(path.parent, storage)))
    if path.suffix != ".pt":
        return Start(target.name, target.spec.replace(in_channels=CHANNELS))
    from harness.training.checkpoint import require_own_name
    from harness.training.full_scale.initial_weights import trainable

    require_own_name(path)
    return Start(target.name, trainable(path, target.spec, place=NETWORK).spec, path.absolute())


def _from_weights(path: Path) -> Start:
    """A file that names its network."""
    from harness.training.full_scale.initial_weights import trainable
    from harness.training.tasks.weights_file import is_dense

    if is_dense(path):
        raise UserError(
            "the network must come without a head; this file is of `harness downstream` itself",
            value=str(path),
            place=NETWORK,
            remedy="With `--evaluate-only` it is judged.",
        )
    spec = trainable(path, place=NETWORK).spec
    if spec.in_channels not in KNOWN_CHANNELS:
        raise UserError("the network must take images in grey or in colour", value=spec.in_channels, place=str(path))
    return Start(path.absolute().parent.name if path.name == WEIGHTS[BEST] else path.stem, spec, path.absolute())


def _recipe(args: Namespace, kind: Kind) -> FullTraining:
    if args.recipe is None:
        names = ", ".join(recipe_names(kind.task))
        raise UserError("`--recipe` must name a recipe", remedy=f"Recipes for {kind.task}: {names}.")
    return changed(load_recipe_of(args.recipe, kind.task, kind.recipe), args, args.recipe)


def _looked(recipe: FullTraining, args: Namespace, kind: Kind) -> FullTraining:
    """The recipe with the evaluation that the command line asks for."""
    values = recipe.model_dump(mode="json")
    asked = {name: getattr(args, name) for name in kind.looks if getattr(args, name, None)}
    values["evaluation"] = {**values["evaluation"], **asked, **_mode(args)}
    try:
        return type(recipe).model_validate(values)
    except ValidationError as error:
        raise unsound(error, "evaluation", args.network) from error


def _mode(args: Namespace) -> dict[str, Any]:
    """Whole images, or a sliding window, where the command line says so."""
    if getattr(args, "whole", False):
        return {"mode": "whole", "window": None, "stride": None}
    if getattr(args, "slide", None):
        window, stride = args.slide
        return {"mode": "slide", "window": [window, window], "stride": [stride, stride]}
    return {}


def _job(args: Namespace, start: Start, recipe: FullTraining) -> FullJob[Any]:
    """The run with its folder and its means."""
    from harness.models.weights import sha256

    drop_path = start.spec.drop_path if recipe.drop_path is None else recipe.drop_path
    digest = None if start.weights is None else sha256(start.weights)
    run = FullRun(start.spec.replace(drop_path=drop_path), recipe, digest)
    folder = args.results.absolute() / FOLDER / f"{start.name}-{args.task}-{run.id[:SHOWN_DIGITS]}"
    return FullJob(run, folder, weights=start.weights, **_means(args))


def _means(args: Namespace) -> dict[str, Any]:
    """What a job has that decides nothing."""
    loaders, threads = shares_of(args)
    return {
        "cache": args.results.absolute() / "data",
        "root": None if args.data is None else args.data.expanduser().absolute(),
        "loaders": loaders,
        "threads": threads,
    }
