"""Reset finished runs so that they are trained again, and reopen the trials whose results depend on them.

A run that is trained again changes the result of every trial that uses it, in any study. These trials go back into
Optuna's queue in the same transaction, so that no study shows a value that its runs do not have; the next driver of
each study completes them again from the store, without training.

This module imports Optuna; it is imported inside functions.
"""

import json
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import Connection, delete, inspect, select, update

from harness.errors import StoreError
from harness.storage.lock import DriverLock
from harness.storage.optuna_cache import TABLES
from harness.storage.rows import RunRow, stored_environments
from harness.storage.store import Store
from harness.storage.tables import Base
from harness.storage.transitions import EPOCHS, MEASURES
from harness.training.run import Job, RunState

RUNS = Base.metadata.tables["runs"]
LINKS = Base.metadata.tables["trial_runs"]
KEPT_ATTRIBUTES = (
    *("fingerprint", "spec", "recipe", "params", "macs", "seeds", "runs", "further_seeds"),
    *("race_round", "repeats"),
    *("proposed_by", "proposed_from", "enqueued_as", "first_rung"),
)
"""User attributes of a trial that are not part of its result."""
PRUNING = ("screening", "judged_by_seeds")
"""User attributes of a trial that a pruner may end: the seed of its screening run, or that its seeds are compared; kept
with the learning curve."""
PROMOTION = ("rungs_passed", "paused")
"""User attributes of a trial that has passed rungs of the pruner `asha`; kept with the learning curve."""
RESULT_PREFIXES = ("constraints", "completed_rung_")
"""System attributes of a trial that are part of its result."""


def replace_runs(store: Store, study: str, run_ids: Collection[str], *, is_open: bool = False) -> list[RunRow]:
    """Reset runs so that they are trained from the first epoch: QUEUED, without epochs and metrics.

    Returns their rows from before. Their records and weights are kept as files, see `archive_replaced`. Trials of all
    studies that depend on them go back into the queue; with `is_open`, except those of `study` itself. To be called
    under the `DriverLock` of `study`; raises `StoreError` if another study that shares a run has a driver, or a run is
    being trained.
    """
    replaced = [row for row in store.runs(run_ids).values() if row.state not in (RunState.QUEUED, RunState.RUNNING)]
    owners = _owners(store, [row.id for row in replaced])
    with ExitStack() as locks:
        for other in sorted({name for name, _ in owners} - {study}):
            locks.enter_context(DriverLock(store, other))
        for row in replaced:
            if row.owner is not None:
                raise StoreError("a run that is to be trained again must not be in use", value=row.owner, place=row.id)
            archive_replaced(store, row)
        with store.session() as session:
            connection = session.connection()
            for row in replaced:
                _reset(connection, row.id)
            reopen_trials(connection, (owner for owner in owners if not (is_open and owner[0] == study)), is_anew=True)
    return replaced


def archive_replaced(store: Store, row: RunRow) -> Path | None:
    """Write a run's rows to a file next to its study's logs, move its weights there, and return the file's path."""
    if row.folder is None:
        return None
    job = Job(row.run, row.folder)
    place = job.replaced
    place.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "id": row.id,
        "seed": row.run.seed,
        "spec": row.run.spec.canonical(),
        "recipe": row.run.recipe.model_dump(mode="json"),
        "state": str(row.state),
        "cause": row.cause,
        "wall_s": row.wall_s,
        "finished": None if row.finished is None else row.finished.isoformat(),
        "host": row.host,
        "device": row.device,
        "versions": row.versions,
        "environment": stored_environments(row.environment, row.earlier, row.timed),
        "epochs": [asdict(epoch) for epoch in store.epochs(row.id)],
        "measures": store.metrics(row.id),
    }
    path = place.with_name(f"{place.name}.json")
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    if job.checkpoint.is_file():  # otherwise the next attempt would resume from it
        job.checkpoint.replace(path.with_suffix(".pt"))
    return path


def reopen_trials(connection: Connection, owners: Iterable[tuple[str, int]], *, is_anew: bool) -> int:
    """Put finished trials, given as (study, number), back into Optuna's queue without their results; returns the count.

    With `is_anew`, their learning curves are deleted too, and a pruner does not screen them again.
    """
    if not inspect(connection).has_table("trials"):
        return 0
    trials, studies = TABLES["trials"], TABLES["studies"]
    count = 0
    for study, number in owners:
        chosen = select(trials.c.trial_id).join(studies, studies.c.study_id == trials.c.study_id)
        finished = trials.c.state.in_((TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
        trial_id = connection.scalar(chosen.where(studies.c.study_name == study, trials.c.number == number, finished))
        if trial_id is not None:
            _reopen(connection, trial_id, is_anew=is_anew)
            count += 1
    return count


def _owners(store: Store, run_ids: Collection[str]) -> list[tuple[str, int]]:
    """The trials that depend on these runs, as (study, number)."""
    with store.session() as session:
        links = session.execute(select(LINKS.c.study, LINKS.c.trial).where(LINKS.c.run_id.in_(list(run_ids))))
        return sorted({(study, trial) for study, trial in links})


def _reset(connection: Connection, run_id: str) -> None:
    for table in (EPOCHS, MEASURES):
        connection.execute(delete(table).where(table.c.run_id == run_id))
    empty: dict[str, Any] = dict.fromkeys(("cause", "started", "finished", "host", "pid", "device", "threads"))
    empty |= dict.fromkeys(("versions", "environment"))
    connection.execute(
        update(RUNS).where(RUNS.c.id == run_id).values(**empty, state=RunState.QUEUED, attempts=0, wall_s=0.0)
    )


def _reopen(connection: Connection, trial_id: int, *, is_anew: bool) -> None:
    def rows_of(name: str) -> Any:
        return delete(TABLES[name]).where(TABLES[name].c.trial_id == trial_id)

    connection.execute(rows_of("trial_values"))
    user, system, trials = TABLES["trial_user_attributes"], TABLES["trial_system_attributes"], TABLES["trials"]
    kept = KEPT_ATTRIBUTES if is_anew else (*KEPT_ATTRIBUTES, *PRUNING, *PROMOTION)
    connection.execute(rows_of("trial_user_attributes").where(user.c.key.not_in(kept)))
    for prefix in RESULT_PREFIXES:
        connection.execute(rows_of("trial_system_attributes").where(system.c.key.startswith(prefix, autoescape=True)))
    if is_anew:
        connection.execute(rows_of("trial_intermediate_values"))
    values = {"state": TrialState.WAITING, "datetime_complete": None}
    connection.execute(update(trials).where(trials.c.trial_id == trial_id).values(**values))
