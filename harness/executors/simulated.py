"""Executor in simulated time: runs yield the records of a script, and each epoch takes its recorded seconds.

Nothing is trained and nothing waits. With several workers, runs end in the order in which they would have ended.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from harness.training.run import Ended, Epoch, Job, Record, RunState, Started

Script = Callable[[Job], Iterable[Record]]


class BudgetUsed(Exception):
    """The epochs that an executor may compute are computed."""


@dataclass(slots=True)
class _Attempt:
    """A running job."""

    run_id: str
    records: Iterator[Record]
    coming: Record
    """The next record."""
    began_s: float
    """When it began to compute that record."""
    due_s: float
    """When it yields that record."""
    started: Started | None = None
    """Its first record, after it was yielded."""


class SimulatedExecutor:
    """Yields the records of a script at the times at which its workers would have; a stopped job ends immediately."""

    def __init__(self, script: Script, *, slots: int = 1, budget: float = math.inf) -> None:
        self.slots = slots
        self.budget = budget
        """Number of epochs after which `poll` raises `BudgetUsed`, once; then runs can still be stopped."""
        self.clock_s = 0.0
        """Simulated time since the start."""
        self.epochs = 0.0
        """Number of epochs that were computed, parts of those that were stopped included."""
        self._script = script
        self._waiting: deque[Job] = deque()
        self._running: dict[str, _Attempt] = {}
        self._stopped: dict[str, tuple[Started, Epoch, Iterator[Record]]] = {}
        """What is left of stopped runs, by id: a run that is submitted again resumes after its last epoch."""
        self._queue: list[tuple[float, int, _Attempt]] = []
        """Attempts by the time of their next record, then in the order in which they were scheduled."""
        self._scheduled = 0

    def submit(self, job: Job) -> None:
        """See `Executor`, as for all methods of this class."""
        self._waiting.append(job)

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:  # noqa: ARG002
        """Advance the clock to the next record, and return all records of its run that are due then."""
        if self.epochs >= self.budget:
            self.budget = math.inf
            raise BudgetUsed
        while self._waiting and len(self._running) < self.slots:
            self._start(self._waiting.popleft())
        while self._queue:
            due_s, _, attempt = heapq.heappop(self._queue)
            if self._running.get(attempt.run_id) is attempt and due_s == attempt.due_s:
                self.clock_s = due_s
                return [(attempt.run_id, record) for record in self._due(attempt)]
        return []

    def stop(self, run_id: str) -> None:
        """A run that was not started ends as STOPPED, too."""
        attempt = self._running.get(run_id)
        waiting = [job for job in self._waiting if job.run.id == run_id]
        if attempt is None and not waiting:
            return
        if attempt is None:
            self._waiting.remove(waiting[0])
        elif isinstance(attempt.coming, Epoch) and attempt.due_s > attempt.began_s:
            self.epochs += (self.clock_s - attempt.began_s) / (attempt.due_s - attempt.began_s)
        if attempt is not None and isinstance(attempt.coming, Epoch) and attempt.started is not None:
            self._stopped[run_id] = attempt.started, attempt.coming, attempt.records
        ended = Ended(RunState.STOPPED, wall_s=0.0, cause="stopped by the driver")
        self._running[run_id] = _Attempt(run_id, iter(()), ended, self.clock_s, self.clock_s)
        self._schedule(self._running[run_id])

    def shutdown(self) -> None:  # noqa: D102
        self._waiting.clear()
        self._running.clear()
        self._queue.clear()

    def _start(self, job: Job) -> None:
        records = self._records(job)
        attempt = _Attempt(job.run.id, records, next(records), self.clock_s, self.clock_s)
        self._running[job.run.id] = attempt
        attempt.due_s += _seconds_of(attempt.coming)
        self._schedule(attempt)

    def _records(self, job: Job) -> Iterator[Record]:
        """The records of a run; of one that was stopped, those that are left."""
        if job.run.id not in self._stopped:
            return iter(self._script(job))
        started, epoch, left = self._stopped.pop(job.run.id)
        return itertools.chain((replace(started, first_epoch=epoch.epoch), epoch), left)

    def _due(self, attempt: _Attempt) -> Iterator[Record]:
        """The records of a run that are due now; the one after them is scheduled."""
        while attempt.due_s <= self.clock_s:
            record = attempt.coming
            if isinstance(record, Started):
                attempt.started = record
            self.epochs += isinstance(record, Epoch)
            yield record
            if isinstance(record, Ended):
                del self._running[attempt.run_id]
                return
            attempt.coming = next(attempt.records)
            attempt.began_s = self.clock_s
            attempt.due_s = self.clock_s + _seconds_of(attempt.coming)
        self._schedule(attempt)

    def _schedule(self, attempt: _Attempt) -> None:
        self._scheduled += 1
        heapq.heappush(self._queue, (attempt.due_s, self._scheduled, attempt))


def _seconds_of(record: Record) -> float:
    """The time that a worker needs for a record."""
    return record.wall_s if isinstance(record, Epoch) else 0.0
