"""A job on a worker: what every executor does with it, wherever the worker is."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from harness.errors import one_line
from harness.training.run import Ended, Job, Record, RunState


@dataclass(slots=True, eq=False)
class Task:
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
        """The last record of a run that an error ended, and not `evaluate`."""
        return self.ended(RunState.FAILED, f"{type(error).__name__}: {one_line(error)}")


def train(job: Job, should_stop: Callable[[], bool]) -> Iterator[Record]:
    """Evaluate a job. The last record is an `Ended`, even where the run's log cannot be written."""
    from harness.executors.run_job import evaluate

    task = Task(job)
    try:
        yield from evaluate(job, should_stop)
    except Exception as error:
        yield task.failed(error)
