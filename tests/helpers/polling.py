"""What the tests of the executors share: tiny jobs, and waiting for their records."""

import atexit
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

from tiny_runs import RECIPE, tiny_run, with_

from harness.executors.base import Executor
from harness.training.run import Ended, Job, Record

PATIENCE_S = 180.0
FOREVER = 10_000
"""Epochs of a run that a test ends."""


def tiny_job(folder: Path, *, seed: int = 0, minutes: float = 30.0, **recipe: Any) -> Job:
    """A run of a fraction of a second per epoch; all in this process share generated images and measured times."""
    run = tiny_run(seed=seed, recipe=with_(RECIPE, **recipe))
    return Job(run, folder / "study", minutes=minutes, cache=_cache())


@functools.cache
def _cache() -> Path:
    """The folder of images and times, which is removed when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="harness-tests-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def until(executor: Executor, kind: type[Record], *jobs: Job) -> dict[str, list[Record]]:
    """Poll until each of the jobs has yielded a record of that kind; returns all records of any, by run."""
    records_by_run: dict[str, list[Record]] = {job.run.id: [] for job in jobs}
    deadline = time.monotonic() + PATIENCE_S
    while not all(any(isinstance(record, kind) for record in records_by_run[job.run.id]) for job in jobs):
        assert time.monotonic() < deadline, f"after {PATIENCE_S:g} s there is only {records_by_run}"
        for run_id, record in executor.poll(1.0):
            records_by_run.setdefault(run_id, []).append(record)
    return records_by_run


def end_of(records: list[Record]) -> Ended:
    """The one `Ended`, which is the last record."""
    ends = [record for record in records if isinstance(record, Ended)]
    assert len(ends) == 1 and records[-1] is ends[0], records
    return ends[0]


def train(executor: Executor, job: Job) -> list[Record]:
    """All records of one run."""
    executor.submit(job)
    return until(executor, Ended, job)[job.run.id]
