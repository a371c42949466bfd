"""Trainings at full scale in the database: however often they are written, each is one row, found by its study."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from full_scale_cases import full_row

from harness.errors import StoreError
from harness.storage import FullScaleRow, FullScaleRuns, Store, open_study
from harness.training.run import RunState

pytest_plugins = ["postgres"]

FIGURES = {1: {"train_loss": 2.0, "val_top1": 20.0}, 2: {"train_loss": float("nan"), "val_top1": 30.0}}


def without_times(row: FullScaleRow) -> FullScaleRow:
    """A row without its times."""
    return replace(row, created=None, updated=None)


def test_a_row_comes_back_as_it_was_written(database: str, tmp_path: Path) -> None:
    row = full_row(
        tmp_path / "full_scale" / "net",
        study="s",
        trial=3,
        weights="digest",
        host="host",
        device="cpu (test, 1 thread)",
        threads=1,
        versions={"torch": "2.15.0"},
        epochs_done=2,
        best=30.0,
        best_epoch=2,
    )
    with Store.open(database) as store:
        FullScaleRuns(store).save(row, FIGURES, is_whole=True)
    with Store.open(database, read_only=True) as store:
        (stored,) = FullScaleRuns(store).of_study("s")
        assert without_times(stored) == row and stored.created is not None and stored.created == stored.updated
        assert FullScaleRuns(store).of_study("other") == () and FullScaleRuns(store).all() == (stored,)
        metrics = FullScaleRuns(store).metrics(row.id)
        assert metrics[1] == FIGURES[1] and metrics[2]["train_loss"] != metrics[2]["train_loss"]


def test_a_resumed_training_changes_its_own_row(database: str, tmp_path: Path) -> None:
    row = full_row(tmp_path / "net", study="s", trial=3)
    with Store.open(database) as store:
        runs = FullScaleRuns(store)
        runs.save(row, {}, is_whole=True)
        runs.save(row, {1: {"lr": 1.0}}, is_whole=False)
        runs.save(row, {1: {"lr": 7.0}, 2: {"lr": 0.5}}, is_whole=False)
        assert runs.metrics(row.id) == {1: {"lr": 1.0}, 2: {"lr": 0.5}}  # the last epoch alone
        by_its_file = replace(row, study=None, trial=None, state=RunState.COMPLETE, epochs_done=2)
        runs.save(by_its_file, {1: {"lr": 9.0}}, is_whole=True)
        assert runs.metrics(row.id) == {1: {"lr": 9.0}}
        (stored,) = runs.all()
    assert without_times(stored) == replace(by_its_file, study="s", trial=3)
    assert stored.created is not None and stored.updated is not None and stored.created < stored.updated


def test_a_row_of_an_earlier_version_gives_way_to_that_of_its_folder(database: str, tmp_path: Path) -> None:
    earlier = full_row(tmp_path / "net", id="0" * 16, study="s", trial=3, host=socket.gethostname())
    elsewhere = replace(earlier, id="1" * 16, host="another machine")
    neighbor = full_row(tmp_path / "beside", id="2" * 16)
    with Store.open(database) as store:
        runs = FullScaleRuns(store)
        for row in (neighbor, elsewhere, earlier):
            runs.save(row, {1: {"lr": 1.0}}, is_whole=True)
        runs.save(full_row(tmp_path / "net"), {1: {"lr": 2.0}}, is_whole=True)
        trials = {row.id: (row.study, row.trial) for row in runs.all()}
        assert runs.metrics(earlier.id) == {}
    assert trials == {full_row(tmp_path).id: ("s", 3), elsewhere.id: ("s", 3), neighbor.id: (None, None)}


def test_a_row_that_was_lost_is_written_whole(database: str, tmp_path: Path) -> None:
    row = full_row(tmp_path / "net")
    with Store.open(database) as store:
        FullScaleRuns(store).save(row, {1: {"lr": 1.0}, 2: {"lr": 0.5}}, is_whole=False)
        assert FullScaleRuns(store).metrics(row.id) == {1: {"lr": 1.0}, 2: {"lr": 0.5}}


def test_a_study_that_is_forgotten_leaves_its_trainings_behind(database: str, tmp_path: Path) -> None:
    row = full_row(tmp_path / "net", study="s", trial=0)
    with Store.open(database) as store:
        FullScaleRuns(store).save(row, {}, is_whole=True)
        store.delete_study("s", and_then=lambda _: None)
        assert without_times(FullScaleRuns(store).all()[0]) == replace(row, study=None, trial=None)
        FullScaleRuns(store).save(row, {}, is_whole=True)
        open_study(store, "s", directions=["maximize"])  # a new study of the name, whose trials are others
        assert FullScaleRuns(store).of_study("s") == ()


def test_folders_are_kept_relative_to_the_database(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a" / "studies.db") as store:
        FullScaleRuns(store).save(full_row(tmp_path / "a" / "full_scale" / "net"), {}, is_whole=True)
    (tmp_path / "a").rename(tmp_path / "b")
    with Store.open(tmp_path / "b" / "studies.db") as store:
        assert FullScaleRuns(store).all()[0].folder == tmp_path / "b" / "full_scale" / "net"


def test_a_busy_database_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    with Store.open(path) as store, Store.open(path, busy_s=0.1) as other, store.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="must not be held by another process"):
            FullScaleRuns(other).save(full_row(tmp_path / "net"), {}, is_whole=True)
        connection.rollback()
