"""Processes of a Ray cluster whose driver was killed: Ray's agents, and now and then workers, outlive it for a while.

All processes of a cluster that is started here have a mark in their environment: the driver's process and when it was
started. Those whose driver is gone are killed before another cluster is started.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "HARNESS_CLUSTER_OF"
PROCESSES = Path("/proc")
"""Where Linux lists processes; elsewhere there is no such folder, and nothing is killed."""


@contextlib.contextmanager
def marked_as_own() -> Iterator[None]:
    """Processes that are started meanwhile, and those that they start, are marked as this driver's."""
    os.environ[VARIABLE] = f"{os.getpid()}:{_start_of(os.getpid())}"
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def end_orphans() -> int:
    """Kill the marked processes whose driver is gone; returns their number."""
    count = 0
    for folder in PROCESSES.iterdir() if PROCESSES.is_dir() else ():
        if folder.name.isdecimal() and (driver := _driver_of(folder)) is not None and not _is_alive(driver):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(folder.name), signal.SIGKILL)
                count += 1
    return count


def _driver_of(folder: Path) -> str | None:
    """The mark of a process; None if it has none, has ended, or is another user's."""
    try:
        variables = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{VARIABLE}=".encode()
    marks = [variable.removeprefix(prefix).decode() for variable in variables if variable.startswith(prefix)]
    return marks[0] if marks else None


def _is_alive(mark: str) -> bool:
    pid, _, start = mark.partition(":")
    return pid.isdecimal() and _start_of(int(pid)) == start


def _start_of(pid: int) -> str | None:
    """When a process was started, in ticks since the machine was; None if it has ended."""
    try:
        text = (PROCESSES / str(pid) / "stat").read_text()
    except OSError:
        return None
    state, *fields = text[text.rindex(")") + 2 :].split()
    return None if state in ("Z", "X") else fields[18]
