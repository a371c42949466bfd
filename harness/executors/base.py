"""The seam between the search and the machines: jobs go in, records come out, in the order each run makes them.

A run that was submitted always ends with exactly one `Ended`, whatever becomes of its process or its node.
`AcceptedJob` and `run_job_logged` are what every executor does with a job; `run_job` loads torch, and is imported where
a run is trained only.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from harness.errors import one_line
from harness.training.run import Ended, Job, Record, RunState


class Executor(Protocol):
    """Trains runs somewhere. One thread of one process, the driver's, calls it."""

    slots: int
    """How many runs are trained at a time; further ones may be submitted and wait their turn."""

    def submit(self, job: Job) -> None:
        """Take a run; returns at once. The same run may be submitted again after its `Ended`."""

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:
        """What has been said since the last call, as (run id, record); waits up to `timeout_s` for the first."""

    def stop(self, run_id: str) -> None:
        """Ask a run to end soon; its last record is then `Ended(STOPPED)`. Nothing happens to one that has ended."""

    def shutdown(self) -> None:
        """Give back all workers, at once; runs still going on end without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRequest:
    """The workers that are wanted, all alike."""

    cpus: int = 1
    """Processors of a worker, and threads of its runs."""
    gpus: float = 0.0
    """Share of a GPU, or a whole number of them; where there is no GPU at all, runs are trained on processors."""
    workers: int | None = None
    """How many; null for as many as there is room for."""
    runs: int | None = None
    """How many runs there will be at most, where that is known: more workers than that would have nothing to do."""
    address: str | None = None
    """A Ray cluster, as `host:port`, or `auto` for the one on this machine; null for workers on this machine alone."""


@dataclass(slots=True, eq=False)
class AcceptedJob:
    """A job that an executor has taken, and since when."""

    job: Job
    start: float = field(default_factory=time.monotonic)

    @property
    def run_id(self) -> str:
        """The id of its run."""
        return self.job.run.id

    def ended(self, state: RunState, cause: str) -> Ended:
        """The last record, where the run itself can no longer say it."""
        return Ended(state, wall_s=time.monotonic() - self.start, cause=cause)

    def failed(self, error: BaseException) -> Ended:
        """The last record of a run that an error ended, and not `run_job`."""
        return self.ended(RunState.FAILED, f"{type(error).__name__}: {one_line(error)}")


def run_job_logged(job: Job, should_stop: Callable[[], bool]) -> Iterator[Record]:
    """Evaluate a job. The last record is an `Ended`, even where the run's log cannot be written."""
    from harness.executors.run_job import run_job

    task = AcceptedJob(job)
    try:
        yield from run_job(job, should_stop)
    except Exception as error:
        yield task.failed(error)
