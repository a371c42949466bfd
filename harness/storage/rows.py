"""What the store hands out: plain frozen values, free of any session."""

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
"""Kind of the stored event of a look at a study's claims that came to other verdicts than the one before."""
SEARCH_ENDED = "search ended"
"""Kind of the stored event that keeps the reason of `StudyEnded`."""
TRIAL_ENDED = ("trial complete", "trial pruned", "trial failed")
"""Kinds of the stored events that a trial ended."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run and how it stands."""

    id: str
    run: Run
    state: RunState
    cause: str | None
    """Why it ended as it did, in one line, for every final state but COMPLETE."""
    attempts: int
    """How often a worker took it up."""
    owner: str | None
    """The study whose driver is having it trained now."""
    folder: Path | None
    """The folder of the study that first claimed it; its checkpoint and log are below it."""
    created: datetime
    started: datetime | None
    """When the last attempt reached its worker; UTC, as all times."""
    finished: datetime | None
    wall_s: float
    """Training time of all attempts together."""
    host: str | None
    pid: int | None
    device: str | None
    threads: int | None
    versions: dict[str, str]
    environment: Environment | None = None
    """What computed its last attempt; None for a run that was recorded before environments were."""
    earlier: tuple[Environment | None, ...] = ()
    """Other environments that trained its first epochs, where it was resumed in another one."""
    timed: Environment | None = None
    """Where its times and its memory were measured."""

    @property
    def environments(self) -> tuple[Environment | None, ...]:
        """All that had a part in its weights."""
        return (*self.earlier, self.environment)

    def is_of(self, reference: Environment) -> bool:
        """Whether all of it was computed in an environment like the reference."""
        return not any(differs(environment, reference) for environment in self.environments)


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study file, as it was resolved when it was last saved."""

    name: str
    fingerprint: str
    resolved: str
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that happened in a study."""

    id: int
    time: datetime
    study: str
    trial: int | None
    run_id: str | None
    kind: str
    message: str


def queued_run(run: Run, now: datetime) -> RunTable:
    """The row of a run that nobody has trained. Values at their default are written out: a default may change."""
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
    """All fields of a network as plain values."""
    values = {name: getattr(spec, name) for name in FIELDS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def run_row(row: RunTable, root: Path | None) -> RunRow:
    """The value of a row; `root` is the folder that relative folders are relative to."""
    return RunRow(
        id=row.id,
        run=Run(NetworkSpec.from_mapping(row.spec), ProxyRecipe.model_validate(row.recipe), row.seed, row.data),
        state=row.state,
        cause=row.cause,
        attempts=row.attempts,
        owner=row.owner,
        folder=None if row.folder is None else (root or Path()) / row.folder,
        created=row.created,
        started=row.started,
        finished=row.finished,
        wall_s=row.wall_s,
        host=row.host,
        pid=row.pid,
        device=row.device,
        threads=row.threads,
        versions=row.versions or {},
        **environments_of(row.environment),
    )


def environments_of(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """The three fields of `RunRow` in what the column `environment` holds."""
    if stored is None:
        return {}
    return {
        "environment": Environment.from_values(stored["trained"]),
        "earlier": tuple(Environment.from_values(each) for each in stored["earlier"]),
        "timed": Environment.from_values(stored["timed"]),
    }


def is_of(stored: Mapping[str, Any] | None, reference: Environment) -> bool:
    """Whether a run with such a column was computed in an environment like the reference."""
    found = environments_of(stored)
    return not any(differs(each, reference) for each in (*found.get("earlier", ()), found.get("environment")))


def stored_environments(
    environment: Environment | None, earlier: Sequence[Environment | None], timed: Environment | None
) -> dict[str, Any]:
    """The same for the column."""
    return {
        "trained": None if environment is None else environment.values(),
        "earlier": [None if environment is None else environment.values() for environment in earlier],
        "timed": None if timed is None else timed.values(),
    }


def study_row(row: StudyTable) -> StudyRow:
    """The value of a row."""
    return StudyRow(row.name, row.fingerprint, row.resolved, row.created, row.updated)


def event_row(row: EventTable) -> EventRow:
    """The value of a row."""
    return EventRow(row.id, row.time, row.study, row.trial, row.run_id, row.kind, row.message)
