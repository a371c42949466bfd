"""Whatever becomes of the database or the checkpoints between two commands, no learning curve has a hole."""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy.exc import OperationalError
from tiny_studies import BRIEF, INLINE, TINY, CommandResult, called, write_study

from harness.storage import Store
from harness.training.run import Epoch, Record, RunState

EPOCHS = 3
STUDY: dict[str, Any] = TINY | {"search": {"seeds": 1}}
STUDY["proxy"] = BRIEF | {"epochs": EPOCHS}
Curves = dict[str, list[tuple[int, float, float]]]


def run(folder: Path, *more: str) -> CommandResult:
    return called("run", "study.yaml", *INLINE, *more, cwd=folder)


def curves_of(folder: Path, database: str = "results/studies.db") -> Curves:
    """(epoch, training loss, top-1) of every run of the study, all of which must be complete."""
    with Store.open(folder / database, read_only=True) as store:
        ids = [run_id for runs in store.trial_runs("tiny").values() for run_id in runs]
        assert {row.state for row in store.runs(ids).values()} == {RunState.COMPLETE}
        curves = store.epochs_of_runs(ids)
    assert len(ids) == 2 and all([epoch.epoch for epoch in curves[complete_id]] == [1, 2, 3] for complete_id in ids)
    return {
        run_id: [(epoch.epoch, epoch.train_loss, epoch.top1) for epoch in curve] for run_id, curve in curves.items()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_study(folder, STUDY)
    assert run(folder).returncode == 0
    return folder


@pytest.fixture
def copied(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the folder of the study that was run to its end."""
    return Path(shutil.copytree(undisturbed, tmp_path / "copy"))


@pytest.mark.long
@pytest.mark.parametrize("change", ["removed", "another"])
def test_a_database_that_is_gone_is_filled_again_from_the_checkpoints(
    change: str, undisturbed: Path, copied: Path
) -> None:
    more = ("--storage", "sqlite:///other.db") if change == "another" else ()
    if change == "removed":
        (copied / "results" / "studies.db").rename(copied / "results" / "damaged.db")
    again = run(copied, *more)
    assert again.returncode == 0, again.stderr
    assert curves_of(copied, "other.db" if more else "results/studies.db") == curves_of(undisturbed)
    assert "trained already, measuring" in again.stdout and ": epoch " not in again.stdout


@pytest.mark.long
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_record_that_could_not_be_written_is_stored_later(
    lost: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path, STUDY)
    record = Store.record

    def full(self: Store, run_id: str, records: Sequence[Record], log: tuple[str, str] | None = None) -> list[Record]:
        if any(isinstance(record, Epoch) and record.epoch == lost for record in records):
            with self.translate_errors():
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorname = "SQLITE_FULL"
                raise OperationalError("INSERT", {}, error)
        return record(self, run_id, records, log)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "record", full)
        result = run(tmp_path)
    assert result.returncode == 2 and "the disk must have space for the database" in result.stderr
    assert run(tmp_path).returncode == 0
    assert curves_of(tmp_path) == curves_of(undisturbed)


@pytest.mark.long
def test_a_checkpoint_that_was_changed_is_reported_and_the_run_starts_again(undisturbed: Path, copied: Path) -> None:
    for path in (copied / "results" / "tiny" / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        torch.save({**content, "epoch": 99}, path)
    (copied / "results" / "studies.db").unlink()
    again = run(copied)
    assert again.returncode == 0 and "checkpoint not used: its content is not what was written" in again.stdout
    assert curves_of(copied) == curves_of(undisturbed)
    with Store.open(copied / "results" / "studies.db", read_only=True) as store:
        events = [event for event in store.events("tiny") if event.kind == "checkpoint"]
    assert len(events) == 2 and all(event.run_id and "checkpoint not used" in event.message for event in events)


def test_a_run_that_lost_an_epoch_has_no_value(copied: Path) -> None:
    from sqlalchemy import delete

    from harness.storage.tables import EpochTable

    with Store.open(copied / "results" / "studies.db") as store, store.session() as session:
        session.execute(delete(EpochTable).where(EpochTable.epoch == EPOCHS))
    result = called("status", "study.yaml", "--json", cwd=copied)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert "null" in json.dumps(rows) and rows.get("best") is None, rows
