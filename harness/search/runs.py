"""The runs of a driver: on its executor, and in the store.

On the executor, runs are submitted, and the time that is left is estimated. In the store, they have their rows, values
and times, and the final facts of a trial.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.analysis.limits import RunValues
from harness.analysis.objective import objective_value
from harness.analysis.reuse import ReuseRule
from harness.config.measures import is_of_machine
from harness.config.study import Study
from harness.executors.base import Executor
from harness.search.trial import OpenTrial
from harness.storage import RunRow, Store
from harness.storage.transitions import SETTLED
from harness.training.environment import Environment, describe_difference
from harness.training.run import Ended, Epoch, Job, Measured, Record, Run, RunState, Started

STOP_TIMEOUT_S = 20.0
"""Maximum time that an interrupted driver waits for its workers to end their step."""
MEASURED_AGAIN, LEFT_OUT = "times measured again", "times left out"
"""Kinds of the stored events."""


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


class TimeLeftEstimator:
    """Estimates from the wall times of complete runs, or before there are any, from the pace of active runs.

    Runs of different recipes are compared by their work, relative to that of the study's proxy.
    """

    def __init__(self, seconds_per_work: Iterable[float]) -> None:
        self._seconds_per_work = list(seconds_per_work)
        self._pace: dict[str, _Pace] = {}
        """The pace of every active run."""

    def started(self, run_id: str, first_epoch: int, *, epochs: int, work: float = 1.0) -> None:
        """Add a run that was started."""
        self._pace[run_id] = _Pace(epochs, work, first_epoch - 1, 0.0)

    def advanced(self, run_id: str, epoch: Epoch) -> None:
        """Add a finished epoch; epochs from the run's checkpoint took no time in this attempt."""
        pace = self._pace.get(run_id)
        if pace is not None and epoch.epoch > pace.done:
            self._pace[run_id] = pace._replace(done=epoch.epoch, seconds=pace.seconds + epoch.wall_s)

    def ended(self, run_id: str, wall_s: float | None) -> None:
        """Remove a run that has ended; `wall_s` is the wall time of a complete run, else None."""
        pace = self._pace.pop(run_id, None)
        if wall_s is not None:
            self._seconds_per_work.append(wall_s / (1.0 if pace is None else pace.work))

    def run_s(self, work: float) -> float | None:
        """Seconds of a run of this much work, from complete runs; None before there are any."""
        per_work = self._seconds_per_work
        return work * sum(per_work) / len(per_work) if per_work else None

    def left_s(self, work: float, workers: int) -> float | None:
        """Seconds until runs of this much work, including active ones, are trained; None before any epoch has ended."""
        paces = self._pace.values()
        per_work = self._seconds_per_work or [
            pace.seconds / pace.done * pace.epochs / pace.work for pace in paces if pace.done and pace.seconds
        ]
        if not per_work:
            return None
        under_way = sum(pace.work * pace.done / max(1, pace.epochs) for pace in paces)
        return max(0.0, work - under_way) * sum(per_work) / len(per_work) / workers


class _Pace(NamedTuple):
    """The pace of an active run."""

    epochs: int
    work: float
    """Of the whole run, relative to a run of the study's proxy."""
    done: int
    """Number of finished epochs."""
    seconds: float
    """Since the start of this attempt."""


