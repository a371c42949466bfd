"""The rows of one study in a database: its file, links, events, runs and Optuna's rows, for a copy into another one.

This module imports Optuna; it is imported inside functions.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, select

from harness.errors import NotFound, StoreError
from harness.storage.attempts import ATTEMPT_EVENT, read_attempts
from harness.storage.lock import driver_of
from harness.storage.optuna_cache import TABLES
from harness.storage.optuna_storage import optuna_storage
from harness.storage.store import BATCH, Store
from harness.storage.tables import Base
from harness.storage.transitions import DATA_EVENT, SETTLED

STUDIES, RUNS, EPOCHS, MEASURES, LINKS, EVENTS = (
    Base.metadata.tables[name] for name in ("study_files", "runs", "epochs", "measures", "trial_runs", "events")
)
CONTENT = ("spec", "recipe", "seed", "data", "state", "device", "threads", "versions", "environment")
"""Columns of a settled run that must be equal in both databases, besides its curve and its metrics."""
TRIAL_TABLES = (
    *("trial_params", "trial_values", "trial_intermediate_values"),
    *("trial_user_attributes", "trial_system_attributes"),
)
ELSEWHERE = " (of another database)"
"""Appended to the name of another study whose attempts are copied; no study has such a name."""

Row = dict[str, Any]


@dataclass(slots=True)
class RunRows:
    """The rows of a run in one database."""

    row: Row
    epochs: list[Row] = field(default_factory=list)
    measures: list[Row] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        """Whether the run has an outcome that is reused."""
        return self.row["state"] in SETTLED

    @property
    def content(self) -> list[Any]:
        """What must be equal: all but when the run was trained, and how long that took. NaN equals NaN."""
        metrics = sorted((row["name"], repr(row["value"])) for row in self.measures)
        return [repr([self.row[name] for name in CONTENT]), self.curve(), metrics]

    def curve(self) -> dict[int, str]:
        """The epochs by number, without their times."""
        left_out = ("wall_s", "images_per_s", "run_id")
        return {row["epoch"]: repr([row[name] for name in row if name not in left_out]) for row in self.epochs}


@dataclass(slots=True)
class StudyRows:
    """A study in one database."""

    file: Row
    links: list[Row]
    events: list[Row]
    runs: dict[str, RunRows]
    optuna: Mapping[str, list[Row]]
    """Rows by table of Optuna's; ids are those of the database."""


def read_study(store: Store, study: str) -> StudyRows:
    """The rows of a study. Raises `NotFound` if there is none of this name, and `StoreError` if it has a driver."""
    optuna_storage(store)  # which checks the version of Optuna's tables
    holder = driver_of(store, study)
    if holder is not None:
        raise StoreError(
            "a study must have no driver while it is imported",
            value=f"`{study}`, which {holder} drives",
            place=store.location,
            remedy="Wait for its end, or end it first.",
        )
    with store.session() as session:
        connection = session.connection()
        file = one_row(connection, STUDIES, STUDIES.c.name == study)
        if file is None:
            names = ", ".join(sorted(connection.scalars(select(STUDIES.c.name)))) or "none"
            rule = "the study must be in the database that it is imported from"
            raise NotFound(rule, value=study, place=store.location, remedy=f"Studies there: {names}.")
        links = _rows(connection, LINKS, LINKS.c.study == study)
        runs = read_runs(connection, [link["run_id"] for link in links])
        events = [*_rows(connection, EVENTS, EVENTS.c.study == study), *_events_of(connection, runs, study)]
        optuna = read_optuna(connection, study)
        if optuna is None:
            raise NotFound("the trials of the study must be there", value=study, place=store.location)
        attempts = iter(list(read_attempts(session, study)))
        for event in events:
            if event["kind"] == ATTEMPT_EVENT and event["study"] == study:
                event["message"] = _ended_attempt(event["message"], next(attempts).epochs, runs.get(event["run_id"]))
    return StudyRows(file, links, sorted(events, key=lambda event: event["id"]), runs, optuna)


def read_runs(connection: Connection, run_ids: Iterable[str]) -> dict[str, RunRows]:
    """The rows of runs, by id, without those that do not exist."""
    runs: dict[str, RunRows] = {}
    for ids in _batches(run_ids):
        runs |= {row["id"]: RunRows(row) for row in _rows(connection, RUNS, RUNS.c.id.in_(ids))}
        for row in _rows(connection, EPOCHS, EPOCHS.c.run_id.in_(ids)):
            runs[row["run_id"]].epochs.append(row)
        for row in _rows(connection, MEASURES, MEASURES.c.run_id.in_(ids)):
            runs[row["run_id"]].measures.append(row)
    return runs


def _events_of(connection: Connection, runs: Mapping[str, RunRows], study: str) -> Iterator[Row]:
    """Notes on the data of runs, and their attempts, that other studies recorded; attempts under names of their own."""
    for ids in _batches(runs):
        kinds = EVENTS.c.kind.in_((DATA_EVENT, ATTEMPT_EVENT))
        for event in _rows(connection, EVENTS, kinds & EVENTS.c.run_id.in_(ids) & (EVENTS.c.study != study)):
            if event["kind"] == ATTEMPT_EVENT:
                event["study"] = f"{event['study'].removesuffix(ELSEWHERE)}{ELSEWHERE}"
            yield event


def _ended_attempt(message: str, epochs: int, run: RunRows | None) -> str:
    """The message of an attempt; one of a driver that died is completed with the epochs that it trained."""
    values = json.loads(message)
    if "seconds" not in values:
        times = [row["wall_s"] for row in run.epochs if row["epoch"] >= values["first_epoch"]] if run else []
        values |= {"epochs": epochs, "seconds": sum(times)}
    return json.dumps(values)


def read_optuna(connection: Connection, study: str) -> dict[str, list[Row]] | None:
    """Optuna's rows of a study, by table; None if Optuna has no such study."""
    studies, trials = TABLES["studies"], TABLES["trials"]
    study_id = connection.scalar(select(studies.c.study_id).where(studies.c.study_name == study))
    if study_id is None:
        return None
    of_study = ("study_directions", "study_user_attributes", "study_system_attributes", "trials")
    rows = {name: _rows(connection, TABLES[name], TABLES[name].c.study_id == study_id) for name in of_study}
    mine = select(trials.c.trial_id).where(trials.c.study_id == study_id)
    rows |= {name: _rows(connection, TABLES[name], TABLES[name].c.trial_id.in_(mine)) for name in TRIAL_TABLES}
    return rows


def _rows(connection: Connection, table: Table, where: Any) -> list[Row]:
    chosen = select(table).where(where).order_by(*table.primary_key.columns)
    return [dict(row._mapping) for row in connection.execute(chosen)]


def one_row(connection: Connection, table: Table, where: Any) -> Row | None:
    """The first row for which a condition holds; None if there is none."""
    return next(iter(_rows(connection, table, where)), None)


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    distinct = list(dict.fromkeys(ids))
    for start in range(0, len(distinct), BATCH):
        yield distinct[start : start + BATCH]
