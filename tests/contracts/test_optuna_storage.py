"""Optuna's trials in the store's database: what is written is Optuna's own, and a driver pays little for it."""

import logging
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event, text

from harness.config.recipes.proxy import ProxyRecipe
from harness.errors import NotFound, StoreError
from harness.models.spec.presets import preset
from harness.storage import Store, delete_study, load_study, open_study, optuna_storage, requeue_trial
from harness.storage.optuna_cache import CachedTrialStorage
from harness.training.run import Epoch, Run, Started

pytest_plugins = ["postgres"]


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RDBStorage]:
    """Tables of Optuna that the contract tests share: to make them takes longer than most of the tests."""
    with Store.open(tmp_path_factory.mktemp("contract") / "studies.db") as opened:
        yield optuna_storage(opened)


@pytest.fixture
def storage(lasting: RDBStorage) -> Iterator[BaseStorage]:
    """What Optuna's contract tests ask for: a storage without studies."""
    ours = CachedTrialStorage(lasting)
    yield ours
    for study in ours.get_all_studies():
        ours.delete_study(study._study_id)


class TestContract(StorageTestCase):
    """Optuna's own tests of a storage."""

    def test_pickle_storage(self, storage: BaseStorage) -> None:
        """As Optuna's, which leaves the restored storage's connections open."""
        study_id = storage.create_new_study(directions=[StudyDirection.MINIMIZE])
        storage.set_study_system_attr(study_id, "key", "value")
        storage.create_new_trial(study_id)
        restored = pickle.loads(pickle.dumps(storage))
        assert restored.get_study_system_attrs(study_id) == {"key": "value"}
        assert len(restored.get_all_trials(study_id)) == 1
        restored.remove_session()
        restored._rows.engine.dispose()


def drive(study: optuna.Study, trials: int, rng: random.Random) -> None:
    """Trials of every kind: complete, pruned, failed, parked, over a constraint, with curves that are not finite."""
    for i in range(trials):
        trial = study.ask()
        is_parked = "seeds" in trial.user_attrs
        trial.suggest_int("K", 3, 31, step=2)
        trial.suggest_categorical("shortcut", [True, False, None, "text"])
        trial.suggest_float("drop", 0.0, 0.5)
        trial.set_user_attr("seeds", (0, 1, 2))
        if not is_parked:
            trial.set_constraint("params", rng.uniform(-1.0, 1.0))
        for step in range(4, 7) if is_parked else range(1, 4):
            trial.report(rng.choice([rng.random(), float("nan"), float("inf"), float("-inf")]), step)
        if i % 5 == 0:
            study.tell(trial, state=TrialState.FAIL)
        elif i % 5 == 1:
            study.tell(trial, state=TrialState.PRUNED)
        elif i % 5 == 2:
            requeue_trial(study, trial._trial_id)
        else:
            study.tell(trial, rng.random())


def same(ours: list[FrozenTrial], theirs: list[FrozenTrial]) -> None:
    """Equal in everything but the order of attributes. As text, for NaN is not equal to itself."""
    assert [as_text(trial) for trial in ours] == [as_text(trial) for trial in theirs]


def as_text(trial: FrozenTrial) -> dict[str, str]:
    fields = vars(trial).items()
    return {name: repr(sorted(value.items()) if isinstance(value, dict) else value) for name, value in fields}


def test_optuna_reads_what_we_wrote(store: Store) -> None:
    study = open_study(store, "s", directions=["maximize"])
    study.enqueue_trial({"K": 7, "drop": 0.25}, user_attrs={"by": "grid", "runs": ["a", "b"], "none": None})
    study.add_trial(create_trial(value=0.5, params={"K": 5}, distributions={"K": IntDistribution(3, 31, step=2)}))
    drive(study, 12, random.Random(0))
    study.enqueue_trial({"K": 9}, user_attrs={"by": "grid"})
    theirs = optuna.load_study(study_name="s", storage=optuna_storage(store))
    same(study.get_trials(deepcopy=False), theirs.get_trials(deepcopy=False))
    assert study.best_trial.number == theirs.best_trial.number


def test_a_study_resumes_where_it_was(database: str) -> None:
    with Store.open(database) as store:
        drive(open_study(store, "s", directions=["maximize"]), 7, random.Random(1))
    with Store.open(database) as store:
        study = open_study(store, "s", directions=["maximize"])
        assert [trial.number for trial in study.get_trials(deepcopy=False)] == list(range(len(study.trials)))
        before = len(study.trials)
        drive(study, 7, random.Random(2))
        theirs = load_study(store, "s").get_trials(deepcopy=False)
        same(study.get_trials(deepcopy=False), theirs)
        assert len(theirs) > before


def test_a_parked_trial_keeps_its_parameters_and_its_curve(database: str) -> None:
    with Store.open(database) as store:
        study = open_study(store, "s", directions=["maximize"])
        trial = study.ask()
        chosen = (trial.suggest_int("K", 3, 31, step=2), trial.suggest_categorical("shortcut", [True, False]))
        trial.report(0.5, 1)
    with Store.open(database) as store:
        study = open_study(store, "s", directions=["maximize"])
        (left,) = study.get_trials(deepcopy=False)
        assert left.state == TrialState.RUNNING
        requeue_trial(study, left._trial_id)
        again = study.ask()
        assert again.number == 0
        assert (again.suggest_int("K", 3, 31, step=2), again.suggest_categorical("shortcut", [True, False])) == chosen
        again.report(0.6, 2)
        study.tell(again, 1.0)
        assert load_study(store, "s").trials[0].intermediate_values == {1: 0.5, 2: 0.6}