@dataclass(slots=True)
class Remeasurement:
    """Remeasurement of stored runs' times, if those in the store are of another environment.

    Collects the measurements of workers, and stores those of a run when they are complete.
    """

    study: str
    store: Store
    environment: Environment
    tried: set[str] = field(default_factory=set)
    """Runs that this driver has remeasured, with or without success."""
    done: set[str] = field(default_factory=set)
    """Runs that were remeasured with success."""
    _under_way: dict[str, list[Record]] = field(default_factory=dict)

    def begin(self, row: RunRow) -> None:
        """Start to collect the records of a run."""
        self._under_way[row.id] = []

    def is_under_way(self, run_id: str) -> bool:
        """Whether a worker is remeasuring the run."""
        return run_id in self._under_way

    def add_records(self, run_id: str, records: list[Record]) -> bool:
        """Add records; returns whether they were the last. A run that cannot be measured gets no new times."""
        collected = self._under_way[run_id]
        collected += records
        ended = collected[-1]
        if not isinstance(ended, Ended):
            return False
        del self._under_way[run_id]
        self.tried.add(run_id)
        environment = next((record.environment for record in collected if isinstance(record, Started)), None)
        if ended.state == RunState.COMPLETE and environment is not None:
            self._keep(
                run_id, {record.name: record.value for record in collected if isinstance(record, Measured)}, environment
            )
        else:
            self.store.event(self.study, LEFT_OUT, f"{ended.state}: {ended.cause}", run_id=run_id)
        return True

    def _keep(self, run_id: str, metrics: dict[str, float], environment: Environment) -> None:
        row, before = self.store.run(run_id), self.store.metrics(run_id)
        if self.store.set_times(run_id, metrics, environment):
            self.done.add(run_id)
            old = ", ".join(f"{name} {value!r}" for name, value in before.items() if is_of_machine(name))
            was = describe_difference(row.timed, self.environment)
            self.store.event(self.study, MEASURED_AGAIN, f"before: {old} ({was})", run_id=run_id)


@dataclass(slots=True)
class StoredRuns:
    """The stored runs of a driven study, without times of another environment than that of its workers."""

    reuse: ReuseRule
    timing: Remeasurement
    objectives: Sequence[str]
    run_ids: set[str] = field(default_factory=set)
    """Runs that this driver has trained."""

    def ensure(self, run: Run) -> RunRow:
        """The run's row; a run that is not to be reused is reset first, so that it is trained again."""
        row = self.reuse.store.ensure_run(run)
        if self.reuse.is_mixture(row) or (row.state in SETTLED and self.reuse.decide(row) == "train"):
            self.reuse.reset_for_training([run.id], is_open=True)
            row = self.reuse.store.run(run.id)
        return row

    def is_to_time(self, row: RunRow) -> bool:
        """Whether a stored run's times must be measured again, because they are of another environment."""
        return row.state == RunState.COMPLETE and row.id not in self.timing.tried and self.reuse.decide(row) == "time"

    def recorded(self, run: Run) -> RunValues:
        """The recorded curve and metrics of a run."""
        return RunValues(run, self.reuse.store.epochs(run.id), self._metrics(run.id))

    @property
    def metric(self) -> str:
        """The first objective."""
        return self.objectives[0]

    def values(self, recorded: RunValues) -> tuple[float, ...] | None:
        """The objectives of a complete run; None if it lacks one."""
        values = [objective_value(metric, *recorded) for metric in self.objectives]
        known = tuple(value for value in values if value is not None)
        return known if len(known) == len(values) else None

    def lacking(self, recorded: RunValues) -> str:
        """The first objective that a complete run lacks."""
        return next(metric for metric in self.objectives if objective_value(metric, *recorded) is None)

    def facts(self, trial: OpenTrial) -> dict[str, Any]:
        """Devices, versions and wall time of a trial, and the metrics of its first run."""
        rows = list(self.reuse.store.runs(run.id for run in trial.all_runs).values())
        started = [row for row in rows if row.device is not None]
        return {
            "device": ", ".join(sorted({str(row.device) for row in started})),
            "versions": started[0].versions if started else {},
            "wall_s": round(sum(row.wall_s for row in rows), 1),
            **self._metrics(trial.first.id),
        }

    def _metrics(self, run_id: str) -> dict[str, float]:
        is_own = run_id in self.run_ids or run_id in self.timing.done
        return self.reuse.store.metrics(run_id) if is_own else self.reuse.current_metrics(run_id)
