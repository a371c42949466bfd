"""A network as the command line names it: a preset, a spec file, a run's checkpoint, or a file of weights."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from torch import nn

from harness.checkpoint import load_epoch
from harness.errors import NotFound, did_you_mean
from harness.network import build
from harness.presets import PRESETS
from harness.recipe import Recipe
from harness.run import Job
from harness.session import Place, run_of
from harness.spec import NetworkSpec
from harness.study import named_spec
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

    @property
    def about(self) -> str:
        """Where the weights come from, in words."""
        if self.recipe is None or self.epochs is None:
            return self.origin.value
        return f"{self.origin.value} after {self.epochs} of {self.recipe.epochs} epochs"


def find_subject(named: str, storage: str | None = None) -> Subject:
    """The network of that name or in that file.

    A run's checkpoint is `<results>/<study>/checkpoints/<run>.pt`; the database beside its study, or that at `storage`,
    knows its network and recipe. Raises `UserError`s for what is not there, or is something else.
    """
    path = Path(named)
    if named in PRESETS or path.suffix in (".yaml", ".yml"):
        spec = named_spec(named)
        return Subject(path.stem, spec, build(spec, seed=0).eval(), Origin.RANDOM)
    if not path.is_file():
        raise NotFound(
            "the network must be a preset, a spec file (.yaml), a run's checkpoint (.pt) or a file of weights",
            value=named,
            remedy=did_you_mean(named, PRESETS, "Presets"),
        )
    if RUN_FILE.fullmatch(path.name):
        return _trained(path, storage)
    spec, model = load_weights(path)
    return Subject(path.stem, spec, model, Origin.FILE)


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
