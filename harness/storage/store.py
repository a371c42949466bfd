"""The store: all queries and changes that the driver and the reports make in the database.

Each call is one transaction. It returns `RunRow`s and similar values, which stay valid after the store is closed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from harness.config.measures import is_of_machine
from harness.config.recipes.proxy import ProxyRecipe
from harness.errors import NotFound
from harness.models.spec.network import NetworkSpec
from harness.storage import rows, transitions
from harness.storage.attempts import ATTEMPT_EVENT, Attempt, read_attempts
from harness.storage.database import Database
from harness.storage.rows import EventRow, RunRow, StudyRow
from harness.storage.tables import EventTable, FullScaleRunTable, MeasureTable, RunTable, StudyTable, TrialRunTable
from harness.storage.transitions import EPOCHS
from harness.training.environment import Environment
from harness.training.run import Epoch, Measured, Record, Run, RunState

BATCH = 500
"""Ids per query; databases limit the number of values in one."""
CHANGE_EVENT = "file changed"
"""Kind of the event that records how a study file was extended; `changes` returns it, `events` does not."""
SEARCH_LOG = "search log"
"""Kind of the entries of the log of a search, see `harness.search.search_log`; `search_log` returns them."""
RECORDS = (CHANGE_EVENT, ATTEMPT_EVENT)
"""Kinds of events that are kept where a study's trials were deleted; like `SEARCH_LOG`, they have their own methods."""


