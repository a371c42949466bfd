"""`harness.run_study` does what `harness run` does, and prints nothing."""

import json
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import INLINE, SCRIPTED, TINY, called, files_of, well, write_study

from harness.analysis.results import StudyResults
from harness.analysis.study_reader import load_results
from harness.analysis.summary import CLAIMS_PLOT_FILE
from harness.cli.study_run import RunOptions, run_study
from harness.config.study_file import load_study
from harness.errors import ExecutorError, NotFound, StudyError, UserError
from harness.executors.base import Executor, WorkerRequest
from harness.executors.scripted import ScriptedExecutor
from harness.report.plots import claims as claims_plot
from harness.search.events import EpochEnded, Progress, StudyEnded, StudyEvent, StudyStarted
from harness.storage.workspace import Workspace
from harness.system import machine

CLAIM = {"name": "dearer", "says": "Taps cost", "metric": "macs", "contrast": {"K=[5,5,3,3]": 1, "K=3": -1}}
COUNTED: dict[str, Any] = {
    "proxy": TINY["proxy"] | {"epochs": 0},
    "objectives": {"params": "minimize"},
    "claims": [CLAIM | {"expect": "> 0"}],
    "search": {"seeds": 1},
}
"""Nothing is trained."""


def scripted(_: WorkerRequest) -> Executor:
    return ScriptedExecutor(well, slots=2)


def studies_files(folder: Path) -> set[str]:
    """All files but the cache of times, which lacks those that other processes disturbed."""
    return {name for name in files_of(folder) if "times" not in name}


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


def test_the_folder_is_that_of_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    by_command, by_python = tmp_path / "command", tmp_path / "python"
    for folder in (by_command, by_python):
        folder.mkdir()
        write_study(folder, TINY, **COUNTED)
    assert called("run", "study.yaml", *INLINE, cwd=by_command).returncode == 0
    capfd.readouterr()
    results = run_study(str(by_python / "study.yaml"), executor="inline", results=by_python / "results")
    assert capfd.readouterr() == ("", "")
    assert studies_files(by_python) == studies_files(by_command)
    assert (by_python / "results" / "tiny" / CLAIMS_PLOT_FILE).is_file()
    one, other = (summary_of(folder / "results" / "tiny") for folder in (by_command, by_python))
    same = ("study", "best_trial", "verdict", "claims", "seeds", "recipe", "environment", "pareto_front", "noise")
    assert one.keys() == other.keys() and {key: one[key] for key in same} == {key: other[key] for key in same}
    assert results.to_dict() == other
    assert [str(claim.verdict) for claim in results.claims] == ["supported"]
    assert results.best is not None and results.best.spec.K == (3, 3, 3, 3)


def test_either_continues_what_the_other_began(tmp_path: Path) -> None:
    path = write_study(tmp_path, TINY, **COUNTED)
    first = run_study(path, executor="inline", results=tmp_path / "results")
    written = (tmp_path / "results" / "tiny" / "summary.txt").read_bytes()
    result = called("run", "study.yaml", *INLINE, cwd=tmp_path)
    assert result.returncode == 0 and "nothing was left to train" in result.stdout
    events: list[StudyEvent] = []
    again = run_study(
        load_study(path),
        executor="inline",
        results=str(tmp_path / "results"),
        progress=lambda event, _: events.append(event),
    )
    assert again.to_dict() == first.to_dict() == load_results(path, results=tmp_path / "results").to_dict()
    assert (tmp_path / "results" / "tiny" / "summary.txt").read_bytes() == written
    assert isinstance(events[-1], StudyEnded) and events[-1].trained == 0


def test_events_are_logged_and_passed_on_while_results_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_study(tmp_path, SCRIPTED)
    seen: list[tuple[StudyEvent, Progress]] = []
    meanwhile: list[StudyResults] = []

    def observe(event: StudyEvent, progress: Progress) -> None:
        seen.append((event, progress))
        if progress.runs_done == 6 and not meanwhile:
            meanwhile.append(load_results(path, results=tmp_path / "results"))

    with caplog.at_level(logging.INFO, "harness"):
        results = run_study(path, executor=scripted, results=tmp_path / "results", progress=observe)
    assert isinstance(seen[0][0], StudyStarted) and isinstance(seen[-1][0], StudyEnded)
    assert seen[-1][1].runs_done == seen[-1][1].runs_total == 15
    messages = [record.getMessage() for record in caplog.records if record.name == "harness"]
    assert len([text for text in messages if text.startswith("[")]) == len(seen)
    assert "starting workers" in messages and messages[-1].startswith("[15/15] question: trained 15 runs")
    assert len(results.complete) == 5 and meanwhile[0].complete == ()
    assert sum(len(row.values) for row in meanwhile[0].rows) == 6


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"executor": "rya"}, ExecutorError, "rya"),
        ({"executor": "inline", "workers": 3}, ExecutorError, "one run at a time"),
        ({"workers": 0}, UserError, "`workers` must be at least 1, but got 0"),
        ({"reuse": "none"}, UserError, "`reuse` must be one of any, same, but got 'none'"),
        ({"quick": True}, StudyError, "quick"),
    ],
)
def test_mistakes_are_user_errors_and_nothing_is_written(
    tmp_path: Path, arguments: dict[str, Any], error: type[UserError], words: str
) -> None:
    path = write_study(tmp_path, TINY, **COUNTED)
    with pytest.raises(error, match=words):
        run_study(path, results=tmp_path / "results", **arguments)
    assert files_of(tmp_path) == {"study.yaml"}


