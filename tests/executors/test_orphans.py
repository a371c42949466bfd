"""What a killed driver leaves is ended, and nothing else is."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from harness.executors.orphans import VARIABLE, _start_of, end_orphans, marked_as_own

WAIT = [sys.executable, "-c", "input()"]
Waiting = subprocess.Popen[bytes]


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def waiting(processes: ExitStack, mark: str | None = None) -> Waiting:
    environment = os.environ | ({} if mark is None else {VARIABLE: mark})
    process = subprocess.Popen(WAIT, env=environment, stdin=subprocess.PIPE)
    processes.enter_context(process)
    processes.callback(process.kill)
    return process


def test_processes_of_dead_drivers_are_killed_and_those_of_living_ones_are_not(processes: ExitStack) -> None:
    driver = waiting(processes)
    driver_mark = f"{driver.pid}:{_start_of(driver.pid)}"
    with marked_as_own():
        ours = waiting(processes)
    theirs, other_start, unmarked = (waiting(processes, mark) for mark in (driver_mark, f"{os.getpid()}:1", None))
    end_orphans()
    assert other_start.wait(10) == -9  # its driver's number is that of another process by now
    assert all(process.poll() is None for process in (ours, theirs, unmarked))
    driver.kill()
    os.waitid(os.P_PID, driver.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still listed
    end_orphans()
    assert theirs.wait(10) == -9 and ours.poll() is None and unmarked.poll() is None
    assert VARIABLE not in os.environ
