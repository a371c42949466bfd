"""Networks with their weights: random, of a run's checkpoint, or of a file; see `analysis.networks` for NETWORK."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from torch import nn

from harness.config.recipes.full_scale import ClassificationRecipe
from harness.config.recipes.loading import load_classification_recipe
from harness.config.recipes.proxy import ProxyRecipe
from harness.data import Dataset, identify, load, require_same_digest
from harness.data.labels import class_differences
from harness.errors import DataError, UserError
from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.models.weights import read_names, read_weights
from harness.storage.data_changes import recorded_classes
from harness.system.device_slot import computing
from harness.system.fingerprint import short_id
from harness.training.checkpoint import load_epoch, require_own_name
from harness.training.full_scale.folder import CLASSES, RECIPE, is_training
from harness.training.run import Job, Run


class WeightsOrigin(StrEnum):
    """The origin of a network's weights."""

    RANDOM = "random weights"
    FILE = "weights from a file"
    RUN = "a run's weights"
    TRAINING = "weights from a file, trained at full scale"


@dataclass(frozen=True, slots=True, eq=False)
class LoadedNetwork:
    """A network with its weights, in evaluation mode."""

    name: str
    """Short name for tables: of a preset or a file, `study/run`, or `training/best`."""
    spec: NetworkSpec
    model: nn.Module
    origin: WeightsOrigin
    is_merged: bool = False
    """Whether the weights are of the merged form."""
    file: Path | None = None
    """The file of the weights."""
    source: Mapping[str, str] = field(default_factory=dict)
    """The origin stored in that file: `source`, and `source_sha256` for an imported file."""
    recipe: ProxyRecipe | None = None
    """The recipe of its run."""
    seed: int | None = None
    """The seed of its run, which decides the images."""
    data: str | None = None
    """Digest of the run's data, if they are read from disk."""
    is_of_earlier_recipe: bool = False
    """Whether the same recipe now yields other images than when the run was trained."""
    epochs: int | None = None
    """Number of epochs that the run has trained."""
    data_cache: Path | None = None
    """The folder of prepared data sets of the run's study."""
    full_recipe: ClassificationRecipe | None = None
    """The recipe of its training at full scale; `file` is in the training's folder."""
    classes: tuple[str, ...] | None = None
    """The names of its classes in the order of the logits, if its file has them; see `class_names`."""

    @property
    def about(self) -> str:
        """The origin of the weights, as text."""
        if self.full_recipe is not None:
            return f"{self.origin.value} ({self.full_recipe.about}): {self.source.get('source', self.name)}"
        if self.recipe is None or self.epochs is None:
            return self.origin.value
        return f"{self.origin.value} after {self.epochs} of {self.recipe.epochs} epochs"

    def load_images(self) -> Dataset | None:
        """The data set that its run was trained on; None if no run trained it.

        Raises `DataError` if the data set no longer exists, or is not the one that the run was trained on.
        """
        if self.recipe is None or self.data_cache is None or self.seed is None:
            return None
        if self.is_of_earlier_recipe:
            raise DataError(
                "the images of a run must be those that its recipe yields now, and an earlier version trained this one",
                value=self.name,
                remedy="Train it again: run its study under another name, or with `--fresh`.",
            )
        dataset = load(self.recipe, self.data_cache, self.seed)
        require_same_digest(dataset.info, self.data, self.recipe)
        return dataset


@computing()
def load_random(name: str, spec: NetworkSpec) -> LoadedNetwork:
    """A network with random weights."""
    return LoadedNetwork(name, spec, build(spec, seed=0).eval(), WeightsOrigin.RANDOM)


@computing()
def load_run(path: Path, run: Run) -> LoadedNetwork:
    """The network of a run's checkpoint, `<results>/<study>/checkpoints/<run>.pt`.

    Raises `UserError`s for a file of another kind, or a checkpoint of another run.
    """
    require_own_name(path)
    study, weights = path.absolute().parent.parent, read_weights(path, run.spec)
    return LoadedNetwork(
        f"{study.name}/{short_id(path.stem)}",
        weights.spec,
        weights.network(),
        WeightsOrigin.RUN,
        is_merged=weights.is_merged,
        file=path,
        recipe=run.recipe,
        seed=run.seed,
        data=run.data,
        is_of_earlier_recipe=run.id != path.stem,
        epochs=load_epoch(path),
        data_cache=Job(run, study).data_cache,
    )


@computing()
def load_weights_file(path: Path) -> LoadedNetwork:
    """The network in a file of weights, with its recipe if the file is in the folder of a training at full scale.

    Raises `UserError`s for a file of another kind.
    """
    weights, folder = read_weights(path), path.absolute().parent
    network = LoadedNetwork(
        path.stem,
        weights.spec,
        weights.network(),
        WeightsOrigin.FILE,
        is_merged=weights.is_merged,
        file=path,
        source=weights.about,
        classes=weights.classes,
    )
    if not is_training(folder):
        return network
    recipe = load_classification_recipe(str(folder / RECIPE))
    return replace(network, name=f"{folder.name}/{path.stem}", origin=WeightsOrigin.TRAINING, full_recipe=recipe)


def class_names(network: LoadedNetwork) -> tuple[str, ...] | None:
    """The names of a network's classes in the order of the logits; None if neither its file nor its training has them.

    Raises `UserError` if the file of weights and the training's folder have different names.
    """
    if network.full_recipe is not None and network.file is not None:
        return _names_of_training(network, network.file.with_name(CLASSES))
    if network.classes is not None:
        return network.classes
    if network.recipe is None:
        return None
    names = _names_of_run(network, network.recipe)
    return names if names is not None and len(names) == network.spec.classes else None


def _names_of_run(network: LoadedNetwork, recipe: ProxyRecipe) -> tuple[str, ...] | None:
    """The classes of the data that a run was trained on, in the order of its labels."""
    if network.file is not None and network.data is not None:
        recorded = recorded_classes(network.file.absolute().parent.parent, network.data)
        if recorded is not None:
            return recorded
    try:
        info = identify(recipe, network.data_cache)
    except DataError:
        return None
    return info.names if info.digest == network.data else None


def _names_of_training(network: LoadedNetwork, file: Path) -> tuple[str, ...] | None:
    try:
        names = read_names(file.read_text(encoding="utf-8"), network.spec.classes)
    except (OSError, ValueError):
        names = None
    if names is None and network.classes is None and file.exists():
        rule = f"{CLASSES} must list the names of the {network.spec.classes:,} classes of the weights"
        remedy = "Without it, classes are taken by their position: remove it where that is right."
        raise UserError(rule, place=str(file), remedy=remedy)
    if names is None or network.classes is None or names == network.classes:
        return network.classes or names
    raise UserError(
        f"{CLASSES} must have the names of the classes that the weights were trained on",
        value=class_differences(names, network.classes) or "the same names in another order",
        place=str(file),
        remedy=f"Remove {CLASSES}: the weights have the names, too.",
    )
