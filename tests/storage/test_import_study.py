"""A study is copied from another database by content: all of it or nothing, and once."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, select, text, update
from tiny_studies import FOUR, Played, called, gains, well

from harness.analysis.effect_observations import drawn_trials
from harness.analysis.results import study_results
from harness.analysis.study_budget import read_spending
from harness.analysis.study_reader import open_study_reader
from harness.errors import NotFound, StoreError
from harness.executors.scripted import ScriptedExecutor
from harness.search.events import RunStarted
from harness.storage import DriverLock, Store
from harness.storage.import_study import import_study
from harness.storage.optuna_cache import TABLES
from harness.storage.workspace import Workspace

pytest_plugins = ["postgres"]

GRID: dict[str, Any] = FOUR | {"search": {"seeds": 2}}


def played_in(folder: Path, storage: str | None = None, **keys: Any) -> Played:
    folder.mkdir(exist_ok=True)
    played = Played(folder, **(GRID | keys))
    if storage is not None:
        played.workspace = Workspace(folder / "results", storage)
    return played


def drive(played: Played, script: Any = well, *, until: int | None = None) -> list[int]:
    """Drive a study to its end, or until this number of runs has started; gives the first kernels of its runs."""
    played.executor = None
    events, number = played.events(script), 0
    for event, _, _ in events:
        number += isinstance(event, RunStarted)
        if number == until:
            events.close()
            break
    executor = played.executor
    assert executor is None or isinstance(executor, ScriptedExecutor)
    return [job.run.spec.K[0] for job in executor.submitted] if executor else []


def copy(source: str | Path, place: Played, study: str = "question") -> Any:
    with Store.open(source, read_only=True) as theirs, Store.open(place.workspace.database) as ours:
        return import_study(theirs, ours, study, place.workspace.results)


def everything(database: str | Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a database."""
    with Store.open(database) as store, store.engine.connect() as connection:
        names = [name for name in inspect(connection).get_table_names() if "alembic" not in name]
        return {
            name: sorted(tuple(map(str, row)) for row in connection.execute(text(f"SELECT * FROM {name}")))
            for name in names
        }


def answer(played: Played) -> Any:
    with open_study_reader(played.path, played.workspace) as reader:
        return study_results(reader.file.study, reader.store, reader.trials, {}).to_dict()


def test_a_study_is_copied_whole_and_a_second_import_changes_nothing(tmp_path: Path, database: str) -> None:
    there, here = played_in(tmp_path / "there", database), played_in(tmp_path / "here")
    drive(there)
    first = copy(database, here)
    assert (first.trials, first.runs, first.known_runs, first.is_new) == (4, 8, 0, True)
    assert answer(here) == answer(there)
    before = everything(here.workspace.database)
    second = copy(database, here)
    assert (second.trials, second.runs, second.known_runs, second.is_new) == (0, 0, 8, False)
    assert everything(here.workspace.database) == before
    assert drive(here) == []
    with Store.open(here.workspace.database) as ours, Store.open(database) as theirs:
        assert read_spending("question", ours) == read_spending("question", theirs)
        assert [event.message for event in ours.events("question")] == [
            event.message for event in theirs.events("question")
        ]


@pytest.mark.long
def test_a_study_is_copied_into_a_server(tmp_path: Path, postgres_url: str) -> None:
    there = played_in(tmp_path / "there")
    drive(there)
    drive(played_in(tmp_path / "here", postgres_url, study="another"), until=2)
    here = played_in(tmp_path / "here", postgres_url)
    assert copy(there.workspace.database, here).is_new
    ours, theirs = (
        {key: value for key, value in answer(place).items() if key != "finished"} for place in (here, there)
    )
    assert ours == theirs  # the runs that both databases had were trained at other times
    assert drive(here) == []


def test_an_interrupted_study_is_continued_here_and_others_reuse_its_runs(tmp_path: Path) -> None:
    there = played_in(tmp_path / "there")
    assert drive(there, until=4) == [3, 7, 13, 31]
    here = played_in(tmp_path / "here")
    copy(there.workspace.database, here)
    assert sorted(drive(here)) == sorted([31, 3, 7, 13, 31])
    assert len(answer(here)["configurations"]) == 4
    copy(there.workspace.database, here)  # its trials are the beginning of those that are here
    other = played_in(tmp_path / "here", study="other")
    assert drive(other) == []


def test_runs_that_differ_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    there, here = played_in(tmp_path / "there"), played_in(tmp_path / "here", study="own")
    drive(there)
    drive(here, gains(K3=5.0))
    before = everything(here.workspace.database)
    with pytest.raises(StoreError, match="must have the same content in them") as refused:
        copy(there.workspace.database, here)
    assert "and 5 more" in str(refused.value) and "--results DIR" in str(refused.value)
    assert everything(here.workspace.database) == before


def test_equal_runs_of_another_study_are_shared(tmp_path: Path) -> None:
    there = played_in(tmp_path / "there")
    drive(there)
    here = played_in(tmp_path / "here", study="own", axes={"K": [[3] * 4, [25, 25, 25, 13]]})
    copy(there.workspace.database, here)
    assert drive(here) == [25, 25]
    third = played_in(tmp_path / "third")
    copy(here.workspace.database, third, "own")
    assert copy(there.workspace.database, third).known_runs == 2


def test_another_study_of_the_same_name_is_refused(tmp_path: Path) -> None:
    there, here = played_in(tmp_path / "there"), played_in(tmp_path / "here", axes={"K": [[25, 25, 25, 13]]})
    drive(there)
    drive(here)
    before = everything(here.workspace.database)
    with pytest.raises(StoreError, match="must be the imported one"):
        copy(there.workspace.database, here)
    assert everything(here.workspace.database) == before


