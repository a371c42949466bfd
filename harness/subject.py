"""A network as the command line names it: a preset, a spec file, a run's checkpoint, a file or a folder of weights."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from torch import nn

from harness.checkpoint import load_epoch
from harness.errors import NotFound, did_you_mean
from harness.full_folder import RECIPE, is_training, weights_in
from harness.full_recipe import FullRecipe
from harness.network import build
from harness.presets import PRESETS
from harness.recipe import Recipe
from harness.run import Job
from harness.session import Place, run_of
from harness.spec import NetworkSpec
from harness.study import load_full_recipe, named_spec
from harness.weights import load_weights

RUN_FILE = re.compile(r"([0-9a-f]{16})\.pt")
SHOWN_DIGITS = 8
"""Of a run's id, where it is only to be told from others."""


class Origin(StrEnum):
    """Where a network has its weights from."""

    RANDOM = "random weights"
    FILE = "weights from a file"
    RUN = "a run's weights"


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network with its weights, in evaluation mode."""

    name: str
    """Short, for tables: a preset's, that of a file, or `study/run`."""
    spec: NetworkSpec
    model: nn.Module
    origin: Origin
    recipe: Recipe | None = None
    """How a run trained it."""
    epochs: int | None = None
    """How many of its epochs the run has behind it."""
    data_cache: Path | None = None
    """Where the run's study keeps prepared data sets."""
    full_recipe: FullRecipe | None = None
    """How a training at full scale trained it."""

    @property
    def about(self) -> str:
        """Where the weights come from, in words."""
        if self.full_recipe is not None:
            return f"{self.origin.value}, trained at full scale ({self.full_recipe.about})"
        if self.recipe is None or self.epochs is None:
            return self.origin.value
        return f"{self.origin.value} after {self.epochs} of {self.recipe.epochs} epochs"


def find_subject(named: str, storage: str | None = None, *, which: str = "best") -> Subject:
    """The network of that name or in that file; in the folder of a training at full scale, the weights `which`.

    A run's checkpoint is `<results>/<study>/checkpoints/<run>.pt`; the database beside its study, or that at `storage`,
    knows its network and recipe. Raises `UserError`s for what is not there, or is something else.
    """
    path = Path(named)
    if named in PRESETS or path.suffix in (".yaml", ".yml"):
        spec = named_spec(named)
        return Subject(path.stem, spec, build(spec, seed=0).eval(), Origin.RANDOM)
    if path.is_dir():
        path = weights_in(path, which)
    if not path.is_file():
        raise NotFound(
            "the network must be a preset, a spec file (.yaml), a run's checkpoint (.pt), a file of weights or the "
            "folder of a training at full scale",
            value=named,
            remedy=did_you_mean(named, PRESETS, "Presets"),
        )
    if RUN_FILE.fullmatch(path.name):
        return _trained(path, storage)
    spec, model = load_weights(path)
    folder = path.absolute().parent
    if not is_training(folder):
        return Subject(path.stem, spec, model, Origin.FILE)
    recipe = load_full_recipe(str(folder / RECIPE))
    return Subject(f"{folder.name}/{path.stem}", spec, model, Origin.FILE, full_recipe=recipe)


def _trained(path: Path, storage: str | None) -> Subject:
    study = path.absolute().parent.parent
    place = Place(study.parent, storage)
    run = run_of(path, place)
    spec, model = load_weights(path, run.spec)
    return Subject(
        f"{study.name}/{path.stem[:SHOWN_DIGITS]}",
        spec,
        model,
        Origin.RUN,
        recipe=run.recipe,
        epochs=load_epoch(path),
        data_cache=Job(run, study).data_cache,
    )
