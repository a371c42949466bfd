"""A checkpoint carries what computed its epochs, so that a database that was lost has it again.

Studies are trained for real; another environment is one with another setting of MKL's.
"""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_run
from tiny_studies import BRIEF, INLINE, TINY, called, write_study

from harness.cli.study_run import run_study
from harness.executors.run_job import run_job
from harness.models.weights.files import DIGEST
from harness.search.events import EpochEnded, Progress, StudyEvent
from harness.storage import RunRow, Store
from harness.training.checkpoint import read_state, write_state
from harness.training.run import Epoch, Job, Measured, RunState, Started

SETTING = "MKL_CBWR"
FIRST, SECOND = "COMPATIBLE", "AVX2"
ONE: dict[str, Any] = {"axes": {"K": [[3, 3, 3, 3]]}, "search": {"seeds": 1}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a study of one run of two epochs; the environment is the first one."""
    monkeypatch.setenv(SETTING, FIRST)
    write_study(tmp_path, TINY, **ONE, proxy=BRIEF)
    return tmp_path


def train(folder: Path, *options: str) -> str:
    result = called("run", "study.yaml", *INLINE, *options, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


def begin(folder: Path) -> None:
    """Drive the study to the end of its first epoch, as Ctrl-C ends it."""

    def stop(event: StudyEvent, _: Progress) -> None:
        if isinstance(event, EpochEnded):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(folder / "study.yaml", executor="inline", results=folder / "results", progress=stop)


def lose_database(folder: Path) -> None:
    for path in (folder / "results").glob("studies.db*"):
        path.unlink()


def stored(folder: Path) -> RunRow:
    with Store.open(folder / "results" / "studies.db", read_only=True) as store:
        (ids,) = store.trial_runs("tiny").values()
        return store.run(ids[0])


def settings_of(row: RunRow) -> list[str | None]:
    """The setting in each of the run's environments, in their order; None for an unknown one."""
    return [None if environment is None else (environment.settings or {})[SETTING] for environment in row.environments]


def forget_environments(folder: Path) -> None:
    """Make the run's checkpoint one of a version that did not keep them."""
    (path,) = (folder / "results" / "tiny" / "checkpoints").glob("*.pt")
    content = torch.load(path, weights_only=True)
    del content[DIGEST], content["environments"]
    write_state(path, content)


def test_a_lost_database_has_the_environment_of_a_finished_run_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(folder)
    before = stored(folder)
    lose_database(folder)
    train(folder)
    assert stored(folder).environments == before.environments == (before.environment,)
    lose_database(folder)
    monkeypatch.setenv(SETTING, SECOND)
    text = train(folder)
    row = stored(folder)
    assert settings_of(row) == [FIRST, SECOND] and row.state == RunState.COMPLETE
    assert ((row.timed and row.timed.settings) or {})[SETTING] == SECOND, "times are taken anew"
    assert f"first epochs: {SETTING}={FIRST}" in " ".join(text.split())


def test_a_run_that_is_resumed_elsewhere_after_a_lost_database_is_of_both_environments(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(folder)
    lose_database(folder)
    monkeypatch.setenv(SETTING, SECOND)
    text = train(folder)
    assert settings_of(stored(folder)) == [FIRST, SECOND]
    assert f"resumed in another environment (before: {SETTING}={FIRST})" in " ".join(text.split())
    lose_database(folder)
    train(folder)
    assert settings_of(stored(folder)) == [FIRST, SECOND], "the checkpoint knows of both"


def test_with_reuse_same_a_checkpoint_of_another_environment_is_kept_and_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(folder)
    (checkpoint,) = (folder / "results" / "tiny" / "checkpoints").glob("*.pt")
    old = checkpoint.read_bytes()
    lose_database(folder)
    monkeypatch.setenv(SETTING, SECOND)
    text = " ".join(train(folder, "--reuse", "same").split())
    assert settings_of(stored(folder)) == [SECOND]
    assert f"checkpoint not used: it is of another environment ({SETTING}={FIRST})" in text
    kept = folder / "results" / "tiny" / "replaced" / f"{stored(folder).id}.1.pt"
    assert kept.read_bytes() == old and str(kept.name) in text
    monkeypatch.setenv(SETTING, FIRST)
    train(folder, "--reuse", "same")  # the store has the run now, and keeps its record and its weights
    assert {path.name.split(".", 1)[1] for path in kept.parent.iterdir()} == {"1.pt", "2.json", "2.pt"}
    assert kept.read_bytes() == old


def test_with_reuse_same_a_checkpoint_of_this_environment_is_resumed(folder: Path) -> None:
    begin(folder)
    lose_database(folder)
    text = train(folder, "--reuse", "same")
    assert "from epoch 2 on" in text and settings_of(stored(folder)) == [FIRST]


def test_a_checkpoint_of_an_earlier_version_is_of_an_unknown_environment_unless_the_database_has_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(folder)
    forget_environments(folder)
    monkeypatch.setenv(SETTING, SECOND)
    begin_again = stored(folder)
    assert settings_of(begin_again) == [FIRST]
    train(folder)
    assert settings_of(stored(folder)) == [FIRST, SECOND]
    lose_database(folder)
    train(folder)
    assert settings_of(stored(folder)) == [None, SECOND], "who computed its first epoch is not known any longer"


def test_a_checkpoint_names_the_epoch_from_which_each_environment_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tiny_run(), tmp_path / "study")
    monkeypatch.setenv(SETTING, FIRST)
    list(itertools.islice(run_job(job), 3))  # two epochs, then the process is killed
    monkeypatch.setenv(SETTING, SECOND)
    started, *records = run_job(job)
    assert isinstance(started, Started) and started.first_epoch == 3
    assert [(environment.settings or {})[SETTING] for environment in started.earlier if environment] == [FIRST]
    assert sum(isinstance(record, Epoch) for record in records) == 3 and isinstance(records[-2], Measured)
    state = read_state(job.checkpoint)
    assert state is not None
    assert [(entry["epoch"], entry["environment"]["settings"][SETTING]) for entry in state["environments"]] == [
        (1, FIRST),
        (3, SECOND),
    ]
