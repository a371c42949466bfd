"""The history of a study: finished configurations, and the seeds of each."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.analysis.run_status import TrialStatus, configuration_status, trial_status
from harness.search.wilcoxon import JUDGED

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FURTHER_SEEDS = "further_seeds"
"""Attribute of trials that train known configurations with the seeds that were added to a study."""


def seeds_taken(trials: Iterable["FrozenTrial"], hidden: Container[int] = ()) -> dict[str, set[int]]:
    """Seeds of each configuration, by its fingerprint, from trials in their order.

    Seeds of failed trials don't count, nor those that were not trained because the configuration was pruned first,
    unless the trial's number is in `hidden`.
    """
    taken: dict[str, set[int]] = {}
    for trial in trials:
        fingerprint = trial.user_attrs.get("fingerprint")
        if fingerprint is None or trial.state.name == "FAIL":
            continue
        seeds = taken.setdefault(fingerprint, set())
        is_pruned = trial.state.is_finished() and trial_status(trial).state == "pruned"
        if not seeds and is_pruned and trial.number not in hidden:
            continue
        seeds.update(trial.user_attrs["seeds"])
    return {fingerprint: seeds for fingerprint, seeds in taken.items() if seeds}


@dataclass(slots=True)
class StudyHistory:
    """History of a study: read from Optuna's trials when a driver starts, and then updated by the driver."""

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
    configurations: dict[str, list[TrialStatus]] = field(default_factory=dict)
    """The finished trials of each configuration, by its fingerprint."""
    is_deferred: bool = False
    """Whether pruned trials give their seeds back when `give_back_until` is called, and not when they end."""
    _to_give_back: dict[int, tuple[str, set[int]]] = field(default_factory=dict)
    """Configuration and seeds of pruned trials, by their numbers."""

    def read(self, trials: Iterable["FrozenTrial"], hidden: Container[int] = ()) -> None:
        """Read earlier trials; from open ones, only their seeds. Pruned ones in `hidden` have theirs until later."""
        trials = list(trials)
        self.used_seeds = seeds_taken(trials, hidden)
        self._to_give_back = {
            trial.number: (trial.user_attrs["fingerprint"], set(trial.user_attrs["seeds"]))
            for trial in trials
            if trial.number in hidden and trial.state.is_finished() and trial_status(trial).state == "pruned"
        }
        for trial in trials:
            if "fingerprint" not in trial.user_attrs:
                self.rejected += trial.state.name == "PRUNED"
            elif trial.state.is_finished():
                runs = len(trial.user_attrs["seeds"]) + ("screening" in trial.user_attrs)
                given_up = max(1, len(trial.user_attrs.get("values", ())))
                self.runs_done += runs if trial.state.name == "COMPLETE" else given_up
                self._close(trial)

    @property
    def seeds_used(self) -> Mapping[str, int]:
        """Number of seeds of each configuration, by its fingerprint."""
        return {fingerprint: len(seeds) for fingerprint, seeds in self.used_seeds.items() if seeds}

    def is_new(self, fingerprint: str) -> bool:
        """Whether a configuration has neither seeds nor a pruned trial."""
        was_pruned = any(trial.state == "pruned" for trial in self.configurations.get(fingerprint, ()))
        return not self.used_seeds.get(fingerprint) and not was_pruned

    def lacks_seeds(self, fingerprint: str, count: int) -> bool:
        """Whether a configuration has some seeds, but fewer than `count`."""
        return 0 < len(self.used_seeds.get(fingerprint, ())) < count

    def seeds_due(self, fingerprint: str, count: int) -> int:
        """Number of seeds that a configuration gets next: those missing to `count`, or one if it has them all."""
        return max(1, count - len(self.used_seeds.get(fingerprint, ())))

    def free_seeds(self, fingerprint: str, first: int, count: int) -> list[int]:
        """The next free seeds of a configuration, starting at `first`; see `seeds_due`."""
        due = self.seeds_due(fingerprint, count)
        taken = self.used_seeds.get(fingerprint, set())
        free = (seed for seed in range(first, first + len(taken) + due) if seed not in taken)
        return [seed for seed, _ in zip(free, range(due), strict=False)]

    def next_seeds(self, fingerprint: str, first: int, count: int) -> list[int]:
        """Reserve and return the next free seeds of a configuration; see `free_seeds`."""
        next_seeds = self.free_seeds(fingerprint, first, count)
        self.used_seeds.setdefault(fingerprint, set()).update(next_seeds)
        return next_seeds

    def give_back_seeds(self, fingerprint: str, seeds: Iterable[int]) -> None:
        """Free reserved seeds that were not trained."""
        self.used_seeds.get(fingerprint, set()).difference_update(seeds)

    def end(self, trial: "FrozenTrial") -> TrialStatus:
        """Add a trial that has just ended; returns the new status of its configuration."""
        fingerprint = trial.user_attrs["fingerprint"]
        if {"screening", JUDGED} & trial.user_attrs.keys() and trial_status(trial).state == "pruned":
            self._to_give_back[trial.number] = fingerprint, set(trial.user_attrs["seeds"])
            if not self.is_deferred:
                self.give_back_until(trial.number)
        return self._close(trial)

    def give_back_until(self, number: int) -> None:
        """Free the seeds of pruned trials up to this number."""
        for each in [each for each in sorted(self._to_give_back) if each <= number]:
            fingerprint, seeds = self._to_give_back.pop(each)
            self.used_seeds[fingerprint] -= seeds

    def _close(self, trial: "FrozenTrial") -> TrialStatus:
        fingerprint = trial.user_attrs["fingerprint"]
        self.trials += FURTHER_SEEDS not in trial.user_attrs
        if trial.state.name != "FAIL":
            self.finished.add(fingerprint)
        self.configurations.setdefault(fingerprint, []).append(trial_status(trial))
        return configuration_status(self.configurations[fingerprint])
