"""State transitions of a run: which state allows which record, and the rows that each record writes.

    QUEUED --Started--> RUNNING --Ended--> COMPLETE, DIVERGED          (trained again only by `analysis.reuse`)
                                           STOPPED, LOST, FAILED, OUT_OF_MEMORY, TIMED_OUT  (until claimed again)

A run may also end before it started, if no worker could take it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select
from sqlalchemy.orm import Session

from harness.errors import StoreError, first_of
from harness.storage.attempts import begin_attempt, end_attempt
from harness.storage.database import upsert
from harness.storage.rows import environments_of, stored_environments
from harness.storage.tables import Base, EpochTable, EventTable, MeasureTable, RunTable
from harness.training.environment import Environment
from harness.training.run import DataNote, Ended, Epoch, Measured, Record, RunState, Started, missing_epochs

RUNS = Base.metadata.tables["runs"]
EPOCHS = Base.metadata.tables["epochs"]
MEASURES = Base.metadata.tables["measures"]
RUN_STATUS = select(RUNS.c.id, RUNS.c.state, RUNS.c.owner).where(RUNS.c.id == bindparam("run_id")).with_for_update()

MAX_NAMED = 5
"""Maximum number of missing epochs that a cause lists."""
DATA_EVENT = "data"
"""Kind of the events with notes on a run's data."""
SETTLED = (RunState.COMPLETE, RunState.DIVERGED)
"""States of a run with a result; only the reuse rule (`analysis.reuse`) has such a run trained or timed again."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """State and owner of a run, which decide whether it may take a record."""

    id: str
    state: RunState
    owner: str | None


def lock_run_row(connection: Connection, run_id: str) -> RunStatus | None:
    """Lock a run's row until the end of the transaction, and return its status; None if there is no such run."""
    status = connection.execute(RUN_STATUS, {"run_id": run_id}).one_or_none()
    return None if status is None else RunStatus(*status)


def apply_records(session: Session, row: RunTable, records: Sequence[Record]) -> list[Record]:
    """Write a run's records in order and return them as they were written; see `checked_end`.

    Raises `StoreError` for a record that the run's state does not allow.
    """
    written: list[Record] = []
    for record in records:
        status = RunStatus(row.id, row.state, row.owner)
        match record:
            case Started():
                _expect(status, record, RunState.QUEUED)
                _start(session, row, record)
            case DataNote():
                _expect(status, record, RunState.RUNNING)
                _note(session, row, record)
            case Epoch() | Measured():
                add_record(session.connection(), status, record)
            case Ended():
                _expect(status, record, RunState.RUNNING, RunState.QUEUED)
                end_attempt(session, row, record.wall_s)
                record = checked_end(session, row, record)
                end_run(row, record.state, record.wall_s, record.cause)
        written.append(record)
    return written


def add_record(connection: Connection, status: RunStatus, record: Epoch | Measured) -> None:
    """Write a record that does not change the run's own row. Raises `StoreError` like `apply_records`."""
    _expect(status, record, RunState.RUNNING)
    table, key = (EPOCHS, "epoch") if isinstance(record, Epoch) else (MEASURES, "name")
    upsert(connection, table, ("run_id", key), {"run_id": status.id, **asdict(record)})


def checked_end(session: Session, row: RunTable, record: Ended) -> Ended:
    """The record, or a FAILED one if the run ends as COMPLETE and its learning curve lacks an epoch.

    The value of such a run would be that of another epoch. Its checkpoint has the missing records, which are written
    when the run is requested again. The time of a complete run is at least that of its epochs, which may have been
    trained for another database.
    """
    if record.state != RunState.COMPLETE:
        return record
    session.flush()
    stored_epochs = session.execute(select(EPOCHS.c.epoch, EPOCHS.c.wall_s).where(EPOCHS.c.run_id == row.id)).all()
    cause = missing_epochs_cause((epoch for epoch, _ in stored_epochs), row.recipe["epochs"])
    if cause is not None:
        return Ended(RunState.FAILED, record.wall_s, cause)
    epochs_s = sum(wall_s for _, wall_s in stored_epochs if math.isfinite(wall_s))
    return replace(record, wall_s=max(record.wall_s, epochs_s - row.wall_s))


