"""Attempts: what each start of a run computed, and for which study; the budget of a study counts them.

An attempt is an event of the study that owns the run. It is written when a worker starts the run, and completed when
the run ends or its driver is found dead, so that what a killed driver had trained counts, too. Epochs that come from a
checkpoint are not part of it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from harness.storage.tables import EpochTable, EventTable, RunTable
from harness.training.run import Started

ATTEMPT_EVENT = "attempt"
"""Kind of the events of attempts; `Store.attempts` returns them, `Store.events` does not."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a run."""

    run_id: str
    epochs: int
    """Number of epochs that it trained."""
    core_s: float
    """Its wall time times its threads; of one that has not ended, the time of its epochs."""


def begin_attempt(session: Session, row: RunTable, record: Started) -> None:
    """Write the event of an attempt that a worker has started."""
    assert row.owner is not None, "a run that is started has an owner"
    message = json.dumps({"first_epoch": record.first_epoch, "threads": record.threads})
    now = datetime.now(UTC)
    session.add(EventTable(time=now, study=row.owner, run_id=row.id, kind=ATTEMPT_EVENT, message=message))


def end_attempt(session: Session, row: RunTable, wall_s: float | None = None) -> None:
    """Complete the event of an attempt; without `wall_s`, its time is that of its epochs."""
    mine = (EventTable.study == row.owner) & (EventTable.kind == ATTEMPT_EVENT) & (EventTable.run_id == row.id)
    event = session.scalars(select(EventTable).where(mine).order_by(EventTable.id.desc()).limit(1)).first()
    values = {} if event is None else json.loads(event.message)
    if event is None or "seconds" in values:
        return
    epochs, epochs_s = _epochs(session, row.id, values["first_epoch"])
    event.message = json.dumps(values | {"epochs": epochs, "seconds": epochs_s if wall_s is None else wall_s})


def read_attempts(session: Session, study: str) -> Iterator[Attempt]:
    """The attempts of a study, oldest first."""
    mine = (EventTable.study == study) & (EventTable.kind == ATTEMPT_EVENT)
    chosen = select(EventTable.run_id, EventTable.message).where(mine).order_by(EventTable.id)
    for run_id, message in session.execute(chosen).all():
        assert run_id is not None, "an attempt is one of a run"
        values = json.loads(message)
        if "seconds" in values:
            epochs, seconds = values["epochs"], values["seconds"]
        else:
            epochs, seconds = _epochs(session, run_id, values["first_epoch"])
        yield Attempt(run_id, epochs, seconds * values["threads"])


def _epochs(session: Session, run_id: str, first: int) -> tuple[int, float]:
    """The number of stored epochs of a run from `first` on, and their seconds."""
    chosen = (EpochTable.run_id == run_id) & (EpochTable.epoch >= first)
    count, seconds = session.execute(select(func.count(), func.sum(EpochTable.wall_s)).where(chosen)).one()
    return count, seconds or 0.0
