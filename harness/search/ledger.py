"""What a study has done so far: which configurations are settled, how many seeds each has had, and the best of them."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FURTHER = "further_seeds"
"""Attribute of the trials that give known configurations the seeds by which a study has grown."""


def seeds_used(trials: Iterable["FrozenTrial"]) -> dict[str, int]:
    """Seeds given to each configuration, by its fingerprint; those of failed trials don't count."""
    used: dict[str, int] = {}
    for trial in trials:
        fingerprint = trial.user_attrs.get("fingerprint")
        if fingerprint is not None and trial.state.name != "FAIL":
            used[fingerprint] = used.get(fingerprint, 0) + len(trial.user_attrs["seeds"])
    return used


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
    values: dict[str, tuple[int, list[float]]] = field(default_factory=dict)
    """By configuration within the budgets: the number of its first complete trial, and its value for each seed."""

    def read(self, trials: Iterable["FrozenTrial"]) -> None:
        """Take up what earlier trials did; of those still open only the seeds that they hold."""
        trials = list(trials)
        self.seeds_used = seeds_used(trials)
        for trial in trials:
            fingerprint = trial.user_attrs.get("fingerprint")
            if fingerprint is None:
                self.rejected += trial.state.is_finished()
                continue
            seeds = trial.user_attrs["seeds"]
            if not trial.state.is_finished():
                continue
            self.runs_done += len(seeds) if trial.state.name == "COMPLETE" else 1
            self.close(fingerprint, has_failed=trial.state.name == "FAIL", is_further=FURTHER in trial.user_attrs)
            if trial.state.name == "COMPLETE" and trial.value is not None:
                is_feasible = all(v <= 0 for v in trial.constraints.values())
                self.note(
                    fingerprint, trial.user_attrs.get("values", [trial.value]), trial.number, is_feasible=is_feasible
                )

    def lacks_seeds(self, fingerprint: str, count: int) -> bool:
        """Whether a configuration has had some seeds, but not the first `count`."""
        return 0 < self.seeds_used.get(fingerprint, 0) < count

    def due(self, fingerprint: str, count: int) -> range:
        """Seed positions for a configuration: what it lacks of the first `count`, or one more where it has them."""
        used = self.seeds_used.get(fingerprint, 0)
        return range(used, max(count, used + 1))

    def next_seeds(self, fingerprint: str, count: int) -> list[int]:
        """Give a configuration its seeds: see `due`."""
        seeds = self.due(fingerprint, count)
        self.seeds_used[fingerprint] = seeds.stop
        return list(seeds)

    def close(self, fingerprint: str, *, has_failed: bool, is_further: bool = False) -> None:
        """Count a trial that has ended; one that gave a known configuration the seeds that the study grew by does not
        count among those that a sampler was granted."""
        self.trials += not is_further
        if not has_failed:
            self.settled.add(fingerprint)

    def note(self, fingerprint: str, values: list[float], number: int, *, is_feasible: bool) -> None:
        """Take in the values of a complete trial, a configuration's first or that of another seed."""
        if is_feasible:
            first, known = self.values.get(fingerprint, (number, []))
            self.values[fingerprint] = (first, [*known, *values])

    @property
    def best(self) -> tuple[float, int] | None:
        """Mean over the seeds, and number of the first trial, of the best configuration within the budgets."""
        means = ((statistics.fmean(values), number) for number, values in self.values.values())
        return (max if self.is_maximized else min)(means, key=lambda pair: pair[0], default=None)
