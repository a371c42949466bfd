"""Rows of trainings at full scale: `harness train` writes them, late where it must, and `harness show` shows them."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from folder_data import write_folder
from full_scale_cases import RECIPE, epochs_of, full_row, job_of, recipe_of, trained
from tiny_studies import CommandResult, Played, called

from harness.errors import Diverged, Stopped
from harness.storage import FullScaleRow, FullScaleRuns, Store
from harness.storage.full_run_recorder import epoch_metrics, recording_run
from harness.training.full_scale.folder import lock_of
from harness.training.full_scale.messages import read_epochs
from harness.training.run import RunState, Started

SPEC = {"B": 1, "C": [4, 4, 8, 8], "K": 3, "stem_stride": 2}


def train(folder: Path, *options: str | Path, recipe: dict[str, Any] = RECIPE) -> CommandResult:
    (folder / "net.yaml").write_text(yaml.safe_dump(SPEC))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return called("train", "net.yaml", "--recipe", "recipe.yaml", *options, cwd=folder)


def rows(results: Path) -> list[tuple[FullScaleRow, dict[int, dict[str, float]]]]:
    with Store.open(results / "studies.db", read_only=True) as store:
        return [(row, FullScaleRuns(store).metrics(row.id)) for row in FullScaleRuns(store).all()]


@pytest.mark.long
def test_a_training_leaves_a_row_with_every_figure(tmp_path: Path) -> None:
    result = train(tmp_path)
    assert result.returncode == 0 and "cpu (" in result.stdout, result.stderr
    ((row, metrics),) = rows(tmp_path / "results")
    (folder,) = (path for path in (tmp_path / "results" / "full_scale").iterdir() if path.is_dir())
    assert (row.state, row.cause, row.folder, row.name) == (RunState.COMPLETE, None, folder, "net")
    assert (row.epochs, row.epochs_done, row.recipe_name, row.study) == (2, 2, "recipe", None)
    assert row.recipe_fingerprint == recipe_of().fingerprint() and row.spec.classes == 8
    assert row.device is not None and row.device.startswith("cpu (") and row.versions and "torch" in row.versions
    epochs = read_epochs(folder)
    assert metrics == {epoch.epoch: epoch_metrics(epoch) for epoch in epochs} and len(epochs) == 2
    assert {"train_loss", "lr", "waiting", "val_top1", "val_top5", "ema_loss", "val_unreadable"} <= set(metrics[2])
    assert (row.metric, row.best) == ("top1", max(epoch.value or 0 for epoch in epochs))
    again = train(tmp_path)
    assert again.returncode == 0 and len(rows(tmp_path / "results")) == 1
    path = folder / "environments.json"
    path.write_text(path.read_text().replace('"operator": "', '"operator": "old-'))
    (tmp_path / "results" / "studies.db").unlink()
    assert train(tmp_path).returncode == 0
    ((rebuilt, _),) = rows(tmp_path / "results")
    assert rebuilt.environment and str(rebuilt.environment.operator).startswith("old-"), (
        "as it was trained, not as here"
    )
    assert rebuilt.earlier == () and row.environment is not None


@pytest.mark.long
def test_trainings_on_other_data_are_other_rows_of_a_shared_database(tmp_path: Path) -> None:
    recipe = RECIPE | {"epochs": 1, "schedule": {"warmup_epochs": 0}, "data": {"dataset": "imagefolder"}}
    recipe |= {"batch_size": 8, "micro_batch": 8}
    storage = ("--storage", f"sqlite:///{tmp_path / 'studies.db'}")
    for name, classes in (("first", ("a", "b")), ("second", ("a", "c"))):
        data = write_folder(tmp_path / f"images of {name}", classes)
        result = train(tmp_path, "--data", data, "--results", name, *storage, recipe=recipe)
        assert result.returncode == 0, result.stderr
    stored = rows(tmp_path)
    assert sorted(row.folder.parts[-3] for row, _ in stored) == ["first", "second"]
    assert len({row.folder.name for row, _ in stored}) == 1 and all(set(metrics) == {1} for _, metrics in stored)
    result = train(
        tmp_path, "--data", tmp_path / "images of first", "--results", "second", *storage, "--fresh", recipe=recipe
    )
    assert result.returncode == 0, result.stderr
    assert [row.folder.parts[-3] for row, _ in rows(tmp_path)] == ["second"], "the same training, the last to be run"


def test_a_training_that_is_stopped_and_resumed_keeps_one_row(tmp_path: Path) -> None:
    row, database = full_row(tmp_path / "run"), tmp_path / "studies.db"
    job = job_of(tmp_path / "run")
    with pytest.raises(Stopped), recording_run(row, database) as recorder:
        for record in trained(job, lambda: (job.folder / "epochs.jsonl").is_file() and bool(read_epochs(job.folder))):
            recorder.record(record)
    ((stored, _),) = rows(tmp_path)
    assert (stored.state, stored.epochs_done) == (RunState.STOPPED, 1) and "stopped in epoch 2" in (stored.cause or "")
    with recording_run(row, database) as recorder:
        for record in trained(job):
            recorder.record(record)
    ((stored, metrics),) = rows(tmp_path)
    assert (stored.state, stored.cause, stored.epochs_done) == (RunState.COMPLETE, None, 2) and set(metrics) == {1, 2}


def test_how_a_training_ends_is_recorded(tmp_path: Path) -> None:
    for error, state, cause in (
        (Diverged("the training loss is nan"), RunState.DIVERGED, "the training loss is nan"),
        (KeyboardInterrupt(), RunState.STOPPED, None),
        (ValueError("a fault of ours"), RunState.FAILED, "ValueError: a fault of ours"),
    ):
        with pytest.raises(type(error)), recording_run(full_row(tmp_path / "run"), tmp_path / "studies.db"):
            raise error
        ((row, _),) = rows(tmp_path)
        assert (row.state, row.cause) == (state, cause)


@pytest.mark.long
def test_a_busy_database_holds_nothing_up_and_gets_all_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.storage.full_run_recorder.BUSY_TIMEOUT_S", 0.05)
    Store.open(tmp_path / "studies.db").close()
    job, other = job_of(tmp_path / "run"), sqlite3.connect(tmp_path / "studies.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with recording_run(full_row(job.folder), tmp_path / "studies.db") as recorder:
        first, *rest = [record for record in trained(job) if not isinstance(record, Started)]
        recorder.record(first)
        warning = capsys.readouterr().err
        assert warning.count("warning:") == 1 and "must not be held by another process" in warning
        assert "run the same command again" in warning
        other.execute("ROLLBACK")
        other.close()
        for record in rest:
            recorder.record(record)
    ((row, metrics),) = rows(tmp_path)
    assert row.state == RunState.COMPLETE and set(metrics) == {1, 2} and capsys.readouterr().err == ""


def test_a_file_that_is_no_database_is_reported_and_the_training_completes(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "studies.db").write_bytes(b"a letter to my aunt, and no database at all" * 40)
    result = train(tmp_path)
    assert result.returncode == 0 and "epoch 2/2" in result.stdout and "Traceback" not in result.stderr
    assert "warning: the file must be an SQLite database" in result.stderr
    assert "the database lacks what" in result.stderr and "epochs.jsonl" in result.stderr
    (tmp_path / "results" / "studies.db").unlink()
    assert train(tmp_path).returncode == 0
    ((row, metrics),) = rows(tmp_path / "results")
    assert row.state == RunState.COMPLETE and set(metrics) == {1, 2}


def test_a_database_that_vanishes_meanwhile_is_created_again(tmp_path: Path) -> None:
    job = job_of(tmp_path / "run")
    with recording_run(full_row(job.folder), tmp_path / "studies.db") as recorder:
        records = trained(job)
        for path in tmp_path.glob("studies.db*"):
            path.unlink()
        recorder.record(epochs_of(records)[-1])
    ((_, metrics),) = rows(tmp_path)
    assert set(metrics) == {1, 2}


@pytest.mark.long
def test_show_compares_proxy_and_full_scale(tmp_path: Path) -> None:
    played = Played(tmp_path)
    best = played.answer().best
    assert best is not None and best.mean is not None
    results, trial = played.workspace.results, best.trials[0]
    result = called("show", played.path, "--results", results, cwd=tmp_path)
    assert "Full scale" not in result.stdout
    recipe = RECIPE | {"epochs": 1, "schedule": {"warmup_epochs": 0}, "batch_size": 8, "micro_batch": 8}
    recipe |= {"data": {"dataset": "shapes", "train_size": 8, "val_size": 8}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    options = ("--recipe", "recipe.yaml", "--results", results)
    training = called("train", "best-of", played.path, *options, cwd=tmp_path)
    assert training.returncode == 0, training.stderr
    result = called("show", played.path, "--results", results, cwd=tmp_path)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"{trial} ") and "recipe" in line]
    assert "complete" in line and "1/1" in line and f"{best.mean:.2f} ± " in line
    assert "best.safetensors, of epoch 1; on cpu (" in " ".join(result.stdout.split())
    values = json.loads(called("show", played.path, "--results", results, "--json", cwd=tmp_path).stdout)
    (row,) = values["full_scale"]
    assert (row["trial"], row["state"], row["proxy"]["n"]) == (trial, "complete", 3)
    assert row["proxy"]["mean"] == best.mean and Path(row["weights"]).is_file() and 0 <= row["best"] <= 100
    run = results / "question" / "checkpoints" / f"{best.runs[0].row.id}.pt"
    assert called("train", run, *options, cwd=tmp_path).returncode == 0  # the same network, by its run
    values = json.loads(called("show", played.path, "--results", results, "--json", cwd=tmp_path).stdout)
    assert {row["trial"] for row in values["full_scale"]} == {trial}


def test_a_training_without_a_process_was_interrupted(tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.answer()
    with Store.open(played.workspace.database) as store:
        FullScaleRuns(store).save(full_row(tmp_path / "net", study="question", trial=0), {}, is_whole=True)
    command = ("show", played.path, "--results", played.workspace.results, "--json")

    def state() -> str:
        (row,) = json.loads(called(*command, cwd=tmp_path).stdout)["full_scale"]
        return str(row["state"])

    assert state() == "interrupted"
    with lock_of(tmp_path / "net"):
        assert state() == "running"
    assert "no weights yet" in " ".join(called(*command[:-1], cwd=tmp_path).stdout.split())
