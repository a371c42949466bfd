"""The pruner `wilcoxon`: gives up the further seeds of a configuration that is worse than the best one, seed by seed.

Each finished seed of a configuration is compared with the same seed of the best complete configuration. Optuna's
`WilcoxonPruner` decides, with the seed as the step: a one-sided signed-rank test of the differences. Seeds are paired,
so the noise that two configurations share (images, order) does not count. There is no screening run: the seeds that
are compared are those of the mean.

Optuna's own trials are not compared, because a configuration may have several, and their curves have epochs as steps.
Optuna is imported inside the functions.
"""

import statistics
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.analysis.run_status import configuration_status, trial_status
from harness.config.search_methods import WILCOXON_P, WILCOXON_SEEDS

if TYPE_CHECKING:
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

JUDGED = "judged_by_seeds"
"""Attribute of trials whose seeds are compared: the first trial of each configuration."""


@dataclass(slots=True)
class _SeedValues:
    """The trials of a configuration and its values by seed."""

    trials: list["FrozenTrial"] = field(default_factory=list)
    by_seed: dict[int, float] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether it has values and neither diverged, nor is over a budget, nor was given up."""
        status = configuration_status([trial_status(trial) for trial in self.trials])
        return status.state == "complete" and bool(self.by_seed)


@dataclass(slots=True)
class SeedPruner:
    """Decides whether the further seeds of a configuration are worth training."""

    direction: str
    """`maximize` or `minimize`."""
    _configurations: dict[str, _SeedValues] = field(default_factory=dict)
    """By fingerprint."""

    def add(self, trials: Iterable["FrozenTrial"]) -> None:
        """Add finished trials."""
        for trial in trials:
            if trial.state.is_finished() and "fingerprint" in trial.user_attrs:
                configuration = self._configurations.setdefault(trial.user_attrs["fingerprint"], _SeedValues())
                configuration.trials.append(trial)
                values = trial.user_attrs.get("values_by_seed", {})
                configuration.by_seed |= {int(seed): value for seed, value in values.items()}

    def reason_to_give_up(self, values: Mapping[int, float]) -> str | None:
        """The reason to give up a configuration with these values by seed; None to go through with its seeds."""
        best = self._best()
        if best is None:
            return None
        shared = sorted(values.keys() & best.by_seed.keys())
        if len(shared) < WILCOXON_SEEDS or not _is_worse(values, best.by_seed, self.direction):
            return None
        p = _p_value([values[seed] - best.by_seed[seed] for seed in shared], self.direction)
        return (
            f"worse than trial {best.trials[0].number} on {len(shared)} shared seeds "
            f"(Wilcoxon signed-rank test, p = {p:.2g})"
        )

    def _best(self) -> _SeedValues | None:
        complete = [configuration for configuration in self._configurations.values() if configuration.is_complete]
        sign = 1 if self.direction == "maximize" else -1
        return max(
            complete, key=lambda configuration: sign * statistics.fmean(configuration.by_seed.values()), default=None
        )


class _Comparison(NamedTuple):
    """The part of a study that Optuna's pruner reads."""

    best_trial: "FrozenTrial"
    direction: "StudyDirection"


def _is_worse(values: Mapping[int, float], best: Mapping[int, float], direction: str) -> bool:
    """Optuna's decision about a trial with these values at the seeds as steps, where `best` is the best trial."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.pruners import WilcoxonPruner
    from optuna.study import StudyDirection
    from optuna.trial import TrialState, create_trial

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        pruner = WilcoxonPruner(p_threshold=WILCOXON_P, n_startup_steps=WILCOXON_SEEDS)
    best_trial = create_trial(value=statistics.fmean(best.values()), intermediate_values=dict(best))
    study: Any = _Comparison(best_trial, StudyDirection[direction.upper()])
    shared = {seed: value for seed, value in values.items() if seed in best}
    return pruner.prune(study, create_trial(state=TrialState.RUNNING, intermediate_values=shared))


def _p_value(differences: list[float], direction: str) -> float:
    """The p value of the test by which Optuna decides."""
    from scipy.stats import wilcoxon

    worse = "less" if direction == "maximize" else "greater"
    result: Any = wilcoxon(differences, alternative=worse, zero_method="zsplit")
    return float(result.pvalue)
