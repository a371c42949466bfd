"""A write-through cache of Optuna's trials, for the one process that writes them.

Optuna's `RDBStorage` reads a whole trial from the database, in eight queries, at every report and every decision of a
pruner. A driver is its study's only writer, so it reads the trials once, and each later change is one statement. The
rows in the database are those that `RDBStorage` would have written.

This module imports Optuna; it is imported only when a study is opened.
"""

import copy
import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.models import BaseModel, TrialIntermediateValueModel, TrialValueModel
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from harness.storage.database import upsert
from harness.storage.errors import study_deleted

TABLES = BaseModel.metadata.tables
UNIQUE_KEYS = {
    "trial_params": ("trial_id", "param_name"),
    "trial_user_attributes": ("trial_id", "key"),
    "trial_system_attributes": ("trial_id", "key"),
    "trial_intermediate_values": ("trial_id", "step"),
    "trial_values": ("trial_id", "objective"),
}
"""The columns that identify a row, by table."""


def _left_to_optuna(name: str, *, is_changed: bool = False) -> Any:
    """A method of `CachedTrialStorage` that calls that of `RDBStorage`, for a study that must exist."""

    def call(self: "CachedTrialStorage", study_id: int, *args: Any, **kwargs: Any) -> Any:
        with self._existing(study_id, is_changed=is_changed):
            return getattr(self._rows, name)(study_id, *args, **kwargs)

    return call


