"""Executor that trains runs one after another in this process: no Ray, prints to the terminal, breakpoints work."""

import time
from collections import deque
from collections.abc import Iterator

from harness.errors import ExecutorError
from harness.executors.base import AcceptedJob, WorkerRequest, run_job_logged
from harness.training.run import Ended, Job, Record, RunState


class InlineExecutor:
    """Trains while it is polled: a poll lasts until the run's next record, and a step that hangs cannot be ended."""

    slots = 1

    def __init__(self, request: WorkerRequest) -> None:
        if request.workers not in (None, 1):
            rule = "`inline` trains one run at a time"
            remedy = "Leave `--workers` out, or use `--executor ray`."
            raise ExecutorError(rule, value=request.workers, place="--workers", remedy=remedy)
        if request.address is not None:
            raise ExecutorError(
                "`inline` trains in this process, not on a cluster",
                value=request.address,
                place="--ray-address",
                remedy="Leave `--ray-address` out, or use `--executor ray`.",
            )
        self._waiting: deque[Job] = deque()
        self._pending: list[tuple[str, Record]] = []
        self._task: AcceptedJob | None = None
        self._records: Iterator[Record] = iter(())
        self._is_stopping = False

    def submit(self, job: Job) -> None:
        """See `Executor`, as for all methods of this class."""
        self._waiting.append(job)

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:  # noqa: D102
        if not self._pending:
            if self._task is None and self._waiting:
                self._begin(self._waiting.popleft())
            if self._task is None:
                time.sleep(timeout_s)
            else:
                self._advance(self._task)
        records, self._pending = self._pending, []
        return records

    def stop(self, run_id: str) -> None:  # noqa: D102
        if self._task is not None and self._task.run_id == run_id:
            self._is_stopping = True
        for job in [job for job in self._waiting if job.run.id == run_id]:
            self._waiting.remove(job)
            self._pending.append((run_id, Ended(RunState.STOPPED, wall_s=0.0, cause="stopped before it began")))

    def shutdown(self) -> None:  # noqa: D102
        self._waiting.clear()
        self._pending.clear()
        self._task = None
        self._records = iter(())

    def _begin(self, job: Job) -> None:
        self._is_stopping = False
        self._task = AcceptedJob(job)
        self._records = run_job_logged(job, lambda: self._is_stopping)

    def _advance(self, task: AcceptedJob) -> None:
        """Train up to the run's next record. An interruption ends the run, keeps its checkpoint, and is raised."""
        try:
            record = next(self._records)
        except BaseException:
            self._task = None
            self._pending.append((task.run_id, task.ended(RunState.STOPPED, "interrupted")))
            raise
        if isinstance(record, Ended):
            self._task = None
        self._pending.append((task.run_id, record))
