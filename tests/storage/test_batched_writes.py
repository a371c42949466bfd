"""Writing on trials in few transactions: all of it is there afterwards, and nothing is held back by an error."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import event

from harness.storage import Store, batched_writes, load_study, open_study


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "studies.db") as store:
        yield store


def opened(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_int("K", 3, 31, step=2)
    trial.suggest_categorical("shortcut", [True, False])
    trial.set_user_attr("seeds", [0, 1])
    return trial


def test_what_is_set_together_is_there(store: Store) -> None:
    study = open_study(store, "s", directions=["maximize"])
    with batched_writes(study):
        trial = opened(study)
        trial.report(0.5, 1)
        trial.set_user_attr("seeds", [2])
        study.tell(trial, 0.5)
        with batched_writes(study):
            waiting = opened(study)
        waiting.set_constraint("params", 1.0)
    theirs = load_study(store, "s").get_trials(deepcopy=False)
    ours = study.get_trials(deepcopy=False)
    assert theirs == ours
    assert theirs[0].user_attrs == {"seeds": [2]} and theirs[0].state == TrialState.COMPLETE
    assert theirs[1].constraints == {"params": 1.0} and theirs[1].state == TrialState.RUNNING


def test_it_takes_fewer_transactions(store: Store) -> None:
    study = open_study(store, "s", directions=["maximize"])
    opened(study)  # reads what there is
    commits: list[object] = []
    event.listen(study._storage._rows.engine, "commit", commits.append)  # type: ignore[attr-defined]
    opened(study)
    apart = len(commits)
    with batched_writes(study):
        opened(study)
    assert (apart, len(commits) - apart) == (4, 2)


def test_an_error_inside_keeps_what_was_set(store: Store) -> None:
    study = open_study(store, "s", directions=["maximize"])
    with pytest.raises(KeyboardInterrupt), batched_writes(study):
        opened(study)
        raise KeyboardInterrupt
    (trial,) = load_study(store, "s").get_trials(deepcopy=False)
    assert trial.user_attrs == {"seeds": [0, 1]} and set(trial.params) == {"K", "shortcut"}
    with batched_writes(study):
        pass
    opened(study)
    assert len(load_study(store, "s").trials[1].params) == 2


def test_a_study_of_another_storage_writes_as_it_does() -> None:
    study = optuna.create_study()
    with batched_writes(study):
        opened(study)
    assert len(study.trials[0].params) == 2
