"""A search that depended on the order of its results is repeated from its log, proposal by proposal."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from test_deterministic import Searched, timed
from tiny_studies import BRIEF, RAY, TINY, called, command, environ, harness, write_study

from harness.analysis.study_reader import open_study_reader
from harness.errors import StudyError
from harness.search.log_replay import ReplayedSearch, replay_search
from harness.storage.workspace import Workspace

TPE: dict[str, Any] = {"sampler": "tpe", "trials": 30, "seeds": 1}


def searched(folder: Path, search: dict[str, Any], *, slots: int = 3, stops: Sequence[int] = ()) -> None:
    """Drive a study with several workers, which is stopped after these numbers of runs and then driven to its end."""
    for stop in (*stops, None):
        Searched(folder, timed(1), slots=slots, search=search, stop_after=stop)


def replayed(folder: Path) -> ReplayedSearch:
    workspace = Workspace(folder / "results")
    with open_study_reader(folder / "study.yaml", workspace) as reader:
        return replay_search(reader.file, reader.store, reader.trials, workspace.results)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    searched(folder, TPE)
    return folder


@pytest.fixture
def recorded(original: Path, tmp_path: Path) -> Path:
    """A copy of a search that has ended."""
    return Path(shutil.copytree(original, tmp_path / "search"))


def worker_processes(database: Path, state: str) -> list[int]:
    """The processes of the runs in this state."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(database, timeout=10)) as opened:
        try:
            return [pid for (pid,) in opened.execute("select pid from runs where state = ?", (state,))]
        except sqlite3.OperationalError:
            return []


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "results" / "studies.db")) as database, database:
        assert database.execute(statement).rowcount > 0


@pytest.mark.parametrize(
    ("search", "stops"),
    [
        ({"pruner": "successive_halving", "space_filling": 0.2}, (9, 14)),
        *(
            pytest.param(search, stops, marks=pytest.mark.long)
            for search, stops in (
                ({"racing": {"most": 3}}, (20,)),
                ({"sampler": "gp", "trials": 12}, ()),
                ({"sampler": "cmaes", "seeds": 2}, (17,)),
                ({"sampler": "qmc", "pruner": "median"}, (17,)),
                ({"sampler": "nsga2", "trials": 40, "budget": {"epochs": 60}}, (7,)),
                ({"sampler": "random", "seeds": 5, "pruner": "wilcoxon", "trials": 15}, (11, 12)),
            )
        ),
    ],
    ids=str,
)
def test_a_search_is_repeated_from_its_log(tmp_path: Path, search: dict[str, Any], stops: tuple[int, ...]) -> None:
    searched(tmp_path, TPE | search, stops=stops)
    again = replayed(tmp_path)
    assert again.difference is None
    assert again.starts == len(stops) + 1 and again.trials > 10 and again.records > again.trials


def test_the_order_of_arrival_decides_what_is_proposed(recorded: Path) -> None:
    """With the results of two polls in the other order, the search proposes something else."""
    with closing(sqlite3.connect(recorded / "results" / "studies.db")) as database, database:
        log = "select id, run_id, message from events where kind = 'search log' and run_id is not null order by id"
        rows = database.execute(log).fetchall()
        ended = [row for row in rows if '"ended"' in row[2]]
        (first, run, text), (second, other, later) = ended[12], ended[13]
        assert run != other
        polls = json.loads(text)["poll"], json.loads(later)["poll"]
        swapped = (
            (other, json.dumps(json.loads(later) | {"poll": polls[0]}), first),
            (run, json.dumps(json.loads(text) | {"poll": polls[1]}), second),
        )
        database.executemany("update events set run_id = ?, message = ? where id = ?", swapped)
    assert replayed(recorded).difference is not None


def test_another_result_is_found(recorded: Path) -> None:
    change(recorded, "update trial_values set value = value + 1 where trial_id = 12")
    difference = replayed(recorded).difference
    assert difference is not None and difference.startswith("trial 11, values: recorded")


def test_a_result_that_is_gone_is_named(recorded: Path) -> None:
    change(recorded, "delete from epochs where epoch = 2")
    difference = replayed(recorded).difference
    assert difference is not None and "is no longer in the database as it was: ['epoch', 2]" in difference


def test_runs_of_another_study_are_taken_from_the_database(tmp_path: Path) -> None:
    searched(tmp_path, TPE | {"sampler": "random"})
    Searched(tmp_path, timed(1), slots=3, search=TPE | {"sampler": "random", "seed": 0}, study="second")
    again = replayed(tmp_path)
    assert again.study == "second" and again.difference is None and again.records < 30


def test_a_study_that_has_grown_is_repeated_with_the_file_of_each_time(tmp_path: Path) -> None:
    searched(tmp_path, TPE | {"trials": 8})
    searched(tmp_path, TPE | {"trials": 14, "racing": {"most": 2}})
    again = replayed(tmp_path)
    assert again.starts == 2 and again.difference is None


def test_a_grid_and_a_search_of_an_earlier_version_are_refused(tmp_path: Path, recorded: Path) -> None:
    searched(tmp_path / "grid", {"sampler": "grid"})
    with pytest.raises(StudyError, match="A grid has none"):
        replayed(tmp_path / "grid")
    change(recorded, "delete from events where kind = 'search log'")
    with pytest.raises(StudyError, match="earlier version"):
        replayed(recorded)


@pytest.mark.long
def test_a_search_that_was_killed_is_repeated(tmp_path: Path) -> None:
    """With real training by two workers of Ray, and a driver that is killed while it waits for them."""
    search = {"sampler": "tpe", "trials": 8, "seeds": 1, "pruner": "none"}
    write_study(tmp_path, TINY | {"search": search, "proxy": BRIEF, "axes": {"K[0]": [3, 5, 7], "K[1]": [3, 5, 7]}})
    process = subprocess.Popen(
        command("run", "study.yaml", "--workers", "2"),
        cwd=tmp_path,
        env=environ(**RAY),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    database = tmp_path / "results" / "studies.db"
    deadline = time.monotonic() + 120
    while len(worker_processes(database, "complete")) < 2 or len(worker_processes(database, "running")) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    for pid in {*worker_processes(database, "complete"), *worker_processes(database, "running")}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    time.sleep(2)  # all records are handled, and the driver waits for further ones
    process.kill()
    process.wait()
    assert harness("run", "study.yaml", "--workers", "2", cwd=tmp_path, **RAY).returncode == 0
    ended = called("replay", "study.yaml", cwd=tmp_path)
    assert ended.returncode == 0 and "every proposal, decision and value" in ended.stdout
    change(tmp_path, "update trial_params set param_value = 1 where trial_id = 3 and param_name = 'K[0]'")
    ended = called("replay", "study.yaml", cwd=tmp_path)
    assert ended.returncode == 1 and "trial 2, params" in ended.stdout
