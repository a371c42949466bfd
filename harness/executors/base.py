"""Interface between the search and the executors: jobs are submitted, records are polled in the order of each run.

Every submitted run ends with exactly one `Ended`, even if its process or its node dies. `AcceptedJob` and
`run_job_logged` are shared by all executors; `run_job` loads torch and is imported only where a run is trained.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from harness.errors import cause_of
from harness.training.run import Ended, Job, Record, RunState, state_after

STOP_GRACE_S = 60.0
"""Time after a run's limit at which its worker is killed: the run ends by itself unless it hangs."""


class Executor(Protocol):
    """Protocol of an executor, which trains runs. Only one thread of the driver process calls it."""

    slots: int
    """Number of runs that are trained at a time; further ones may be submitted and are queued."""

    def submit(self, job: Job) -> None:
        """Queue a run; returns immediately. The same run may be submitted again after its `Ended`."""

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:
        """The new records since the last call, as (run id, record); waits up to `timeout_s` for the first."""

    def stop(self, run_id: str) -> None:
        """Request that a run stops; its last record is then `Ended(STOPPED)`. A run that has ended is not affected."""

    def shutdown(self) -> None:
        """Stop all workers immediately; running jobs yield no further record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRequest:
    """The number and resources of the workers to start; all have the same resources."""

    cpus: int = 1
    """Processors of a worker, and threads of its runs."""
    gpus: float = 0.0
    """Share of a GPU, or a whole number of GPUs; if there is no GPU at all, runs are trained on processors."""
    workers: int | None = None
    """Number of workers; None for as many as fit."""
    runs: int | None = None
    """Maximum number of runs, if known: more workers than that would be idle."""
    address: str | None = None
    """A Ray cluster, as `host:port`, or `auto` for the one on this machine; None for workers on this machine only."""
    tune_config: str | None = None
    """A `ray.tune.RunConfig`, as `FILE.py:NAME` or `package.module:NAME`; for the executor `tune` alone."""


ExecutorFactory: TypeAlias = Callable[[WorkerRequest], Executor]
"""Starts the workers of an executor."""


@dataclass(slots=True, eq=False)
class AcceptedJob:
    """A job that was passed to a worker, with the time at which it was."""

    job: Job
    start: float = field(default_factory=time.monotonic)

    @property
    def run_id(self) -> str:
        """The id of the job's run."""
        return self.job.run.id

    def ended(self, state: RunState, cause: str) -> Ended:
        """The last record of a run that can no longer write it itself."""
        return Ended(state, wall_s=time.monotonic() - self.start, cause=cause)

    def failed(self, error: BaseException) -> Ended:
        """The last record of a run that ended with an error outside `run_job`."""
        return self.ended(state_after(error), cause_of(error))


def run_job_logged(job: Job, should_stop: Callable[[], bool]) -> Iterator[Record]:
    """Execute a job and yield its records. The last is an `Ended`, even if the run's log cannot be written."""
    from harness.executors.run_job import run_job

    task = AcceptedJob(job)
    try:
        yield from run_job(job, should_stop)
    except Exception as error:
        yield task.failed(error)
