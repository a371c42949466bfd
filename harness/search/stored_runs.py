"""A driver's access to its runs in the store: their rows, their values, their times, and the final facts of a trial."""

from dataclasses import dataclass, field
from typing import Any

from harness.analysis.limits import RunValues
from harness.analysis.objective import objective_value
from harness.analysis.reuse import ReuseRule
from harness.config.measures import is_of_machine
from harness.search.trial import OpenTrial
from harness.storage import RunRow, Store
from harness.storage.transitions import SETTLED
from harness.training.environment import Environment, describe_difference
from harness.training.run import Ended, Measured, Record, Run, RunState, Started

MEASURED_AGAIN, LEFT_OUT = "times measured again", "times left out"
"""Kinds of the stored events."""


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
    metric: str
    """The objective."""
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

    def value(self, recorded: RunValues) -> float | None:
        """The objective of a complete run."""
        return objective_value(self.metric, *recorded)

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