def missing_epochs_cause(epochs: Iterable[int], total: int) -> str | None:
    """The reason why a run with these epochs is not complete; None if it has all of them."""
    missing = missing_epochs(epochs, total)
    if not missing:
        return None
    named = first_of(missing, MAX_NAMED)
    return f"its learning curve lacks {len(missing)} of {total} epochs ({named}); run the same command again"


def end_run(row: RunTable, state: RunState, wall_s: float, cause: str | None) -> None:
    """Close an attempt; the run then has no owner."""
    assert state not in (RunState.QUEUED, RunState.RUNNING), f"a run does not end as {state}"
    row.state = state
    row.wall_s += wall_s
    row.cause = cause
    row.finished = datetime.now(UTC)
    row.owner = None


def reopen_incomplete(row: RunTable, epochs: Iterable[int]) -> bool:
    """Make a COMPLETE run FAILED if these epochs are not all of its epochs; return whether it was changed."""
    cause = missing_epochs_cause(epochs, row.recipe["epochs"])
    if cause is not None:
        row.state, row.cause = RunState.FAILED, cause
    return cause is not None


def mark_lost(session: Session, row: RunTable) -> None:
    """Mark a run LOST after the end of its driver; its wall time is that of its stored epochs."""
    if row.state == RunState.QUEUED:
        row.owner = None
        return
    end_attempt(session, row)
    epochs_s = session.scalar(select(func.sum(EpochTable.wall_s)).where(EpochTable.run_id == row.id)) or 0.0
    end_run(row, RunState.LOST, max(0.0, epochs_s - row.wall_s), "its driver ended without a word")


def _start(session: Session, row: RunTable, record: Started) -> None:
    """Open an attempt. Epochs that it will train again are deleted, so that no epoch of another attempt remains.

    Earlier epochs are written again from the run's checkpoint, and replace the stored ones.
    """
    later = (EpochTable.run_id == row.id) & (EpochTable.epoch >= record.first_epoch)
    session.execute(delete(EpochTable).where(later))
    session.execute(delete(MeasureTable).where(MeasureTable.run_id == row.id))
    row.state = RunState.RUNNING
    row.attempts += 1
    row.cause = None
    row.started, row.finished = datetime.now(UTC), None
    row.host, row.pid, row.device = record.host, record.pid, record.device
    row.threads, row.versions = record.threads, record.versions
    row.environment = _environments_from(environments_of(row.environment), record)
    begin_attempt(session, row, record)


def _environments_from(before: Mapping[str, Any], record: Started) -> dict[str, Any] | None:
    """Environments of a run from this attempt on. The first epochs of a resumed run may be of other environments.

    These come from its checkpoint, or from the store if the checkpoint does not have them.
    """
    earlier: list[Environment | None] = []
    if record.first_epoch > 1:
        stored = (*before.get("earlier", ()), before.get("environment"))
        environments = [
            one
            for environment in record.earlier or (None,)
            for one in (stored if environment is None else (environment,))
        ]
        earlier = [
            environment
            for i, environment in enumerate(environments)
            if environment != record.environment and environment not in environments[:i]
        ]
    if record.environment is None and not any(earlier):
        return None
    return stored_environments(record.environment, earlier, record.environment)


def _note(session: Session, row: RunTable, record: DataNote) -> None:
    """Store the note as an event of the study that is training the run."""
    assert row.owner is not None, "a run that takes a record has an owner"
    now = datetime.now(UTC)
    session.add(EventTable(time=now, study=row.owner, run_id=row.id, kind=DATA_EVENT, message=record.text))


def _expect(run: RunStatus, record: Record, *states: RunState) -> None:
    if run.state in SETTLED:
        raise StoreError(
            f"a run that is {run.state} must stay as it is", value=type(record).__name__, place=f"run {run.id}"
        )
    if run.state not in states or run.owner is None:
        rule = f"a run must be claimed and {' or '.join(states)} to take this record"
        raise StoreError(rule, value=type(record).__name__, place=f"run {run.id}, which is {run.state}")
