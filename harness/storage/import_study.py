"""Copies a study from another database: its trials, runs, learning curves, metrics, environments and events.

Runs keep their ids, which follow from their content, so that the study is continued here, and other studies reuse what
it trained. A run that both databases have must have the same content, except that one that is not settled may be
continued by the other. A study that is here already must be the same one, or one of the two must be an addition to the
other (`config.study_growth`), and it must contain the trials of the other one. All checks come before
the one transaction in which everything is written, so that nothing is written if anything is refused, and a second
import changes nothing. Trainings at full scale are not copied. What other studies there trained of its runs is recorded
under a name that no study has, so that it is not taken for the work of a study of that name here.

This module imports Optuna; it is imported inside functions.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import Connection, Table, insert, inspect, select, update

from harness.errors import StoreError
from harness.storage.database import sqlite_file
from harness.storage.lock import DriverLock
from harness.storage.optuna_cache import TABLES
from harness.storage.optuna_storage import optuna_storage
from harness.storage.store import Store
from harness.storage.study_rows import (
    EPOCHS,
    EVENTS,
    LINKS,
    MEASURES,
    RUNS,
    STUDIES,
    TRIAL_TABLES,
    Row,
    RunRows,
    StudyRows,
    one_row,
    read_optuna,
    read_runs,
    read_study,
)
from harness.system.atomic_write import atomic_write
from harness.system.fingerprint import fingerprint
from harness.training.run import Job, RunState

MAX_NAMED = 3
"""Maximum number of runs that an error names."""
IDENTIFYING = ("fingerprint", "seeds", "proposed_by", "proposed_from", "enqueued_as")
"""User attributes of a trial that must be equal in both databases, besides its state, choices and values."""

OTHER_NAME = "Give the file another name under `study:` in one of them, or import into another results folder."


@dataclass(frozen=True, slots=True)
class ImportedStudy:
    """What was copied."""

    study: str
    trials: int
    runs: int
    """Number of runs that this database did not have, or had in an earlier state."""
    known_runs: int
    """Number of runs that it had already."""
    files: int
    """Number of checkpoints and logs that were copied."""
    is_new: bool
    """Whether the study was not here before."""


def import_study(source: Store, target: Store, study: str, results: Path) -> ImportedStudy:
    """Copy a study from one database into another; `results` is the results folder of the latter.

    Raises `NotFound` if the source has no such study, and `StoreError` if it has a driver, or if the target has other
    trials of it, or another content of a run.
    """
    theirs = read_study(source, study)
    optuna_storage(target)  # creates Optuna's tables
    with ExitStack() as locks:
        locks.enter_context(DriverLock(target, study))
        with target.session() as session:
            connection = session.connection()
            taken = _runs_to_take(connection, theirs, target)
            is_new = _is_new(connection, theirs, study, target)
            for run_id in taken:
                _write_run(connection, theirs.runs[run_id], _folder(theirs.runs[run_id].row, results, target))
            if is_new:
                _write_study(connection, theirs)
    files = sum(_copy_files(rows.row, source, results, target) for rows in theirs.runs.values())
    trials = len(theirs.optuna["trials"]) if is_new else 0
    return ImportedStudy(study, trials, len(taken), len(theirs.runs) - len(taken), files, is_new)


def check_import(source: Store, target: Store | None, study: str) -> None:
    """Raise the errors of `import_study`; changes nothing, and creates no database."""
    theirs = read_study(source, study)
    if target is None:
        return
    with target.session() as session:
        connection = session.connection()
        _runs_to_take(connection, theirs, target)
        _is_new(connection, theirs, study, target)


# Checks


def _runs_to_take(connection: Connection, theirs: StudyRows, target: Store) -> list[str]:
    """The runs that are written. Raises `StoreError` for those that are here with another content."""
    ours = read_runs(connection, theirs.runs)
    conflicts = [run_id for run_id, run in ours.items() if not _agree(run, theirs.runs[run_id])]
    if conflicts:
        more = f" and {len(conflicts) - MAX_NAMED} more" if len(conflicts) > MAX_NAMED else ""
        raise StoreError(
            "a run that both databases have must have the same content in them",
            value=f"{', '.join(conflicts[:MAX_NAMED])}{more}, which differ in results, measured times or environment",
            place=target.location,
            remedy="Import into another results folder: `--results DIR`.",
        )
    return [run_id for run_id, run in theirs.runs.items() if run_id not in ours or _is_ahead(run, ours[run_id])]


def _agree(ours: RunRows, theirs: RunRows) -> bool:
    """Whether two records of a run can be one: equal if both are settled, otherwise one may be the other's start."""
    if ours.is_settled and theirs.is_settled:
        return ours.content == theirs.content
    if ours.row["owner"] is not None and _is_ahead(theirs, ours):
        return False  # it is being trained here
    mine, other = ours.curve(), theirs.curve()
    return all(mine[epoch] == other[epoch] for epoch in mine.keys() & other.keys())


def _is_ahead(run: RunRows, other: RunRows) -> bool:
    """Whether a run is settled and the other is not, or neither is and it has more epochs."""
    return (run.is_settled, len(run.epochs)) > (other.is_settled, len(other.epochs)) and not other.is_settled


def _is_new(connection: Connection, theirs: StudyRows, study: str, target: Store) -> bool:
    """Whether the target lacks the study. Raises `StoreError` if it has another one, or other trials of it."""
    file = one_row(connection, STUDIES, STUDIES.c.name == study)
    ours = read_optuna(connection, study) if inspect(connection).has_table("trials") else None
    if ours is None and file is None:
        return True
    if file is not None:
        _require_same_study(file, theirs.file, study, target)
    if ours is not None:
        mine, other = _finished(ours), _finished(theirs.optuna)
        if all(mine.get(number) == trial for number, trial in other.items()):
            return False
    raise StoreError(
        "a study that this database has already must contain the trials of the imported one",
        value=f"another study `{study}`",
        place=target.location,
        remedy=OTHER_NAME,
    )


