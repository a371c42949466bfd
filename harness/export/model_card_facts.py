"""Facts for the model card: how a network was trained, and its metrics with the images they were measured on."""

from pathlib import Path
from typing import Any, NamedTuple

from harness.analysis.formatting import DASH, format_duration, plural
from harness.analysis.limits import validation_image_count
from harness.config.measures import is_of_machine
from harness.data import DATASETS
from harness.storage import Store
from harness.storage.load_network import LoadedNetwork, WeightsOrigin
from harness.storage.workspace import Workspace
from harness.training.environment import describe_environment
from harness.training.full_scale.folder import WEIGHTS
from harness.training.full_scale.messages import FullScaleEpoch, read_epochs, to_plain
from harness.training.full_scale.records import read_environments

METRIC_TITLES = {"top1": "top-1 %", "top5": "top-5 %", "loss": "loss"}
"""Validation metrics, and their names in the card."""


class CardMetric(NamedTuple):
    """One metric in the card."""

    name: str
    value: str
    conditions: str
    """The data or device that it was measured on."""


class TrainingFacts(NamedTuple):
    """Facts about a network's training, and its metrics."""

    training: dict[str, str]
    metrics: list[CardMetric]
    settings: dict[str, Any] | None = None
    """The recipe with every default, as plain values."""


def training_facts(network: LoadedNetwork, storage: str | None = None) -> TrainingFacts:
    """Read the facts from a run's database, from the log of a training, or from the metadata of a weight file."""
    if network.full_recipe is not None:
        return _of_training(network)
    if network.recipe is not None:
        return _of_run(network, storage)
    if network.origin == WeightsOrigin.RANDOM:
        return TrainingFacts({"weights": "**random**: it was never trained, and its predictions mean nothing"}, [])
    about = {"weights": f"imported from `{network.source.get('source', network.name)}`"}
    if digest := network.source.get("source_sha256"):
        about["SHA-256 of that file"] = f"`{digest}`"
    return TrainingFacts(about, [])


def _of_run(network: LoadedNetwork, storage: str | None) -> TrainingFacts:
    assert network.recipe is not None and network.file is not None, "a run has a recipe and a checkpoint"
    recipe, run_id = network.recipe, network.file.stem
    study = network.file.absolute().parent.parent
    with Store.open(Workspace(study.parent, storage).database, read_only=True) as store:
        row, epochs, measures = store.run(run_id), store.epochs(run_id), store.metrics(run_id)
    about = {
        "run": f"`{run_id}` of the study `{study.name}`, {row.state.value}",
        "seed": str(row.run.seed),
        "epochs": f"{network.epochs} of {recipe.epochs}",
        "data": f"{recipe.dataset} at {recipe.resolution} px, {_size(recipe.train_size)} training images",
        "trained on": f"{row.device or DASH}, {format_duration(row.wall_s)}",
        "computed by": "; ".join(describe_environment(environment) for environment in row.environments),
    }
    images = validation_image_count(row.run, measures) if network.epochs == recipe.epochs else recipe.val_size
    on = f"{_validated_on(recipe.dataset, images)}, {recipe.resolution} px, one seed"
    scores = [CardMetric("top-1 %", f"{epoch.top1:.2f}", on) for epoch in epochs if epoch.epoch == network.epochs]
    device = f"measured by the run, {row.device or DASH}"
    again = f"measured again: {describe_environment(row.timed)}" if row.timed != row.environment else device
    measured = [
        CardMetric(name, f"{value:.6g}", again if is_of_machine(name) else device) for name, value in measures.items()
    ]
    return TrainingFacts(about, [*scores, *measured], recipe.model_dump(mode="json"))


def _of_training(network: LoadedNetwork) -> TrainingFacts:
    assert network.full_recipe is not None and network.file is not None, "a training has a recipe and a folder"
    recipe, epochs = network.full_recipe, read_epochs(network.file.parent)
    about = {
        "weights": f"`{network.file.name}`: {network.source.get('source', 'of unknown origin')}",
        "recipe": recipe.about,
        "seed": str(recipe.seed),
        "epochs": f"{len(epochs)} of {recipe.epochs}",
        "data": f"{recipe.data.dataset} at {recipe.resolution} px, {_size(recipe.data.train_size)} training images",
    }
    if epochs:
        workers, wall_s = plural(epochs[-1].workers, "worker"), sum(epoch.wall_s for epoch in epochs)
        about["trained with"] = f"{workers}, {recipe.precision}, {format_duration(wall_s)}"
    about["computed by"] = _computed_by(network.file.parent)
    on = f"{_validated_on(recipe.data.dataset, recipe.data.val_size)}, {recipe.resolution} px, one seed"
    scores = _scores(network.file, epochs)
    metrics = [CardMetric(title, f"{scores[name]:.4g}", on) for name, title in METRIC_TITLES.items() if name in scores]
    return TrainingFacts(about, metrics, recipe.model_dump(mode="json"))


def _computed_by(folder: Path) -> str:
    """The environments of a training, with the first epoch of each if there are several."""
    environments = read_environments(folder) or [(1, None)]
    since = [f"from epoch {epoch} on: " for epoch, _ in environments] if len(environments) > 1 else [""]
    return "; ".join(
        f"{prefix}{describe_environment(environment)}"
        for prefix, (_, environment) in zip(since, environments, strict=True)
    )


def _scores(file: Path, epochs: list[FullScaleEpoch]) -> dict[str, Any]:
    """The validation metrics of these weights, by name; empty if there are none."""
    if not epochs:
        return {}
    last, best = epochs[-1], next((epoch for epoch in reversed(epochs) if epoch.is_best), epochs[-1])
    epoch_by_file = {WEIGHTS["last"]: (last, "val"), WEIGHTS["last-ema"]: (last, "ema")}
    epoch, key = epoch_by_file.get(file.name, (best, _better(best)))
    return to_plain(epoch)[key] or {}


def _better(epoch: FullScaleEpoch) -> str:
    """The weights that are kept as the best: those of the network (`val`) or of its moving average (`ema`)."""
    values = to_plain(epoch)
    return "ema" if values["ema"] and values["ema"]["top1"] >= values["val"]["top1"] else "val"


def _validated_on(dataset: str, size: int | None) -> str:
    source = DATASETS.get(dataset)  # None for a data set of dense prediction
    if size is None and source is not None and source.sizes is not None:
        size = source.sizes[1]
    return f"{_size(size)} validation images of {dataset}"


def _size(size: int | None) -> str:
    return "all" if size is None else f"n = {size:,}"
