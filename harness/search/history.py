"""What a study has done so far: which configurations are settled, how many seeds each has had, and the best of them."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.analysis.run_status import TrialStatus, configuration_status, trial_status

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FURTHER_SEEDS = "further_seeds"
"""Attribute of the trials that give known configurations the seeds by which a study has grown."""


def seeds_used(trials: Iterable["FrozenTrial"]) -> dict[str, int]:
    """Number of seeds given to each configuration, by its fingerprint."""
    return {fingerprint: len(seeds) for fingerprint, seeds in seeds_taken(trials).items()}


def seeds_taken(trials: Iterable["FrozenTrial"]) -> dict[str, set[int]]:
    """Seeds given to each configuration, by its fingerprint, from trials in their order.

    Those of failed trials don't count, nor those that a configuration did not get because it was pruned before.
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
    """What the trials of one configuration gave."""

    number: int
    """Of its first trial that has ended."""
    trials: list[TrialStatus] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    """The objective by seed."""

    @property
    def status(self) -> TrialStatus:
        """How it stands by the trials that have ended."""
        return configuration_status(self.trials)


@dataclass(slots=True)
class StudyHistory:
    """Read once from Optuna's trials when a driver starts, and kept by it from then on."""

    is_maximized: bool
    finished: set[str] = field(default_factory=set)
    """Fingerprints of the configurations whose trial is complete or pruned; a failed one may be tried again."""
    used_seeds: dict[str, set[int]] = field(default_factory=dict)
    """Seeds given to each configuration; one that is proposed again gets the next."""
    trials: int = 0
    """Trials that have ended. Not counted: proposals against the rules or over budget, and trials that gave a known
    configuration the seeds by which the study has grown."""
    rejected: int = 0
    """Proposals against the rules or over budget."""
    runs_done: int = 0
    configurations: dict[str, ConfigurationHistory] = field(default_factory=dict)

    def read(self, trials: Iterable["FrozenTrial"]) -> None:
        """Take up what earlier trials did; of those still open only the seeds that they hold."""
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
        """Number of seeds given to each configuration."""
        return {fingerprint: len(seeds) for fingerprint, seeds in self.used_seeds.items() if seeds}

    def is_new(self, fingerprint: str) -> bool:
        """Whether a configuration was neither given seeds nor pruned before."""
        known = self.configurations.get(fingerprint)
        was_pruned = known is not None and any(status.state == "pruned" for status in known.trials)
        return not self.used_seeds.get(fingerprint) and not was_pruned

    def lacks_seeds(self, fingerprint: str, count: int) -> bool:
        """Whether a configuration has had some seeds, but not as many as `count`."""
        return 0 < len(self.used_seeds.get(fingerprint, ())) < count

    def seeds_due(self, fingerprint: str, count: int) -> int:
        """How many seeds a configuration is to get next: what it lacks of `count`, or one more where it has them."""
        return max(1, count - len(self.used_seeds.get(fingerprint, ())))

    def next_seeds(self, fingerprint: str, first: int, count: int) -> list[int]:
        """Give a configuration its next seeds, from `first` on; see `seeds_due` for their number."""
        wanted = self.seeds_due(fingerprint, count)
        taken = self.used_seeds.setdefault(fingerprint, set())
        free = (seed for seed in range(first, first + len(taken) + wanted) if seed not in taken)
        fresh = [seed for seed, _ in zip(free, range(wanted), strict=False)]
        taken.update(fresh)
        return fresh

    def end(self, trial: "FrozenTrial") -> TrialStatus:
        """Take in a trial that has just ended; returns how its configuration stands now."""
        fingerprint = trial.user_attrs["fingerprint"]
        if "screening" in trial.user_attrs and trial_status(trial).state == "pruned":
            self.used_seeds[fingerprint] -= set(trial.user_attrs["seeds"])
        return self._close(trial)

    def _close(self, trial: "FrozenTrial") -> TrialStatus:
        fingerprint = trial.user_attrs["fingerprint"]
        self.trials += FURTHER_SEEDS not in trial.user_attrs
        if trial.state.name != "FAIL":
            self.finished.add(fingerprint)
        known = self.configurations.setdefault(fingerprint, ConfigurationHistory(trial.number))
        known.trials.append(trial_status(trial))
        known.values |= values_by_seed(trial)
        return known.status

    @property
    def best(self) -> tuple[float, int] | None:
        """Mean over the seeds, and number of the first trial, of the best configuration within the budgets."""
        complete = (
            history for history in self.configurations.values() if history.status.state == "complete" and history.values
        )
        means = ((statistics.fmean(history.values.values()), history.number) for history in complete)
        return (max if self.is_maximized else min)(means, key=lambda pair: pair[0], default=None)


def values_by_seed(trial: "FrozenTrial") -> dict[str, float]:
    """The objective by seed of a trial that has ended; of one of an earlier version, by seeds in the order given."""
    if trial.state.name != "COMPLETE":
        return {}
    if "values_by_seed" in trial.user_attrs:
        return dict(trial.user_attrs["values_by_seed"])
    values = trial.user_attrs.get("values", [trial.value])
    seeds = trial.user_attrs["seeds"] if len(trial.user_attrs["seeds"]) == len(values) else range(len(values))
    return {str(seed): value for seed, value in zip(seeds, values, strict=True)}