class CachedTrialStorage(BaseStorage):
    """An Optuna storage that caches an `RDBStorage`, for a single writer in a single thread.

    Trials that another process adds to a study after this one has read it are not seen. If another process deletes a
    study, the next change raises `StoreError`. `BaseStorage` documents the methods.
    """

    def __init__(self, rows: RDBStorage, place: str = "") -> None:
        self._rows = rows
        self._place = place
        """The database as messages name it."""
        self._names: dict[int, str] = {}
        """Names, by id, of the studies whose trials have been read."""
        self._trials: dict[int, list[FrozenTrial]] = {}
        """Trials by study id, in the order of their numbers; a change replaces the object, which callers may hold."""
        self._homes: dict[int, tuple[int, int]] = {}
        """Study id and number by trial id."""
        self._distributions: dict[tuple[int, str], BaseDistribution] = {}
        """Distributions by study id and parameter, with which that of a later trial must be compatible."""
        self._held: list[tuple[str, dict[str, Any]]] | None = None
        """Rows, with their tables, that are written at the end of `batched_writes`; None outside of it."""

    @contextmanager
    def batched_writes(self) -> Iterator[None]:
        """Batch writes to trials in the `with` block: one transaction at each new state of a trial, one at the end."""
        if self._held is not None:
            yield
            return
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held:
                with self._writing(self._homes[held[0][1]["trial_id"]][0]) as connection:
                    _upsert_all(connection, held)

    # Studies

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Delegates to `RDBStorage`, like all rare operations."""
        return self._rows.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """Deletes with a few statements; Optuna's own method takes ten milliseconds per trial."""
        self._rows.get_study_name_from_id(study_id)
        with self._rows.engine.begin() as connection:
            delete_study_rows(connection, study_id)
        for trial in self._trials.pop(study_id, []):
            del self._homes[trial._trial_id]
        self._distributions = {
            key: distribution for key, distribution in self._distributions.items() if key[0] != study_id
        }
        self._names.pop(study_id, None)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Left to Optuna."""
        return self._rows.get_study_id_from_name(study_name)

    def get_all_studies(self) -> list[FrozenStudy]:
        """Left to Optuna."""
        return self._rows.get_all_studies()

    get_study_name_from_id = _left_to_optuna("get_study_name_from_id")
    get_study_directions = _left_to_optuna("get_study_directions")
    get_study_user_attrs = _left_to_optuna("get_study_user_attrs")
    get_study_system_attrs = _left_to_optuna("get_study_system_attrs")
    set_study_user_attr = _left_to_optuna("set_study_user_attr", is_changed=True)
    set_study_system_attr = _left_to_optuna("set_study_system_attr", is_changed=True)

    # Trials: reading

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """From memory."""
        if trial_id not in self._homes:
            raise KeyError(f"no trial with id {trial_id} has been read")
        study_id, number = self._homes[trial_id]
        return self._trials[study_id][number]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """From memory."""
        trials = [trial for trial in self._of(study_id) if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    # Trials: writing

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a running trial, or a copy of `template_trial`."""
        number = len(self._of(study_id))
        if template_trial is None:
            trial = self._insert_trial(study_id, number, TrialState.RUNNING)
        elif _is_enqueued(template_trial):
            trial = self._insert_trial(
                study_id, number, TrialState.WAITING, template_trial.user_attrs, template_trial.system_attrs
            )
        else:
            with self._existing(study_id, is_changed=True):
                trial = self._rows.get_trial(self._rows.create_new_trial(study_id, template_trial))
        self._cache_trial(study_id, trial)
        return trial._trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set a parameter; its distribution must be compatible with that of earlier trials."""
        trial = self._updatable(trial_id)
        key = (self._homes[trial_id][0], param_name)
        if key in self._distributions:
            check_distribution_compatibility(self._distributions[key], distribution)
        text = distribution_to_json(distribution)
        row = {"param_name": param_name, "param_value": param_value_internal, "distribution_json": text}
        self._upsert("trial_params", trial_id, row)
        value = distribution.to_external_repr(param_value_internal)
        self._replace(
            trial,
            params={**trial.params, param_name: value},
            distributions={**trial.distributions, param_name: distribution},
        )
        self._distributions[key] = distribution

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set a point of the learning curve."""
        trial = self._updatable(trial_id)
        value, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        row = {"step": step, "intermediate_value": value, "intermediate_value_type": kind}
        self._upsert("trial_intermediate_values", trial_id, row)
        self._replace(trial, intermediate_values={**trial.intermediate_values, step: intermediate_value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute, any JSON value."""
        trial, text = self._updatable(trial_id), json.dumps(value)
        self._upsert("trial_user_attributes", trial_id, {"key": key, "value_json": text})
        self._replace(trial, user_attrs={**trial.user_attrs, key: json.loads(text)})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute of Optuna, any JSON value."""
        trial, text = self._updatable(trial_id), json.dumps(value)
        self._upsert("trial_system_attributes", trial_id, {"key": key, "value_json": text})
        self._replace(trial, system_attrs={**trial.system_attrs, key: json.loads(text)})

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set the state and the values in one transaction; return False for a trial that is already running."""
        trial = self._updatable(trial_id)
        if state == TrialState.RUNNING and trial.state != TrialState.WAITING:
            return False
        changes: dict[str, Any] = {"state": state}
        if values is not None:
            changes["values"] = list(values)
        times = {}
        if state == TrialState.RUNNING:
            times["datetime_start"] = datetime.now()
        if state.is_finished():
            times["datetime_complete"] = datetime.now()
        table, (study_id, number) = TABLES["trials"], self._homes[trial_id]
        mine = (table.c.trial_id == trial_id) & (table.c.study_id == study_id) & (table.c.number == number)
        with self._writing(study_id) as connection:
            _upsert_all(connection, self._held or ())
            for objective, value in enumerate(values or ()):
                stored, kind = TrialValueModel.value_to_stored_repr(value)
                row = {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}
                upsert(connection, TABLES["trial_values"], UNIQUE_KEYS["trial_values"], row)
            columns = {"state": state} | {name: _utc(time) for name, time in times.items()}
            if connection.execute(update(table).where(mine).values(columns)).rowcount != 1:
                raise study_deleted(self._names[study_id], self._place)
        if self._held is not None:
            self._held = []
        self._replace(trial, **changes, **times)
        return True

    def widen_distributions(self, study_id: int, distributions: Mapping[str, BaseDistribution]) -> None:
        """Set the distributions of all trials' parameters; their values stay, in the new internal representation."""
        rows: list[tuple[str, dict[str, Any]]] = []
        changed: list[tuple[FrozenTrial, dict[str, BaseDistribution]]] = []
        for trial in self._of(study_id):
            widened = {
                name: distributions[name]
                for name, current in trial.distributions.items()
                if name in distributions and current != distributions[name]
            }
            for name, distribution in widened.items():
                value = _internal(distribution, trial.params[name])
                text = distribution_to_json(distribution)
                row = {"param_name": name, "param_value": value, "distribution_json": text}
                rows.append(("trial_params", {"trial_id": trial._trial_id, **row}))
            if widened:
                changed.append((trial, widened))
        if rows:
            with self._rows.engine.begin() as connection:
                _upsert_all(connection, rows)
        for trial, widened in changed:
            self._replace(trial, distributions={**trial.distributions, **widened})
            self._distributions |= {(study_id, name): distribution for name, distribution in widened.items()}

    def remove_session(self) -> None:
        """Close Optuna's database session of this thread."""
        self._rows.remove_session()

    # Private helpers

    def _of(self, study_id: int) -> list[FrozenTrial]:
        """The trials of a study, read from the database at first use."""
        if study_id not in self._trials:
            self._names[study_id] = self._rows.get_study_name_from_id(study_id)
            trials = self._rows.get_all_trials(study_id, deepcopy=False)
            self._trials[study_id] = []
            for trial in trials:
                self._cache_trial(study_id, trial)
        return self._trials[study_id]

    def _cache_trial(self, study_id: int, trial: FrozenTrial) -> None:
        trials = self._trials[study_id]
        assert trial.number == len(trials), f"trial number {trial.number} where {len(trials)} was next"
        trials.append(trial)
        self._homes[trial._trial_id] = (study_id, trial.number)
        for name, distribution in trial.distributions.items():
            self._distributions[study_id, name] = distribution

    def _updatable(self, trial_id: int) -> FrozenTrial:
        trial = self.get_trial(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        return trial

    def _replace(self, trial: FrozenTrial, **changes: Any) -> None:
        changed = copy.copy(trial)
        for name, value in changes.items():
            setattr(changed, name, value)
        study_id, number = self._homes[trial._trial_id]
        self._trials[study_id][number] = changed

    def _insert_trial(
        self,
        study_id: int,
        number: int,
        state: TrialState,
        user_attrs: Mapping[str, Any] | None = None,
        system_attrs: Mapping[str, Any] | None = None,
    ) -> FrozenTrial:
        """Insert a trial that runs from now on, or waits, with its attributes in the same transaction."""
        start = datetime.now() if state == TrialState.RUNNING else None
        row = {"number": number, "study_id": study_id, "state": state, "datetime_start": start and _utc(start)}
        texts = {
            table: {key: json.dumps(value) for key, value in (attributes or {}).items()}
            for table, attributes in (("trial_user_attributes", user_attrs), ("trial_system_attributes", system_attrs))
        }
        with self._writing(study_id) as connection:
            (trial_id,) = connection.execute(insert(TABLES["trials"]), row).inserted_primary_key or (None,)
            for table, of_table in texts.items():
                rows = [{"trial_id": trial_id, "key": key, "value_json": text} for key, text in of_table.items()]
                if rows:
                    connection.execute(insert(TABLES[table]), rows)
        assert trial_id is not None
        user, system = ({key: json.loads(text) for key, text in of_table.items()} for of_table in texts.values())
        return FrozenTrial(
            trial_id=trial_id,
            number=number,
            state=state,
            value=None,
            datetime_start=start,
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs=user,
            system_attrs=system,
            intermediate_values={},
        )

    def _upsert(self, table: str, trial_id: int, row: dict[str, Any]) -> None:
        written = (table, {"trial_id": trial_id, **row})
        if self._held is not None:
            self._held.append(written)
            return
        with self._writing(self._homes[trial_id][0]) as connection:
            _upsert_all(connection, [written])

    @contextmanager
    def _writing(self, study_id: int) -> Iterator[Connection]:
        """A transaction on a study whose trials have been read. Raises `StoreError` where the study was deleted."""
        names = TABLES["studies"].c
        try:
            with self._rows.engine.begin() as connection:
                name = connection.scalar(select(names.study_name).where(names.study_id == study_id))
                if name != self._names[study_id]:
                    raise study_deleted(self._names[study_id], self._place)
                yield connection
        except IntegrityError as error:  # a trial was deleted, perhaps with its study
            raise study_deleted(self._names[study_id], self._place) from error

    @contextmanager
    def _existing(self, study_id: int, *, is_changed: bool = False) -> Iterator[None]:
        """Raise `StoreError` for a deleted study: Optuna raises KeyError, or changes another study that got its id."""
        try:
            if is_changed and self._names.get(study_id, "") not in ("", self._rows.get_study_name_from_id(study_id)):
                raise KeyError(study_id)
            yield
        except KeyError as error:
            if study_id not in self._names:
                raise
            raise study_deleted(self._names[study_id], self._place) from error


def _is_enqueued(template: FrozenTrial) -> bool:
    """Whether a new trial is one of `Study.enqueue_trial`: it waits, and has attributes alone."""
    results = template.params, template.intermediate_values, template._values, template.datetime_start
    return template.state == TrialState.WAITING and not any(results)


def _internal(distribution: BaseDistribution, value: Any) -> float:
    """A value in a distribution's internal representation; a float sampled in steps matches a choice up to rounding."""
    if isinstance(distribution, CategoricalDistribution) and isinstance(value, float):
        numbers = (choice for choice in distribution.choices if isinstance(choice, int | float))
        value = next((choice for choice in numbers if math.isclose(choice, value, rel_tol=1e-9)), value)
    return float(distribution.to_internal_repr(value))


def _upsert_all(connection: Connection, rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
    for table, row in rows:
        upsert(connection, TABLES[table], UNIQUE_KEYS[table], row)


def delete_study_rows(connection: Connection, study_id: int) -> None:
    """Delete a study and all its rows from Optuna's tables."""
    trials = TABLES["trials"]
    mine = select(trials.c.trial_id).where(trials.c.study_id == study_id)
    for table in reversed(BaseModel.metadata.sorted_tables):
        if "study_id" in table.c:
            connection.execute(delete(table).where(table.c.study_id == study_id))
        elif "trial_id" in table.c:
            connection.execute(delete(table).where(table.c.trial_id.in_(mine)))


def _utc(time: datetime) -> datetime:
    """Local time to naive UTC: Optuna uses naive local times in memory and naive UTC in the database."""
    return time.astimezone(UTC).replace(tzinfo=None)
