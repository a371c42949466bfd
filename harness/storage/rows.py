"""Row types that the store returns: plain frozen values, independent of any database session."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.config.recipes.proxy import ProxyRecipe
from harness.models.spec.network import FIELDS, NetworkSpec
from harness.storage.tables import EventTable, RunTable, StudyTable
from harness.training.environment import Environment, differs
from harness.training.run import Run, RunState

CLAIMS_EVENT = "claims judged"
"""Kind of the stored event of a look at a study's claims whose verdicts differ from those of the look before."""
STUDY_GROWN = "study grown"
"""Kind of the stored event of additions to a study file; its message lists them."""
SEARCH_ENDED = "search ended"
"""Kind of the stored event with the reason of `StudyEnded`."""
BUDGET_ENDED, PLATEAU_REACHED = "budget used up", "plateau reached"
"""Kinds of the stored events of a study that ended by `search.budget` or `search.plateau`, with the reason."""
REASONS_ENDED = (BUDGET_ENDED, PLATEAU_REACHED, SEARCH_ENDED)
"""Kinds of the stored events with a reason why a search ended."""
TRIAL_ENDED = ("trial complete", "trial pruned", "trial failed")
"""Kinds of the stored events of a trial's end."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run and its state."""

    id: str
    run: Run
    state: RunState
    cause: str | None
    """Why it ended as it did, in one line, for every final state but COMPLETE."""
    attempts: int
    """Number of times that a worker started it."""
    owner: str | None
    """The study that is training it now."""
    folder: Path | None
    """The folder of the study that first claimed it; its checkpoint and log are below it."""
    created: datetime
    started: datetime | None
    """Start of the last attempt on its worker; UTC, like all times."""
    finished: datetime | None
    wall_s: float
    """Total training time of all attempts."""
    host: str | None
    pid: int | None
    device: str | None
    threads: int | None
    versions: dict[str, str]
    environment: Environment | None = None
    """Environment of its last attempt; None for a run recorded by a version that did not store environments."""
    earlier: tuple[Environment | None, ...] = ()
    """Other environments that trained its first epochs, if it was resumed in another one."""
    timed: Environment | None = None
    """Environment in which its times and its memory were measured."""

    @property
    def environments(self) -> tuple[Environment | None, ...]:
        """All environments that trained its weights."""
        return (*self.earlier, self.environment)

    def is_of(self, reference: Environment) -> bool:
        """Whether all of its epochs were computed in an environment like the reference."""
        return not any(differs(environment, reference) for environment in self.environments)


COPIED_FIELDS = (
    *("id", "state", "cause", "attempts", "owner", "created", "started", "finished"),
    *("wall_s", "host", "pid", "device", "threads"),
)
"""Columns that are equal to the fields of `RunRow`."""


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study file, resolved as it was last saved."""

    name: str
    fingerprint: str
    resolved: str
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event in a study."""

    id: int
    time: datetime
    study: str
    trial: int | None
    run_id: str | None
    kind: str
    message: str


def queued_run(run: Run, now: datetime) -> RunTable:
    """The row of a run that is not trained yet. Default values are written out, since a default may change."""
    return RunTable(
        id=run.id,
        spec=spec_values(run.spec),
        spec_fingerprint=run.spec.fingerprint(),
        recipe=run.recipe.model_dump(mode="json"),
        recipe_fingerprint=run.recipe.fingerprint(),
        seed=run.seed,
        data=run.data,
        state=RunState.QUEUED,
        created=now,
        attempts=0,
        wall_s=0.0,
    )


def spec_values(spec: NetworkSpec) -> dict[str, Any]:
    """All fields of a network specification as plain values."""
    values = {name: getattr(spec, name) for name in FIELDS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def run_row(row: RunTable, root: Path | None) -> RunRow:
    """Convert a row of the table; `root` is the base of relative folders."""
    return RunRow(
        run=Run(NetworkSpec.from_mapping(row.spec), ProxyRecipe.model_validate(row.recipe), row.seed, row.data),
        folder=None if row.folder is None else (root or Path()) / row.folder,
        versions=row.versions or {},
        **{name: getattr(row, name) for name in COPIED_FIELDS},
        **environments_of(row.environment),
    )


def environments_of(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """The three environment fields of `RunRow`, from the column `environment`."""
    if stored is None:
        return {}
    return {
        "environment": Environment.from_values(stored["trained"]),
        "earlier": tuple(Environment.from_values(values) for values in stored["earlier"]),
        "timed": Environment.from_values(stored["timed"]),
    }


def is_of(stored: Mapping[str, Any] | None, reference: Environment) -> bool:
    """Whether a run with this column `environment` was computed in an environment like the reference."""
    fields = environments_of(stored)
    return not any(
        differs(environment, reference) for environment in (*fields.get("earlier", ()), fields.get("environment"))
    )


def stored_environments(
    environment: Environment | None, earlier: Sequence[Environment | None], timed: Environment | None
) -> dict[str, Any]:
    """The value of the column `environment`, from the three fields of `RunRow`."""
    return {
        "trained": None if environment is None else environment.values(),
        "earlier": [None if environment is None else environment.values() for environment in earlier],
        "timed": None if timed is None else timed.values(),
    }


def study_row(row: StudyTable) -> StudyRow:
    """Convert a row of the table."""
    return StudyRow(row.name, row.fingerprint, row.resolved, row.created, row.updated)


def event_row(row: EventTable) -> EventRow:
    """Convert a row of the table."""
    return EventRow(row.id, row.time, row.study, row.trial, row.run_id, row.kind, row.message)
