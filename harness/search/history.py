"""The history of a study: finished configurations, the seeds of each, and the best configuration."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.analysis.run_status import TrialStatus, configuration_status, trial_status

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FURTHER_SEEDS = "further_seeds"
"""Attribute of trials that train known configurations with the seeds that were added to a study."""


def seeds_used(trials: Iterable["FrozenTrial"]) -> dict[str, int]:
    """Number of seeds of each configuration, by its fingerprint."""
    return {fingerprint: len(seeds) for fingerprint, seeds in seeds_taken(trials).items()}


def seeds_taken(trials: Iterable["FrozenTrial"]) -> dict[str, set[int]]:
    """Seeds of each configuration, by its fingerprint, from trials in their order.

    Seeds of failed trials don't count, nor those that were not trained because the configuration was pruned first.
    """
    taken: dict[str, set[int]] = {}
    for trial in trials:
        fingerprint = trial.user_attrs.get("fingerprint")
        if fingerprint is None or trial.state.name == "FAIL":
            continue
        seeds = taken.setdefault(fingerprint, set())
        if not seeds and trial.state.is_finished() and trial_status(trial).state == "pruned":
            continue
        seeds.update(trial.user_attrs["seeds"])
    return {fingerprint: seeds for fingerprint, seeds in taken.items() if seeds}


@dataclass(slots=True)
class ConfigurationHistory:
    """The results of one configuration's trials."""

    number: int
    """Number of its first finished trial."""
    trials: list[TrialStatus] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    """The objective by seed."""

    @property
    def status(self) -> TrialStatus:
        """Status of the configuration, from its finished trials."""
        return configuration_status(self.trials)


@dataclass(slots=True)
class StudyHistory:
    """History of a study: read from Optuna's trials when a driver starts, and then updated by the driver."""

    is_maximized: bool
    finished: set[str] = field(default_factory=set)
    """Fingerprints of configurations with a complete or pruned trial; a failed one may be tried again."""
    used_seeds: dict[str, set[int]] = field(default_factory=dict)
    """Seeds of each configuration, by its fingerprint; one that is proposed again gets the next seed."""
    trials: int = 0
    """Number of finished trials, without rejected proposals, and without trials of known configurations with seeds that
    were added to the study."""
    rejected: int = 0
    """Number of proposals that violated a rule or a budget."""
    runs_done: int = 0
    configurations: dict[str, ConfigurationHistory] = field(default_factory=dict)

    def read(self, trials: Iterable["FrozenTrial"]) -> None:
        """Read earlier trials; from open ones, only their seeds."""
        trials = list(trials)
        self.used_seeds = seeds_taken(trials)
        for trial in trials:
            if "fingerprint" not in trial.user_attrs:
                self.rejected += trial.state.is_finished()
            elif trial.state.is_finished():
                runs = len(trial.user_attrs["seeds"]) + ("screening" in trial.user_attrs)
                self.runs_done += runs if trial.state.name == "COMPLETE" else 1
                self._close(trial)

    @property
    def seeds_used(self) -> Mapping[str, int]:
        """Number of seeds of each configuration, by its fingerprint."""
        return {fingerprint: len(seeds) for fingerprint, seeds in self.used_seeds.items() if seeds}

    def is_new(self, fingerprint: str) -> bool:
        """Whether a configuration has neither seeds nor a pruned trial."""
        history = self.configurations.get(fingerprint)
        was_pruned = history is not None and any(status.state == "pruned" for status in history.trials)
        return not self.used_seeds.get(fingerprint) and not was_pruned

    def lacks_seeds(self, fingerprint: str, count: int) -> bool:
        """Whether a configuration has some seeds, but fewer than `count`."""
        return 0 < len(self.used_seeds.get(fingerprint, ())) < count

    def seeds_due(self, fingerprint: str, count: int) -> int:
        """Number of seeds that a configuration gets next: those missing to `count`, or one if it has them all."""
        return max(1, count - len(self.used_seeds.get(fingerprint, ())))

    def next_seeds(self, fingerprint: str, first: int, count: int) -> list[int]:
        """Reserve and return the next free seeds of a configuration, starting at `first`; see `seeds_due`."""
        due = self.seeds_due(fingerprint, count)
        taken = self.used_seeds.setdefault(fingerprint, set())
        free = (seed for seed in range(first, first + len(taken) + due) if seed not in taken)
        next_seeds = [seed for seed, _ in zip(free, range(due), strict=False)]
        taken.update(next_seeds)
        return next_seeds

    def end(self, trial: "FrozenTrial") -> TrialStatus:
        """Add a trial that has just ended; returns the new status of its configuration."""
        fingerprint = trial.user_attrs["fingerprint"]
        if "screening" in trial.user_attrs and trial_status(trial).state == "pruned":
            self.used_seeds[fingerprint] -= set(trial.user_attrs["seeds"])
        return self._close(trial)

    def _close(self, trial: "FrozenTrial") -> TrialStatus:
        fingerprint = trial.user_attrs["fingerprint"]
        self.trials += FURTHER_SEEDS not in trial.user_attrs
        if trial.state.name != "FAIL":
            self.finished.add(fingerprint)
        history = self.configurations.setdefault(fingerprint, ConfigurationHistory(trial.number))
        history.trials.append(trial_status(trial))
        history.values |= values_by_seed(trial)
        return history.status

    @property
    def best(self) -> tuple[float, int] | None:
        """Mean over the seeds and number of the first trial of the best configuration within the budgets."""
        complete = (
            history for history in self.configurations.values() if history.status.state == "complete" and history.values
        )
        means = ((statistics.fmean(history.values.values()), history.number) for history in complete)
        return (max if self.is_maximized else min)(means, key=lambda pair: pair[0], default=None)


def values_by_seed(trial: "FrozenTrial") -> dict[str, float]:
    """The objective by seed of a finished trial; a trial of an earlier version has values in the order of its seeds."""
    if trial.state.name != "COMPLETE":
        return {}
    if "values_by_seed" in trial.user_attrs:
        return dict(trial.user_attrs["values_by_seed"])
    values = trial.user_attrs.get("values", [trial.value])
    seeds = trial.user_attrs["seeds"] if len(trial.user_attrs["seeds"]) == len(values) else range(len(values))
    return {str(seed): value for seed, value in zip(seeds, values, strict=True)}