class Store(Database):
    """Reads and writes studies, runs, links and events. Create it with `Store.open`; a context manager.

    Every method raises `StoreError` for an error of the database: full disk, locked, damaged, removed.
    """

    # Studies

    def save_study(self, name: str, *, fingerprint: str, resolved: str, change: str | None = None) -> StudyRow:
        """Save a resolved study file; it replaces an earlier one of the same name.

        `change` describes how it was extended; it is saved in the same transaction, and `changes` returns it.
        """
        now = datetime.now(UTC)
        with self.session() as session:
            row = session.get(StudyTable, name) or StudyTable(name=name, created=now)
            row.fingerprint, row.resolved, row.updated = fingerprint, resolved, now
            session.add(row)
            if change is not None:
                session.add(
                    EventTable(time=now, study=name, trial=None, run_id=None, kind=CHANGE_EVENT, message=change)
                )
            return rows.study_row(row)

    def changes(self, study: str) -> list[str]:
        """The saved extensions of a study file, oldest first."""
        kept = select(EventTable.message).where(EventTable.study == study, EventTable.kind == CHANGE_EVENT)
        with self.session() as session:
            return list(session.scalars(kept.order_by(EventTable.id)))

    def study(self, name: str) -> StudyRow:
        """The study with this name. Raises `NotFound`, which lists all studies."""
        with self.session() as session:
            row = session.get(StudyTable, name)
            if row is not None:
                return rows.study_row(row)
        names = ", ".join(study.name for study in self.studies()) or "none"
        raise NotFound("the study must have been started", value=name, place=self.location, remedy=f"Studies: {names}.")

    def studies(self) -> list[StudyRow]:
        """All studies, by name."""
        with self.session() as session:
            return [rows.study_row(row) for row in session.scalars(select(StudyTable).order_by(StudyTable.name))]

    def delete_study(self, study: str, *, and_then: Callable[[Connection], None]) -> list[RunRow]:
        """Delete a study, its links and its events, and the runs that no other study is linked to or trains.

        Returns the deleted runs. `and_then` is called in the same transaction; see `optuna_storage.delete_study`.
        """
        with self.session() as session:
            mine = select(TrialRunTable.run_id).where(TrialRunTable.study == study)
            other_runs = select(TrialRunTable.run_id).where(TrialRunTable.study != study)
            is_free = RunTable.owner.is_(None) | (RunTable.owner == study)
            alone = select(RunTable).where(RunTable.id.in_(mine), RunTable.id.not_in(other_runs), is_free)
            gone = [self._row(row) for row in session.scalars(alone)]
            _unlink(session, study)
            session.execute(delete(StudyTable).where(StudyTable.name == study))
            for ids in _batches(row.id for row in gone):
                session.execute(delete(RunTable).where(RunTable.id.in_(ids)))
            and_then(session.connection())
            return gone

    # Runs

    def ensure_run(self, run: Run) -> RunRow:
        """The run's row, created if it does not exist.

        A run that an earlier version recorded as COMPLETE without all of its epochs becomes FAILED.
        """
        try:
            with self.session() as session:
                row = session.get(RunTable, run.id)
                if row is None:
                    row = rows.queued_run(run, datetime.now(UTC))
                    session.add(row)
                elif row.state == RunState.COMPLETE:
                    epochs = session.scalars(select(EPOCHS.c.epoch).where(EPOCHS.c.run_id == run.id))
                    transitions.reopen_incomplete(row, epochs)
                return self._row(row)
        except IntegrityError:  # another driver created it in between
            return self.run(run.id)

    def claim(self, run_id: str, study: str, folder: Path) -> RunRow | None:
        """Claim a run to train it for a study; None if it is settled, or being trained.

        The returned row is QUEUED. Train in its folder, which is that of the first claim, so that the run resumes from
        its checkpoint.
        """
        with self.session() as session:
            is_free = RunTable.owner.is_(None) | (RunTable.owner == study)
            is_over = RunTable.state.not_in((*transitions.SETTLED, RunState.RUNNING))
            free = update(RunTable).where(RunTable.id == run_id, is_over, is_free)
            place = func.coalesce(RunTable.folder, self.relative(folder))
            taken = session.execute(
                free.values(owner=study, state=RunState.QUEUED, folder=place).returning(RunTable.id)
            )
            is_mine = taken.first() is not None
            row = self._get(session, run_id)
            return self._row(row) if is_mine else None

    def record(self, run_id: str, records: Sequence[Record], log: tuple[str, str] | None = None) -> list[Record]:
        """Write the records of a claimed run, all or none, and return them as they were written.

        They differ from `records` in one case: a run that ends as COMPLETE without all of its epochs is FAILED. `log`
        is a study and the entry of its search log about the records, which is written with them. Raises `StoreError`
        for a run that is settled.
        """
        added = [record for record in records if isinstance(record, Epoch | Measured)]
        with self.session() as session:
            if log is not None:
                session.add(_log_entry(*log, run_id))
            if len(added) < len(records):
                return transitions.apply_records(session, self._get(session, run_id, is_changed=True), records)
            connection = session.connection()  # epochs are frequent, and do not need the whole row
            status = transitions.lock_run_row(connection, run_id) or self._missing(run_id)
            for record in added:
                transitions.add_record(connection, status, record)
            return list(records)

    def set_times(self, run_id: str, metrics: Mapping[str, float], environment: Environment) -> bool:
        """Replace all times and memory metrics of a complete run with new measurements.

        `environment` is where they were measured. Returns False for a run that is no longer complete, and does not
        change it.
        """
        with self.session() as session:
            row = self._get(session, run_id, is_changed=True)
            if row.state != RunState.COMPLETE:
                return False
            names = session.scalars(select(MeasureTable.name).where(MeasureTable.run_id == run_id))
            old = [name for name in names if is_of_machine(name)]
            gone = (MeasureTable.run_id == run_id) & MeasureTable.name.in_(old)
            session.execute(delete(MeasureTable).where(gone))
            session.add_all(MeasureTable(run_id=run_id, name=name, value=value) for name, value in metrics.items())
            environments = rows.environments_of(row.environment)
            row.environment = rows.stored_environments(
                environments.get("environment"), environments.get("earlier", ()), environment
            )
            return True

    def mark_lost_runs(self, study: str) -> list[RunRow]:
        """Close the open runs of a dead driver of this study: RUNNING runs become LOST, queued ones are free again.

        To be called by the holder of the study's `DriverLock`. Returns the runs that are LOST.
        """
        with self.session() as session:
            left = list(session.scalars(select(RunTable).where(RunTable.owner == study)))
            for row in left:
                transitions.mark_lost(session, row)
            return [self._row(row) for row in left if row.state == RunState.LOST]

    def reopen_incomplete(self, study: str) -> list[RunRow]:
        """Make COMPLETE runs of a study that lack an epoch FAILED, and return them.

        To be called like `mark_lost_runs`; earlier versions could leave such runs, and so can a deletion of rows.
        """
        mine = select(TrialRunTable.run_id).where(TrialRunTable.study == study)
        complete = select(RunTable).where(RunTable.id.in_(mine), RunTable.state == RunState.COMPLETE)
        with self.session() as session:
            chosen = list(session.scalars(complete))
            epochs: dict[str, list[int]] = {}
            for ids in _batches(row.id for row in chosen):
                curves = select(EPOCHS.c.run_id, EPOCHS.c.epoch).where(EPOCHS.c.run_id.in_(ids))
                for run_id, epoch in session.execute(curves):
                    epochs.setdefault(run_id, []).append(epoch)
            reopened = [row for row in chosen if transitions.reopen_incomplete(row, epochs.get(row.id, ()))]
            return [self._row(row) for row in reopened]

    def run(self, run_id: str) -> RunRow:
        """The run with this id. Raises `NotFound`."""
        with self.session() as session:
            return self._row(self._get(session, run_id))

    def runs(self, run_ids: Iterable[str]) -> dict[str, RunRow]:
        """Runs by id, in the order of `run_ids`, without those that do not exist."""
        rows_by_id: dict[str, RunRow] = {}
        with self.session() as session:
            for ids in _batches(run_ids):
                by_id = {row.id: row for row in session.scalars(select(RunTable).where(RunTable.id.in_(ids)))}
                rows_by_id |= {run_id: self._row(by_id[run_id]) for run_id in ids if run_id in by_id}
        return rows_by_id

    def complete_runs_of(self, networks: Iterable[str]) -> list[RunRow]:
        """The complete runs of these networks, by their fingerprints, with any recipe, of any study, by time."""
        complete: list[RunTable] = []
        with self.session() as session:
            for fingerprints in _batches(networks):
                chosen = select(RunTable).where(RunTable.spec_fingerprint.in_(fingerprints))
                complete += session.scalars(chosen.where(RunTable.state == RunState.COMPLETE))
            return [self._row(row) for row in sorted(complete, key=lambda row: (row.created, row.id))]

    def epochs(self, run_id: str) -> list[Epoch]:
        """The learning curve of a run, by epoch."""
        return self.epochs_of_runs([run_id]).get(run_id, [])

    def epochs_of_runs(self, run_ids: Iterable[str]) -> dict[str, list[Epoch]]:
        """The learning curves of many runs, without those that have none."""
        curves: dict[str, list[Epoch]] = {}
        with self.session() as session:
            for ids in _batches(run_ids):
                chosen = select(EPOCHS).where(EPOCHS.c.run_id.in_(ids))
                for run_id, *fields in session.execute(chosen.order_by(EPOCHS.c.run_id, EPOCHS.c.epoch)):
                    curves.setdefault(run_id, []).append(Epoch(*fields))
        return curves

    def metrics(self, run_id: str) -> dict[str, float]:
        """The metrics of a run, by name."""
        return self.metrics_of_runs([run_id]).get(run_id, {})

    def metrics_of_runs(self, run_ids: Iterable[str]) -> dict[str, dict[str, float]]:
        """The metrics of many runs, without runs that have none."""
        metrics: dict[str, dict[str, float]] = {}
        with self.session() as session:
            for ids in _batches(run_ids):
                chosen = select(MeasureTable).where(MeasureTable.run_id.in_(ids))
                for row in session.scalars(chosen.order_by(MeasureTable.run_id, MeasureTable.name)):
                    metrics.setdefault(row.run_id, {})[row.name] = row.value
        return metrics

    def wall_times(
        self,
        recipe: ProxyRecipe,
        spec: NetworkSpec | None = None,
        *,
        data: str | None = None,
        environment: Environment | None = None,
    ) -> list[float]:
        """Seconds of training of each complete run of a recipe on data, of all networks or of one; for estimates.

        With `environment`, only of runs that were trained in such an environment.
        """
        chosen = select(RunTable.wall_s, RunTable.environment).where(
            RunTable.recipe_fingerprint == recipe.fingerprint(),
            RunTable.state == RunState.COMPLETE,
            RunTable.data.is_not_distinct_from(data),
        )
        if spec is not None:
            chosen = chosen.where(RunTable.spec_fingerprint == spec.fingerprint())
        with self.session() as session:
            times = session.execute(chosen).all()
        return [wall_s for wall_s, stored in times if environment is None or rows.is_of(stored, environment)]

    # Links and events

    def link(self, study: str, trial: int, run_id: str, position: int) -> None:
        """Record that a trial owns a run, as its seed number `position`; a second call changes nothing."""
        with self.session() as session:
            session.merge(TrialRunTable(study=study, trial=trial, position=position, run_id=run_id))

    def unlink(self, study: str) -> None:
        """Delete the links and events of a study, but not its runs, the changes of its file and what it has trained."""
        with self.session() as session:
            _unlink(session, study, is_keeping_records=True)

    def unlink_runs(self, study: str, trial: int, run_ids: Iterable[str]) -> None:
        """Delete the links of a trial to these runs, which it has not trained."""
        mine = (TrialRunTable.study == study) & (TrialRunTable.trial == trial)
        with self.session() as session:
            session.execute(delete(TrialRunTable).where(mine, TrialRunTable.run_id.in_(list(run_ids))))

    def trial_runs(self, study: str) -> dict[int, list[str]]:
        """Run ids by trial number, in the order of their positions."""
        links = select(TrialRunTable.trial, TrialRunTable.run_id).where(TrialRunTable.study == study)
        runs_by_trial: dict[int, list[str]] = {}
        with self.session() as session:
            for trial, run_id in session.execute(links.order_by(TrialRunTable.trial, TrialRunTable.position)):
                runs_by_trial.setdefault(trial, []).append(run_id)
        return runs_by_trial

    def event(
        self, study: str, kind: str, message: str, *, trial: int | None = None, run_id: str | None = None
    ) -> None:
        """Record an event."""
        now = datetime.now(UTC)
        with self.session() as session:
            session.add(EventTable(time=now, study=study, trial=trial, run_id=run_id, kind=kind, message=message))

    def events(self, study: str, limit: int = 100) -> list[EventRow]:
        """The last events of a study, oldest first."""
        listed = select(EventTable).where(EventTable.study == study, EventTable.kind.not_in((*RECORDS, SEARCH_LOG)))
        latest = listed.order_by(EventTable.id.desc()).limit(limit)
        with self.session() as session:
            return [rows.event_row(row) for row in session.scalars(latest)][::-1]

    def log_search(self, study: str, entry: str) -> None:
        """Add an entry that belongs to no run to the log of a search."""
        with self.session() as session:
            session.add(_log_entry(study, entry))

    def search_log(self, study: str) -> list[tuple[str | None, str]]:
        """The log of a search, oldest entry first: a run, or None, and what is recorded about it."""
        mine = (EventTable.study == study) & (EventTable.kind == SEARCH_LOG)
        with self.session() as session:
            entries = session.execute(select(EventTable.run_id, EventTable.message).where(mine).order_by(EventTable.id))
            return [(run_id, message) for run_id, message in entries]

    def attempts(self, study: str) -> list[Attempt]:
        """What a study has trained, start by start."""
        with self.session() as session:
            return list(read_attempts(session, study))

    def last_attempt(self, study: str) -> int:
        """The number of the event of the study's last attempt, comparable with `EventRow.id`; 0 if there is none."""
        mine = (EventTable.study == study) & (EventTable.kind == ATTEMPT_EVENT)
        with self.session() as session:
            return session.scalar(select(func.max(EventTable.id)).where(mine)) or 0

    def runs_with_attempts(self, run_ids: Iterable[str]) -> set[str]:
        """The runs of which an attempt is recorded, for any study; earlier versions recorded none."""
        recorded: set[str] = set()
        with self.session() as session:
            for ids in _batches(run_ids):
                chosen = (EventTable.kind == ATTEMPT_EVENT) & EventTable.run_id.in_(ids)
                recorded |= {run_id for run_id in session.scalars(select(EventTable.run_id).where(chosen)) if run_id}
        return recorded

    def first_event(self, study: str, kind: str) -> EventRow | None:
        """The first event of a kind in a study."""
        chosen = select(EventTable).where(EventTable.study == study, EventTable.kind == kind)
        with self.session() as session:
            row = session.scalars(chosen.order_by(EventTable.id).limit(1)).first()
            return None if row is None else rows.event_row(row)

    def notes_of(self, run_ids: Iterable[str]) -> list[str]:
        """The notes on the data of runs, without duplicates, oldest first."""
        notes: dict[str, None] = {}
        with self.session() as session:
            for ids in _batches(run_ids):
                chosen = select(EventTable.message).where(
                    EventTable.kind == transitions.DATA_EVENT, EventTable.run_id.in_(ids)
                )
                notes |= dict.fromkeys(session.scalars(chosen.order_by(EventTable.id)))
        return list(notes)

    # Private helpers

    def _get(self, session: Session, run_id: str, *, is_changed: bool = False) -> RunTable:
        row = session.get(RunTable, run_id, with_for_update=is_changed)
        return row or self._missing(run_id)

    def _missing(self, run_id: str) -> NoReturn:
        raise NotFound(
            "the run must have been recorded",
            value=run_id,
            place=self.location,
            remedy="Where another process has deleted it, run the same command again: its checkpoint is kept.",
        )

    def _row(self, row: RunTable) -> RunRow:
        return rows.run_row(row, self.root)


def _log_entry(study: str, entry: str, run_id: str | None = None) -> EventTable:
    return EventTable(time=datetime.now(UTC), study=study, run_id=run_id, kind=SEARCH_LOG, message=entry)


def _unlink(session: Session, study: str, *, is_keeping_records: bool = False) -> None:
    session.execute(delete(TrialRunTable).where(TrialRunTable.study == study))
    events = delete(EventTable).where(EventTable.study == study)
    session.execute(events.where(EventTable.kind.not_in(RECORDS)) if is_keeping_records else events)
    session.execute(update(FullScaleRunTable).where(FullScaleRunTable.study == study).values(study=None, trial=None))


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    """The distinct ids in batches of at most `BATCH`."""
    distinct = list(dict.fromkeys(ids))
    for start in range(0, len(distinct), BATCH):
        yield distinct[start : start + BATCH]