def test_the_quick_profile_of_a_loaded_study_is_refused(tmp_path: Path) -> None:
    file = load_study(write_study(tmp_path, TINY, **COUNTED))
    with pytest.raises(UserError, match=r"load_study\(path, is_quick=True\)"):
        run_study(file, quick=True, results=tmp_path / "results")


def test_results_of_a_study_that_never_started_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="harness run"):
        load_results(write_study(tmp_path, TINY), results=tmp_path / "results")
    assert files_of(tmp_path) == {"study.yaml"}


@pytest.mark.long
@pytest.mark.parametrize("at", [1, 12, 40])
def test_ctrl_c_leaves_a_study_that_the_same_call_resumes(tmp_path: Path, at: int) -> None:
    path = write_study(tmp_path, SCRIPTED)
    shown: list[tuple[str, int]] = []
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def press(event: StudyEvent, _: Progress) -> None:
        if isinstance(event, EpochEnded):
            shown.append((event.run_id, event.epoch.epoch))
        if len(shown) == at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_study(path, executor=scripted, results=tmp_path / "results", progress=press)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    interrupted = load_results(path, results=tmp_path / "results")
    stored = {(run.row.id, epoch.epoch) for row in interrupted.rows for run in row.runs for epoch in run.curve}
    assert set(shown) <= stored and len(interrupted.complete) < 5
    assert len(run_study(path, executor=scripted, results=tmp_path / "results").complete) == 5


def test_an_error_of_the_callback_ends_the_study_and_is_raised(tmp_path: Path) -> None:
    path = write_study(tmp_path, SCRIPTED)

    def broken(event: StudyEvent, _: Progress) -> None:
        if isinstance(event, EpochEnded):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_study(path, executor=scripted, results=tmp_path / "results", progress=broken)
    assert len(run_study(path, executor=scripted, results=tmp_path / "results").complete) == 5


def test_a_study_runs_outside_the_main_thread(tmp_path: Path) -> None:
    path = write_study(tmp_path, SCRIPTED)
    results: list[StudyResults] = []
    thread = threading.Thread(
        target=lambda: results.append(run_study(path, executor=scripted, results=tmp_path / "results"))
    )
    thread.start()
    thread.join()
    assert len(results[0].complete) == 5


def test_a_plot_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no axes")

    monkeypatch.setattr(claims_plot, "plot_claims", fails)
    path = write_study(tmp_path, TINY, **COUNTED)
    results = run_study(path, executor="inline", results=tmp_path / "results")
    assert results.claims
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "The claims could not be drawn: no axes"
    ]


def test_a_study_without_a_complete_configuration_has_no_best(tmp_path: Path) -> None:
    path = write_study(tmp_path, TINY, **(COUNTED | {"budgets": {"latency_ms": 1e-6}}))
    results = run_study(path, executor="inline", results=tmp_path / "results")
    assert results.best is None and results.complete == () and len(results.rows) == 2


@pytest.mark.parametrize(
    ("options", "cpus", "workers"),
    [
        ({}, 2, 3),
        ({}, 8, 1),
        ({"workers": 5}, 2, 5),
        ({"executor": "inline"}, 2, 1),
        ({"ray_address": "auto"}, 2, 1),
        ({"ray_address": "auto", "workers": 5}, 2, 5),
    ],
)
def test_times_are_estimated_for_the_workers_that_would_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], cpus: int, workers: int
) -> None:
    monkeypatch.setattr(machine, "available_cpus", lambda: 7)
    study = load_study(write_study(tmp_path, TINY, resources={"cpus": cpus})).study
    assert RunOptions(workspace=Workspace(tmp_path), **options).expected_workers(study) == workers