def _require_same_study(ours: Row, theirs: Row, study: str, target: Store) -> None:
    """Raise `StoreError` if neither of two resolved study files is the other one with additions."""
    from harness.config.study_growth import compare_studies

    refused = compare_studies(theirs["resolved"], ours["resolved"]).refused
    if refused and compare_studies(ours["resolved"], theirs["resolved"]).refused:
        raise StoreError(
            "a study that this database has already must be the imported one",
            value=f"another study `{study}`, which differs in {', '.join(refused[:MAX_NAMED])}",
            place=target.location,
            remedy=OTHER_NAME,
        )


def _finished(optuna: Mapping[str, list[Row]]) -> dict[int, str]:
    """The finished trials by number: state, parameters, values and `IDENTIFYING` attributes, as text."""
    of_trial: dict[int, list[Any]] = {}
    for row in optuna["trial_user_attributes"]:
        if row["key"] in IDENTIFYING:
            of_trial.setdefault(row["trial_id"], []).append(("attribute", row["key"], row["value_json"]))
    for name in ("trial_params", "trial_values"):
        for row in optuna[name]:
            key = "param_name" if name == "trial_params" else "objective"
            value = row["param_value"] if name == "trial_params" else row["value"]
            of_trial.setdefault(row["trial_id"], []).append((name, row[key], value))
    return {
        row["number"]: fingerprint([row["state"].name, repr(sorted(of_trial.get(row["trial_id"], []), key=repr))])
        for row in optuna["trials"]
        if row["state"].is_finished()
    }


# Writing


def _write_run(connection: Connection, run: RunRows, folder: str | None) -> None:
    row = run.row | {"owner": None, "folder": folder}
    if row["state"] == RunState.RUNNING:
        row |= {"state": RunState.LOST, "cause": "its driver ended without a word"}
    if connection.scalar(select(RUNS.c.id).where(RUNS.c.id == row["id"])) is None:
        connection.execute(insert(RUNS), row)
    else:
        for table in (EPOCHS, MEASURES):
            connection.execute(table.delete().where(table.c.run_id == row["id"]))
        connection.execute(update(RUNS).where(RUNS.c.id == row["id"]).values(**row))
    for table, rows in ((EPOCHS, run.epochs), (MEASURES, run.measures)):
        if rows:
            connection.execute(insert(table), rows)


def _write_study(connection: Connection, study: StudyRows) -> None:
    connection.execute(insert(STUDIES), study.file)
    if study.links:
        connection.execute(insert(LINKS), study.links)
    for event in study.events:
        row = {name: value for name, value in event.items() if name != "id"}
        is_known = row["study"] != study.file["name"] and _is_known(connection, row)
        if not is_known:
            connection.execute(insert(EVENTS), row)
    _write_optuna(connection, study)


def _is_known(connection: Connection, event: Row) -> bool:
    same = [EVENTS.c[name] == event[name] for name in ("study", "kind", "run_id", "message")]
    return connection.scalar(select(EVENTS.c.id).where(*same)) is not None


def _write_optuna(connection: Connection, study: StudyRows) -> None:
    """Write Optuna's rows with ids of this database; where an attribute lists ids of trials, they are translated."""
    studies, trials = TABLES["studies"], TABLES["trials"]
    (study_id,) = connection.execute(insert(studies), {"study_name": study.file["name"]}).inserted_primary_key or (
        None,
    )
    ids: dict[int, int] = {}
    for row in sorted(study.optuna["trials"], key=lambda row: row["number"]):
        state = TrialState.WAITING if row["state"] == TrialState.RUNNING else row["state"]
        values = {**row, "study_id": study_id, "state": state}
        del values["trial_id"]
        (new_id,) = connection.execute(insert(trials), values).inserted_primary_key or (None,)
        assert new_id is not None
        ids[row["trial_id"]] = new_id
    for name in ("study_directions", "study_user_attributes", "study_system_attributes"):
        for row in study.optuna[name]:
            values = _without_id(TABLES[name], row) | {"study_id": study_id}
            if ":parent:" in str(values.get("key")):
                values["value_json"] = json.dumps([ids[i] for i in json.loads(values["value_json"]) if i in ids])
            connection.execute(insert(TABLES[name]), values)
    for name in TRIAL_TABLES:
        rows = [_without_id(TABLES[name], row) | {"trial_id": ids[row["trial_id"]]} for row in study.optuna[name]]
        if rows:
            connection.execute(insert(TABLES[name]), rows)


def _without_id(table: Table, row: Row) -> Row:
    own = {column.name for column in table.primary_key.columns}
    return {name: value for name, value in row.items() if name not in own or name in ("study_id", "trial_id")}


# Files


def _folder(row: Row, results: Path, target: Store) -> str | None:
    """The folder of a run here: that of the study of the same name."""
    return None if row["folder"] is None else target.relative(results / Path(row["folder"]).name)


def _copy_files(row: Row, source: Store, results: Path, target: Store) -> int:
    """Copy the checkpoint and the log of a run, where they are on this machine and not here yet."""
    stored = target.run(row["id"])
    if row["folder"] is None or stored.folder is None:
        return 0
    file = sqlite_file(source.url)
    theirs = Job(stored.run, (file.parent if file else Path()) / row["folder"])
    ours = Job(stored.run, results / Path(row["folder"]).name)
    copied = 0
    for path, place in ((theirs.checkpoint, ours.checkpoint), (theirs.log, ours.log)):
        if path.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(place) as partial:
                shutil.copyfile(path, partial)
            copied += 1
    return copied
