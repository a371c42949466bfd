"""Optuna's trials in the same database: its storage on our connections, its studies by name.

Optuna is imported inside the functions. Its notes about created studies are kept back while they run, and its
settings are left as they are for everybody else.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, inspect, select

from harness.errors import NotFound, StoreError
from harness.storage.engine import connect_options
from harness.storage.errors import study_deleted
from harness.storage.rows import RunRow
from harness.storage.store import Store

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage

Direction = Literal["maximize", "minimize"]


def optuna_storage(store: Store) -> "RDBStorage":
    """Optuna's storage on the store's database, with the store's connection settings; closed with the store.

    On a store that is read-only it creates nothing; raises `NotFound` where Optuna has never been.
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


def open_study(
    store: Store,
    name: str,
    *,
    directions: Sequence[Direction],
    sampler: "BaseSampler | None" = None,
    pruner: "BasePruner | None" = None,
) -> "optuna.Study":
    """The Optuna study of that name, to drive, created where there is none; to be called under its `DriverLock`.

    Raises `StoreError` where it was created with other directions. A new one starts without the links of an earlier
    one of the name, which somebody may have deleted in the dashboard.
    """
    import optuna

    from harness.storage.optuna_cache import CachedTrialStorage

    storage = CachedTrialStorage(optuna_storage(store), store.location)
    with store.translate_errors(), _quiet():
        if name not in optuna.get_all_study_names(storage):
            store.unlink(name)
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=sampler,
            pruner=pruner,
            directions=list(directions),
            load_if_exists=True,
        )
    found = [direction.name.lower() for direction in study.directions]
    if found != list(directions):
        raise StoreError(
            f"the study `{name}` must keep the objectives that it started with ({', '.join(found)})",
            value=", ".join(directions),
            place=store.location,
            remedy="Start it anew with `--fresh`, or give it another name.",
        )
    return study


def require_study(store: Store, study: "optuna.Study") -> None:
    """Raise `StoreError` where another process has deleted a study from `open_study`, or its file in our tables."""
    name: str = study.study_name
    try:
        with store.translate_errors():
            is_there = study._storage.get_study_id_from_name(name) == study._study_id
    except KeyError:
        is_there = False
    if not is_there or name not in {each.name for each in store.studies()}:
        raise study_deleted(name, store.location)


def load_study(store: Store, name: str) -> "optuna.Study":
    """The Optuna study of that name, to read. Raises `NotFound`."""
    import optuna

    storage = optuna_storage(store)
    with store.translate_errors(), _quiet():
        if name not in optuna.get_all_study_names(storage):
            raise NotFound("the study must have been started", value=name, place=store.location)
        return optuna.load_study(study_name=name, storage=storage)


def delete_study(store: Store, name: str) -> list[RunRow]:
    """Forget a study: its trials, links and events, and the runs that no other study has, which are returned.

    One transaction; to be called under the study's `DriverLock`. Checkpoints and logs are the caller's to delete.
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
    """Put an open trial back into the queue, with its parameters and its curve: the next `ask` takes it up again."""
    from optuna.trial import TrialState

    study._storage.set_trial_state_values(trial_id, TrialState.WAITING)


def widen_distributions(study: "optuna.Study", distributions: Mapping[str, "BaseDistribution"]) -> None:
    """Say of all trials of a study from `open_study` that their parameters came from these distributions.

    So an axis can be given further values: Optuna takes no other choices for a parameter than those of earlier trials,
    and its samplers propose none. Every stored value must be one of the new distribution's. One transaction.
    """
    from harness.storage.optuna_cache import CachedTrialStorage

    storage = study._storage
    assert isinstance(storage, CachedTrialStorage), "a study from open_study"
    storage.widen_distributions(study._study_id, distributions)


def batched_writes(study: "optuna.Study") -> AbstractContextManager[None]:
    """What is set on the trials of a study from `open_study` inside is written in one go, not a transaction each."""
    from harness.storage.optuna_cache import CachedTrialStorage

    storage = study._storage
    return storage.batched_writes() if isinstance(storage, CachedTrialStorage) else nullcontext()


def _check_version(storage: "RDBStorage", place: str) -> None:
    """Refuse tables that another version of Optuna wrote in another form."""
    found, expected = storage.get_current_version(), storage.get_head_version()
    if found == expected:
        return
    is_older = found in storage.get_all_versions()
    raise StoreError(
        f"Optuna's tables must be at its version {expected}",
        value=found,
        place=place,
        remedy="Bring them up to date with `optuna storage upgrade`." if is_older else "Upgrade Optuna.",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's notes back, warnings and errors not; its level is put back behind."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
