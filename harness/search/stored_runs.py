"""A driver's access to its runs in the store: their rows, their values, and the final facts of a trial."""

from dataclasses import dataclass, field
from typing import Any

from harness.analysis.limits import RunValues
from harness.analysis.objective import objective_value
from harness.analysis.reuse import SETTLED, ReuseRule
from harness.search.remeasure import Remeasurement
from harness.search.trial import OpenTrial
from harness.storage import RunRow
from harness.training.run import Run, RunState


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
