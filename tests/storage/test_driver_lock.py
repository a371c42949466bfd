"""One driver per study and database, whatever becomes of the one that was."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.storage import DriverLock, Store, driver_of

pytest_plugins = ["postgres"]

HOLD = """
import sys
from harness.storage import DriverLock, Store
with Store.open(sys.argv[1]) as store, DriverLock(store, sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(database: str, study: str) -> "Iterator[subprocess.Popen[str]]":
    """Another process that drives the study."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, database, study], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_driver_is_refused_until_the_first_is_gone(database: str) -> None:
    with Store.open(database) as store:
        with held_elsewhere(database, "s") as process:
            name = f"process {process.pid} on {socket.gethostname()}"
            assert driver_of(store, "s") == name
            with pytest.raises(StoreError, match=rf"one driver at a time, .* `s`, which {name} drives"):
                DriverLock(store, "s").__enter__()
            with DriverLock(store, "another study"):
                assert driver_of(store, "another study") is not None
            process.send_signal(signal.SIGKILL)
            process.wait()
            with DriverLock(store, "s"):
                assert driver_of(store, "s") == f"process {os.getpid()} on {socket.gethostname()}"
        assert driver_of(store, "s") is None


def test_a_driver_that_ends_gives_way(database: str) -> None:
    with Store.open(database) as store:
        assert driver_of(store, "s") is None
        for _ in range(2):
            with DriverLock(store, "s"), pytest.raises(StoreError, match="one driver at a time"):
                DriverLock(store, "s").__enter__()
        with pytest.raises(ZeroDivisionError), DriverLock(store, "s"):
            _ = 1 / 0
        with DriverLock(store, "s"):
            pass


def test_looking_for_a_driver_creates_nothing(tmp_path: Path) -> None:
    Store.open(tmp_path / "studies.db").close()
    with Store.open(tmp_path / "studies.db", read_only=True) as store:
        before = sorted(tmp_path.iterdir())
        assert driver_of(store, "s") is None
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("study", ["a/b", "..", "größe", "x" * 60, "a b"])
def test_any_name_of_a_study_will_do(database: str, study: str) -> None:
    with Store.open(database) as store, DriverLock(store, study):
        assert driver_of(store, study) is not None
        assert driver_of(store, "s") is None


def test_a_folder_that_does_not_allow_lock_files_is_named(tmp_path: Path) -> None:
    with Store.open(tmp_path / "studies.db") as store:
        (tmp_path / "studies.db.s.lock").mkdir()
        with pytest.raises(StoreError, match="the folder of the database must allow lock files"):
            DriverLock(store, "s").__enter__()


def test_two_databases_have_two_drivers(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as a, Store.open(tmp_path / "b.db") as b, DriverLock(a, "s"), DriverLock(b, "s"):
        assert driver_of(a, "s") == driver_of(b, "s")
