"""Optuna's storage in the same database: created with our connection settings, its studies by name.

Optuna is imported inside the functions. Its log messages about created studies are suppressed while they run; its log
level is restored afterwards.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, inspect, select

from harness.errors import NotFound, StoreError
from harness.storage.database import connect_options
from harness.storage.errors import study_deleted
from harness.storage.rows import RunRow
from harness.storage.store import Store

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage

Direction = Literal["maximize", "minimize"]


def optuna_storage(store: Store) -> "RDBStorage":
    """Optuna's storage on the store's database, with the store's connection settings; closed with the store.

    On a read-only store it creates nothing, and raises `NotFound` if Optuna's tables do not exist.
    """
    from optuna.storages import RDBStorage

    url = store.engine.url.render_as_string(hide_password=False)
    with store.translate_errors(), _quiet():
        if store.is_read_only and not inspect(store.engine).has_table("trials"):
            raise NotFound(
                "a study must have been run here", place=store.location, remedy="Start one: `harness run FILE`."
            )
        storage = RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # it fills in templates
            engine_kwargs=connect_options(store.url, read_only=store.is_read_only, busy_s=store.busy_s),
            skip_compatibility_check=True,
            skip_table_creation=store.is_read_only,
        )
        store.require_file_with(storage.engine)
        store.resources.callback(storage.engine.dispose)
        store.resources.callback(storage.remove_session)
        _check_version(storage, store.location)
    return storage


def open_study(store: Store, name: str, *, directions: Sequence[Direction]) -> "optuna.Study":
    """Open or create the Optuna study with this name, for its driver; to be called under its `DriverLock`.

    Raises `StoreError` if it was created with other directions. A new study starts without the links of an earlier
    study of the same name, which may have been deleted in the dashboard.
    """
    import optuna

    from harness.storage.optuna_cache import CachedTrialStorage

    storage = CachedTrialStorage(optuna_storage(store), store.location)
    with store.translate_errors(), _quiet():
        if name not in optuna.get_all_study_names(storage):
            store.unlink(name)
        study = optuna.create_study(study_name=name, storage=storage, directions=list(directions), load_if_exists=True)
    stored_directions = [direction.name.lower() for direction in study.directions]
    if stored_directions != list(directions):
        raise StoreError(
            f"the study `{name}` must keep the objectives that it started with ({', '.join(stored_directions)})",
            value=", ".join(directions),
            place=store.location,
            remedy="Start it again with `--fresh`, or give it another name.",
        )
    return study


def require_study(store: Store, study: "optuna.Study") -> None:
    """Raise `StoreError` if another process has deleted a study from `open_study`, or its row in `study_files`."""
    name: str = study.study_name
    try:
        with store.translate_errors():
            is_there = study._storage.get_study_id_from_name(name) == study._study_id
    except KeyError:
        is_there = False
    if not is_there or name not in {row.name for row in store.studies()}:
        raise study_deleted(name, store.location)


def load_study(store: Store, name: str) -> "optuna.Study":
    """Load the Optuna study with this name, for reading. Raises `NotFound`."""
    import optuna

    storage = optuna_storage(store)
    with store.translate_errors(), _quiet():
        if name not in optuna.get_all_study_names(storage):
            raise NotFound("the study must have been started", value=name, place=store.location)
        return optuna.load_study(study_name=name, storage=storage)


def delete_study(store: Store, name: str) -> list[RunRow]:
    """Delete a study: its trials, links and events, and the runs of no other study. Returns these runs.

    One transaction; to be called under the study's `DriverLock`. The caller deletes checkpoints and logs.
    """
    from harness.storage.optuna_cache import TABLES, delete_study_rows

    optuna_storage(store)
    names = TABLES["studies"].c

    def forget_trials(connection: Connection) -> None:
        study_id = connection.scalar(select(names.study_id).where(names.study_name == name))
        if study_id is not None:
            delete_study_rows(connection, study_id)

    return store.delete_study(name, and_then=forget_trials)


def requeue_trial(study: "optuna.Study", trial_id: int) -> None:
    """Put an open trial back into the queue, with its parameters and its curve; the next `ask` returns it."""
    from optuna.trial import TrialState

    study._storage.set_trial_state_values(trial_id, TrialState.WAITING)


def widen_distributions(study: "optuna.Study", distributions: Mapping[str, "BaseDistribution"]) -> None:
    """Set the distributions of the parameters of all trials of a study from `open_study`, in one transaction.

    This allows further values on an axis: Optuna accepts, and its samplers propose, only the choices that a parameter
    had in earlier trials. Every stored value must be in the new distribution.
    """
    from harness.storage.optuna_cache import CachedTrialStorage

    storage = study._storage
    assert isinstance(storage, CachedTrialStorage), "a study from open_study"
    storage.widen_distributions(study._study_id, distributions)


def batched_writes(study: "optuna.Study") -> AbstractContextManager[None]:
    """Batch writes to the trials of a study from `open_study` in the `with` block, instead of a transaction each."""
    from harness.storage.optuna_cache import CachedTrialStorage

    storage = study._storage
    return storage.batched_writes() if isinstance(storage, CachedTrialStorage) else nullcontext()


def _check_version(storage: "RDBStorage", place: str) -> None:
    """Raise `StoreError` if the tables have the schema of another version of Optuna."""
    current, expected = storage.get_current_version(), storage.get_head_version()
    if current == expected:
        return
    is_older = current in storage.get_all_versions()
    rule = f"Optuna's tables must be at its version {expected}"
    remedy = "Bring them up to date with `optuna storage upgrade`." if is_older else "Upgrade Optuna."
    raise StoreError(rule, value=current, place=place, remedy=remedy)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Optuna's log messages below WARNING; its log level is restored afterwards."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
