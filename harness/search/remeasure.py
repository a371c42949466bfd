"""Remeasurement of stored runs' times, if those in the store are of another environment."""

from dataclasses import dataclass, field

from harness.config.metrics import is_of_machine
from harness.storage import RunRow, Store
from harness.training.environment import Environment, describe_difference
from harness.training.run import Ended, Measured, Record, RunState, Started

MEASURED_AGAIN, LEFT_OUT = "times measured again", "times left out"
"""Kinds of the stored events."""


@dataclass(slots=True)
class Remeasurement:
    """Collects the measurements of workers, and stores those of a run when they are complete."""

    study: str
    store: Store
    here: Environment
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
            was = describe_difference(row.timed, self.here)
            self.store.event(self.study, MEASURED_AGAIN, f"before: {old} ({was})", run_id=run_id)
