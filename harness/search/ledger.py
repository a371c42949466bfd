"""What a study has done so far: which configurations are settled, how many seeds each has had, and the best of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(slots=True)
class Ledger:
    """Read once from Optuna's trials when a driver starts, and kept by it from then on."""

    is_maximized: bool
    settled: set[str] = field(default_factory=set)
    """Fingerprints of the configurations whose trial is complete or pruned; a failed one may be tried again."""
    seeds_used: dict[str, int] = field(default_factory=dict)
    """Seeds given to each configuration; one that is proposed again gets the next."""
    trials: int = 0
    """Trials that have ended; proposals against the rules or over budget are not among them."""
    rejected: int = 0
    """Proposals against the rules or over budget."""
    runs_done: int = 0
    best: tuple[float, int] | None = None
    """Value and number of the best complete trial within the budgets."""

    def read(self, trials: Iterable["FrozenTrial"]) -> None:
        """Take up what earlier trials did; of those still open only the seeds that they hold."""
        for trial in trials:
            fingerprint = trial.user_attrs.get("fingerprint")
            if fingerprint is None:
                self.rejected += trial.state.is_finished()
                continue
            seeds = trial.user_attrs["seeds"]
            if trial.state.name != "FAIL":
                self.seeds_used[fingerprint] = self.seeds_used.get(fingerprint, 0) + len(seeds)
            if not trial.state.is_finished():
                continue
            self.runs_done += len(seeds) if trial.state.name == "COMPLETE" else 1
            self.close(fingerprint, has_failed=trial.state.name == "FAIL")
            if trial.state.name == "COMPLETE" and trial.value is not None:
                is_feasible = all(v <= 0 for v in trial.constraints.values())
                self.note(trial.value, trial.number, is_feasible=is_feasible)

    def next_seeds(self, fingerprint: str, count: int) -> list[int]:
        """Seed positions for a configuration: the first `count`, or one more where it has had some."""
        used = self.seeds_used.get(fingerprint, 0)
        fresh = list(range(count)) if used == 0 else [used]
        self.seeds_used[fingerprint] = used + len(fresh)
        return fresh

    def close(self, fingerprint: str, *, has_failed: bool) -> None:
        """Count a trial that has ended."""
        self.trials += 1
        if not has_failed:
            self.settled.add(fingerprint)

    def note(self, value: float, number: int, *, is_feasible: bool) -> None:
        """Remember a complete trial if it is the best."""
        is_better = self.best is None or (value > self.best[0] if self.is_maximized else value < self.best[0])
        if is_feasible and is_better:
            self.best = (value, number)