def test_a_study_of_the_same_name_that_asks_another_question_is_refused_before_it_has_trials(tmp_path: Path) -> None:
    there, here = played_in(tmp_path / "there"), played_in(tmp_path / "here", proxy={"epochs": 3})
    drive(here)
    assert drive(there, until=1) == [3]
    with pytest.raises(StoreError, match="must be the imported one") as refused:
        copy(there.workspace.database, here)
    assert "proxy.epochs" in str(refused.value)
    result = called("import", here.path, "--from", there.workspace.results, cwd=tmp_path / "here")
    assert result.returncode == 2 and "must keep what it was started as" in result.stderr


def test_who_proposed_a_trial_is_copied_and_compared(tmp_path: Path) -> None:
    search = {"sampler": "random", "trials": 3, "seeds": 1}
    listed = played_in(tmp_path / "there", search=search | {"enqueue": [{"K": 13}]})
    drive(listed)
    here = played_in(tmp_path / "here", search=search)
    copy(listed.workspace.database, here)
    with open_study_reader(here.path, here.workspace) as reader:
        origins = [trial.user_attrs["proposed_by"] for trial in reader.trials]
        drawn = drawn_trials(reader.file.study, reader.space(), reader.store, reader.trials)
    assert origins == ["enqueued", "sampler", "sampler"] and drawn == {1, 2}
    attributes = TABLES["trial_user_attributes"]
    with Store.open(here.workspace.database) as store, store.session() as session:
        key = attributes.c.key == "proposed_by"
        session.execute(update(attributes).where(key).values(value_json='"sampler"'))
    with pytest.raises(StoreError, match="must contain the trials of the imported one"):
        copy(listed.workspace.database, here)


def test_what_another_study_trained_there_is_not_what_a_study_of_its_name_trained_here(tmp_path: Path) -> None:
    axes = {"K": [[3] * 4, [7] * 4]}
    drive(played_in(tmp_path / "there", study="other", axes=axes))
    there = played_in(tmp_path / "there")
    drive(there)
    here = played_in(tmp_path / "here")
    copy(there.workspace.database, here)
    same_name = played_in(tmp_path / "here", study="other", axes=axes)
    assert drive(same_name) == []
    with Store.open(here.workspace.database) as ours, Store.open(there.workspace.database) as theirs:
        assert read_spending("other", theirs).runs == 4 and read_spending("other", ours).runs == 0
        assert read_spending("question", ours) == read_spending("question", theirs)


def test_a_study_that_is_not_there_or_is_driven_is_refused(tmp_path: Path) -> None:
    there, here = played_in(tmp_path / "there"), played_in(tmp_path / "here")
    drive(there)
    with pytest.raises(NotFound, match="Studies there: question"):
        copy(there.workspace.database, here, "unknown")
    with (
        Store.open(there.workspace.database) as store,
        DriverLock(store, "question"),
        pytest.raises(StoreError, match="no driver while it is imported"),
    ):
        copy(there.workspace.database, here)


@pytest.mark.long
def test_the_generations_of_a_genetic_algorithm_refer_to_trials_of_this_database(tmp_path: Path) -> None:
    axes = {"K[0]": {"low": 3, "high": 31, "step": 2}, "K[3]": [3, 5, 7, 9, 11, 13]}
    keys: dict[str, Any] = {"axes": axes, "when": {}, "search": {"sampler": "nsga2", "trials": 45, "seeds": 1}}
    there = played_in(tmp_path / "there", **keys)
    drive(there)
    here = played_in(tmp_path / "here", study="first", axes={"K": [[3] * 4]}, search={"seeds": 1})
    drive(here)
    copy(there.workspace.database, here)
    attributes, trials = TABLES["study_system_attributes"], TABLES["trials"]
    with Store.open(here.workspace.database) as store, store.engine.connect() as connection:
        lists = connection.execute(select(attributes.c.value_json).where(attributes.c.key.contains(":parent:"))).all()
        ids = set(connection.scalars(select(trials.c.trial_id).where(trials.c.study_id == 2)))
    assert lists and all(set(json.loads(value)) <= ids for (value,) in lists)


def test_the_command_copies_from_a_results_folder_and_refuses_in_plain_words(tmp_path: Path) -> None:
    there = played_in(tmp_path / "there")
    drive(there)
    checkpoint = there.workspace.folder("question") / "checkpoints"
    checkpoint.mkdir(parents=True)
    with Store.open(there.workspace.database) as store:
        run_id = store.trial_runs("question")[0][0]
    (checkpoint / f"{run_id}.pt").write_bytes(b"weights")
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    missing = called("import", there.path, "--from", tmp_path / "nowhere.db", cwd=cwd)
    assert missing.returncode == 2 and "`--from` must name a results folder" in missing.stderr
    assert not (cwd / "results").exists()
    done = called("import", there.path, "--from", there.workspace.results, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "question: 4 trials copied into" in done.stdout and "8 runs copied, 0 known; 1 file copied" in done.stdout
    assert (cwd / "results" / "question" / "checkpoints" / f"{run_id}.pt").read_bytes() == b"weights"
    again = called("import", there.path, "--from", there.workspace.results, cwd=cwd)
    assert again.returncode == 0 and "its trials are in" in again.stdout and "0 files copied" in again.stdout
    itself = called("import", there.path, "--from", cwd / "results", cwd=cwd)
    assert itself.returncode == 2 and "another database" in itself.stderr
    other = played_in(tmp_path / "other", axes={"K": [[25, 25, 25, 13]]})
    changed = called("import", other.path, "--from", there.workspace.results, cwd=tmp_path)
    assert changed.returncode == 2 and "must keep what it was started as" in changed.stderr
    assert not (tmp_path / "results").exists()
