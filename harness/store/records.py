"""How a run's rows follow from its records: the states a run goes through, and what each record writes.

    QUEUED --Started--> RUNNING --Ended--> COMPLETE, DIVERGED                               (never trained again)
                                           STOPPED, LOST, FAILED, OUT_OF_MEMORY, TIMED_OUT  (until claimed again)

A run may also end before it started, where no worker could take it.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from harness.errors import StoreError
from harness.run import Ended, Epoch, Measured, Record, RunState, Started
from harness.store.tables import Base, EpochTable, MeasureTable, RunTable
from harness.store.upsert import upsert

EPOCHS = Base.metadata.tables["epochs"]
MEASURES = Base.metadata.tables["measures"]

SETTLED = (RunState.COMPLETE, RunState.DIVERGED)
"""States whose rows never change."""


def apply(session: Session, row: RunTable, records: Sequence[Record]) -> None:
    """Write what a run said, in order. Raises `StoreError` for a record that its state does not allow."""
    for record in records:
        match record:
            case Started():
                _start(session, row, record)
            case Epoch():
                _expect(row, record, RunState.RUNNING)
                upsert(session.connection(), EPOCHS, ("run_id", "epoch"), {"run_id": row.id, **asdict(record)})
            case Measured():
                _expect(row, record, RunState.RUNNING)
                upsert(session.connection(), MEASURES, ("run_id", "name"), {"run_id": row.id, **asdict(record)})
            case Ended():
                _expect(row, record, RunState.RUNNING, RunState.QUEUED)
                end(row, record.state, record.wall_s, record.cause)


def end(row: RunTable, state: RunState, wall_s: float, cause: str | None) -> None:
    """Close an attempt: nobody owns the run any longer."""
    assert state not in (RunState.QUEUED, RunState.RUNNING), f"a run does not end as {state}"
    row.state = state
    row.wall_s += wall_s
    row.cause = cause
    row.finished = datetime.now(UTC)
    row.owner = None


def lose(session: Session, row: RunTable) -> None:
    """Close an attempt whose driver is gone; of its time, only that of its epochs is known."""
    if row.state == RunState.QUEUED:
        row.owner = None
        return
    seen_s = session.scalar(select(func.sum(EpochTable.wall_s)).where(EpochTable.run_id == row.id)) or 0.0
    end(row, RunState.LOST, max(0.0, seen_s - row.wall_s), "its driver ended without a word")


def _start(session: Session, row: RunTable, record: Started) -> None:
    """Open an attempt. What it will train again is forgotten, so that no epoch of another attempt stays behind it."""
    _expect(row, record, RunState.QUEUED)
    later = (EpochTable.run_id == row.id) & (EpochTable.epoch >= record.first_epoch)
    session.execute(delete(EpochTable).where(later))
    session.execute(delete(MeasureTable).where(MeasureTable.run_id == row.id))
    row.state = RunState.RUNNING
    row.attempts += 1
    row.cause = None
    row.started, row.finished = datetime.now(UTC), None
    row.host, row.pid, row.device = record.host, record.pid, record.device
    row.threads, row.versions = record.threads, record.versions


def _expect(row: RunTable, record: Record, *states: RunState) -> None:
    if row.state in SETTLED:
        raise StoreError(
            f"a run that is {row.state} must stay as it is", value=type(record).__name__, place=f"run {row.id}"
        )
    if row.state not in states or row.owner is None:
        raise StoreError(
            f"a run must be claimed and {' or '.join(states)} to take this record",
            value=type(record).__name__,
            place=f"run {row.id}, which is {row.state}",
        )