def test_a_parameter_keeps_its_kind(database: str) -> None:
    with Store.open(database) as store:
        open_study(store, "s", directions=["maximize"]).ask().suggest_categorical("K", [3, 5])
    with Store.open(database) as store:
        trial = open_study(store, "s", directions=["maximize"]).ask()
        for distribution in (CategoricalDistribution([3, 7]), FloatDistribution(0.0, 1.0)):
            with pytest.raises(ValueError, match=r"dynamic value space|different distribution kind"):
                trial._suggest("K", distribution)


def test_objectives_are_kept(store: Store) -> None:
    open_study(store, "s", directions=["maximize"])
    with pytest.raises(StoreError, match=r"must keep the objectives .* \(maximize\), but got 'minimize'.* `--fresh`"):
        open_study(store, "s", directions=["minimize"])
    assert len(open_study(store, "two", directions=["maximize", "minimize"]).directions) == 2


def test_a_study_deleted_elsewhere_starts_without_links(store: Store) -> None:
    open_study(store, "s", directions=["maximize"])
    run = store.ensure_run(Run(preset("replknet_nano"), ProxyRecipe(), 0))
    store.link("s", 5, run.id, 0)
    open_study(store, "s", directions=["maximize"])
    assert store.trial_runs("s") == {5: [run.id]}
    optuna.delete_study(study_name="s", storage=optuna_storage(store))
    open_study(store, "s", directions=["maximize"])
    assert store.trial_runs("s") == {}
    assert store.run(run.id) == run


def test_fresh_leaves_nothing_of_a_study_in_optunas_tables(store: Store) -> None:
    empty = rows(store)
    drive(open_study(store, "s", directions=["maximize"]), 6, random.Random(3))
    assert rows(store)["trial_params"] > 0
    delete_study(store, "s")
    assert rows(store) == empty | {"version_info": 1, "alembic_version": 1}


def rows(store: Store) -> dict[str, int]:
    """The number of rows of every table that Optuna has."""
    optuna_storage(store)
    names = [*optuna.storages._rdb.models.BaseModel.metadata.tables, "alembic_version"]
    with store.engine.connect() as connection:
        return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in names}


def test_a_study_is_read_without_writing(database: str) -> None:
    with Store.open(database) as store:
        drive(open_study(store, "s", directions=["maximize"]), 5, random.Random(4))
    with Store.open(database, read_only=True) as store:
        study = load_study(store, "s")
        assert len(study.trials) > 0
        with pytest.raises(StoreError, match="the database must be writable"), store.translate_errors():
            study.set_user_attr("a", 1)
        with pytest.raises(NotFound, match="must have been started, but got 'unknown'"):
            load_study(store, "unknown")


def test_tables_of_another_optuna_are_refused(store: Store) -> None:
    optuna_storage(store)
    for version, remedy in (("v2.6.0.a", "optuna storage upgrade"), ("v99", "Upgrade Optuna")):
        with store.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
        with pytest.raises(StoreError, match=rf"must be at its version .* but got '{version}' .*{remedy}"):
            optuna_storage(store)


def test_optuna_is_quiet_here_and_as_it_was_elsewhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    level, disabled = optuna.logging.get_verbosity(), logging.getLogger("optuna").disabled
    with Store.open(tmp_path / "studies.db") as store:
        drive(open_study(store, "s", directions=["maximize"]), 5, random.Random(5))
        load_study(store, "s")
        delete_study(store, "s")
    assert (optuna.logging.get_verbosity(), logging.getLogger("optuna").disabled) == (level, disabled)
    assert capfd.readouterr() == ("", "")


def test_a_trial_costs_the_same_number_of_statements_however_many_there_were(tmp_path: Path) -> None:
    """The clock of a shared machine tells little; the number of questions put to the database tells what grows."""
    with Store.open(tmp_path / "studies.db") as store:
        study = open_study(store, "s", directions=["maximize"])
        study.sampler = optuna.samplers.TPESampler(seed=0)
        study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        rdb: RDBStorage = study._storage._rows  # type: ignore[attr-defined]
        lines: list[str] = []

        def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if "FROM studies" not in statement:  # whether the study is still there, at every change
                lines.append(statement)

        event.listen(rdb.engine, "before_cursor_execute", note)
        counts = []
        for i in range(40):
            lines.clear()
            trial = study.ask()
            trial.suggest_int("K", 3, 31, step=2)
            trial.set_user_attr("a", 1)
            for step in range(1, 11):
                trial.report(i / 100, step)
                trial.should_prune()
            study.tell(trial, i / 100)
            counts.append(len(lines))
        assert not [statement for statement in lines if statement.startswith("SELECT")]
        # A row for the trial, its parameter, its attribute, ten points of its curve, its value, and its state; what the
        # pruner notes at three rungs, and from its eleventh trial on the sampler.
        assert counts[1:] == [18] * 9 + [19] * 30


def test_optuna_and_we_write_at_the_same_time(store: Store) -> None:
    study = open_study(store, "s", directions=["maximize"])
    run = store.ensure_run(Run(preset("replknet_nano"), ProxyRecipe(), 0))
    store.claim(run.id, "s", Path("/results/s"))
    store.record(run.id, [Started("h", 1, "cpu", 1, {}, epochs=30)])
    trial = study.ask()
    for step in range(1, 31):
        store.record(run.id, [Epoch(step, 1.0, 1.0, 1.0, 0.1, 1.0, 1.0)])
        trial.report(1.0, step)
        trial.should_prune()
    study.tell(trial, 1.0)
    assert len(store.epochs(run.id)) == len(load_study(store, "s").trials[0].intermediate_values) == 30
