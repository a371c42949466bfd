"""Others change the tables under a driver: a study deleted, a database removed or replaced. It ends, and comes back."""

import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from sqlalchemy import delete
from tiny_studies import SCRIPTED, Played, called, write_study

from harness.analysis.results import StudyResults
from harness.errors import UserError
from harness.search.events import EpochEnded, RunEnded, TrialEnded
from harness.storage import Store
from harness.storage.tables import EpochTable, RunTable, StudyTable, TrialRunTable

Fault = Callable[[Path], None]


def delete_study(database: Path) -> None:
    optuna.delete_study(study_name="question", storage=f"sqlite:///{database}")


def delete_study_and_add_another(database: Path) -> None:
    """The new one may have the number of the old one."""
    delete_study(database)
    other = optuna.create_study(study_name="other", storage=f"sqlite:///{database}")
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)


def remove_file(database: Path) -> None:
    database.unlink()


def replace_file(database: Path) -> None:
    shutil.copy(database, database.with_name("copy.db"))
    database.with_name("copy.db").replace(database)


def replace_by_nothing(database: Path) -> None:
    database.rename(database.with_name("moved.db"))
    Store.open(database).close()


def delete_runs(database: Path) -> None:
    with Store.open(database) as store, store.session() as session:
        session.execute(delete(TrialRunTable))
        session.execute(delete(RunTable))


def delete_study_file(database: Path) -> None:
    with Store.open(database) as store, store.session() as session:
        session.execute(delete(StudyTable))


FAULTS: dict[str, tuple[Fault, str]] = {
    "study": (delete_study, "another process has deleted `question`"),
    "study, and another is there": (delete_study_and_add_another, "another process has deleted `question`"),
    "file removed": (remove_file, "its file was removed or replaced"),
    "file replaced": (replace_file, "its file was removed or replaced"),
    "another file": (replace_by_nothing, "its file was removed or replaced"),
    "runs": (delete_runs, "must have been recorded"),
    "study file": (delete_study_file, "another process has deleted `question`"),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return Played(tmp_path_factory.mktemp("undisturbed"), search={"seeds": 1}).answer()


def values(results: StudyResults) -> dict[str, float | None]:
    return {str(sorted(configuration.params.items(), key=str)): configuration.mean for configuration in results.rows}


@pytest.mark.parametrize(
    "after",
    [RunEnded, *(pytest.param(event, marks=pytest.mark.long) for event in (EpochEnded, TrialEnded))],
)
@pytest.mark.parametrize("name", FAULTS)
def test_a_driver_ends_with_a_message_and_the_same_command_completes(
    name: str, after: type, tmp_path: Path, undisturbed: StudyResults
) -> None:
    fault, words = FAULTS[name]
    played = Played(tmp_path, search={"seeds": 1})
    seen = 0
    try:
        for event, _, _ in played.events():
            seen += isinstance(event, after)
            if seen == 2 and isinstance(event, after):
                fault(tmp_path / "results" / "studies.db")
    except UserError as error:
        assert words in str(error) and (error.remedy or "").count("same command") == 1
    else:
        assert fault is delete_runs, "a driver that needs none of them is not disturbed, and the next one is"
    assert values(played.answer()) == values(undisturbed)


@pytest.mark.long
def test_a_complete_trial_whose_run_lost_an_epoch_is_trained_again(tmp_path: Path, undisturbed: StudyResults) -> None:
    played = Played(tmp_path, search={"seeds": 1})
    played.answer()
    with Store.open(tmp_path / "results" / "studies.db") as store, store.session() as session:
        session.execute(delete(EpochTable).where(EpochTable.epoch == 3))
    results = played.answer()
    assert values(results) == values(undisturbed)
    assert played.executor is not None and len(played.executor.submitted) == len(results.rows)
    with Store.open(tmp_path / "results" / "studies.db", read_only=True) as store:
        kinds = [event.kind for event in store.events("question")]
    assert kinds.count("run reopened") == len(results.rows)


def test_trials_without_runs_are_trained_again_under_their_numbers(tmp_path: Path) -> None:
    """The runs that a study has grown by stay out of the number of trials that its sampler was granted."""
    search = {"sampler": "random", "trials": 3, "seeds": 1}
    Played(tmp_path, search=search).answer()
    played = Played(tmp_path, search=search | {"seeds": 2})
    before = played.answer()
    delete_runs(tmp_path / "results" / "studies.db")
    after = played.answer()
    assert [(configuration.trials, configuration.values) for configuration in after.rows] == [
        (configuration.trials, configuration.values) for configuration in before.rows
    ]
    with Store.open(tmp_path / "results" / "studies.db", read_only=True) as store:
        reasons = [event.message for event in store.events("question") if event.kind == "trial reopened"]
    assert reasons == ["the database lacks a run of it"] * sum(
        len(configuration.trials) for configuration in before.rows
    )
    longer = Played(tmp_path, search=search | {"seeds": 2, "trials": 5})
    assert (
        sum(len(configuration.trials) for configuration in longer.answer().rows)
        == sum(len(configuration.trials) for configuration in before.rows) + 2
    )


def test_a_deleted_study_is_distinguished_from_one_that_was_never_started(tmp_path: Path) -> None:
    played = Played(tmp_path, search={"seeds": 1})
    played.answer()
    delete_study(tmp_path / "results" / "studies.db")
    result = called("show", "study.yaml", cwd=tmp_path)
    assert (
        result.returncode == 2
        and "another program has deleted them" in result.stderr
        and "Bring it back" in result.stderr
    )
    other = write_study(tmp_path, SCRIPTED, study="never")
    result = called("show", other.name, cwd=tmp_path)
    assert result.returncode == 2 and "the study must have been started" in result.stderr
