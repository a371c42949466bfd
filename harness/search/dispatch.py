"""Submits, polls and stops the runs of a driver on its executor."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.config.study import Study
from harness.executors.base import Executor
from harness.search.trial import OpenTrial
from harness.training.run import Ended, Job, Record, Run

STOP_TIMEOUT_S = 20.0
"""Maximum time that an interrupted driver waits for its workers to end their step."""


@dataclass(slots=True)
class RunDispatcher:
    """Submits the runs of open trials to an executor, which starts with the first run."""

    study: Study
    folder: Path
    """The study's folder, for logs and checkpoints of runs that have no other folder."""
    start_executor: Callable[[], Executor]
    shares_times: bool
    """Whether runs of one configuration share their measured times; see `Job.shares_times`."""
    resumes_any: bool = True
    """Whether checkpoints of other environments are resumed; see `Job.resumes_any`."""
    owners: dict[str, OpenTrial] = field(default_factory=dict)
    """The trial of every submitted run, by run id."""
    attempts: dict[str, int] = field(default_factory=dict)
    """Number of submissions of each run."""
    _executor: Executor | None = None

    @property
    def slots(self) -> int:
        """Number of runs that the executor trains at a time; 1 before it is started."""
        return 1 if self._executor is None else self._executor.slots

    @property
    def has_room(self) -> bool:
        """Whether a worker is free; true before the executor is started."""
        return self._executor is None or len(self.owners) < self._executor.slots

    def submit(self, owner: OpenTrial, run: Run, folder: Path | None, *, only_times: bool = False) -> int:
        """Submit a run of a trial; returns the number of the attempt."""
        owner.todo.remove(run)
        owner.active[run.id] = run
        self.owners[run.id] = owner
        self.attempts[run.id] = self.attempts.get(run.id, 0) + 1
        grant = self.study.resources
        job = Job(run, folder or self.folder, grant.cpus, grant.gpus, grant.minutes_per_run)
        job = replace(job, only_times=only_times, shares_times=self.shares_times, resumes_any=self.resumes_any)
        self._started().submit(job)
        return self.attempts[run.id]

    def withdraw(self, run_id: str) -> tuple[OpenTrial, Run]:
        """Remove a run that the executor has ended, and return its trial and the run."""
        owner = self.owners.pop(run_id)
        return owner, owner.active.pop(run_id)

    def poll(self, timeout_s: float = 1.0) -> dict[str, list[Record]]:
        """New records by run, in their order."""
        grouped: dict[str, list[Record]] = {}
        for run_id, record in self._started().poll(timeout_s=timeout_s):
            grouped.setdefault(run_id, []).append(record)
        return grouped

    def stop(self, run_id: str) -> None:
        """Stop a run at its next step."""
        self._started().stop(run_id)

    def shut_down(self, keep: Callable[[str, list[Record]], None]) -> None:
        """Stop all runs, pass their last records to `keep`, and shut the executor down."""
        if self._executor is None:
            return
        try:
            self._stop_all(keep)
        finally:
            self._executor.shutdown()

    def _stop_all(self, keep: Callable[[str, list[Record]], None]) -> None:
        for run_id in self.owners:
            self.stop(run_id)
        waiting = set(self.owners)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while waiting and time.monotonic() < deadline:
            for run_id, records in self.poll(timeout_s=0.5).items():
                keep(run_id, records)
                if isinstance(records[-1], Ended):
                    waiting.discard(run_id)

    def _started(self) -> Executor:
        if self._executor is None:
            self._executor = self.start_executor()
        return self._executor
