"""The race of a study (`search.racing`): who gets another seed, and how its best configuration was chosen.

Both follow from stored values alone. A round is decided when nothing is in progress; each of its trials has the number
of the round (`RACE_ROUND`), so that a study that was interrupted in a round completes it, as decided from the same
values. `statistics.racing` has the computation.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.analysis.run_status import configuration_status, trial_status, trials_by_configuration
from harness.analysis.statistics.racing import RaceRates, RaceRule, fit_race, race_bounds, race_state, simulate_races
from harness.config.study import Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RACE_ROUND = "race_round"
"""Attribute of a trial that trains a further seed of a racing configuration: the number of the round, from 1 on."""
MOST_SIMULATED = 400
"""Number of simulated studies, fewer where they have many configurations."""
SIMULATED_CONFIGURATIONS = 100_000
"""Number of configurations in all simulated studies together, if there are at least `LEAST_SIMULATED` studies."""
LEAST_SIMULATED = 20


class SeedsDue(NamedTuple):
    """The configurations that get another seed now."""

    round: int
    configurations: tuple[str, ...]
    """Their fingerprints; empty at the end of the race."""


class RacedValues(NamedTuple):
    """The values of the configurations that take part in a race: those that are complete and within the budgets."""

    names: tuple[str, ...]
    """Their fingerprints."""
    table: npt.NDArray[np.float64]
    """By configuration and seed, NaN for a seed without a value; larger values are better."""
    tried: tuple[int, ...]
    """Number of seeds that were trained of each, with and without a value."""


@dataclass(frozen=True, slots=True)
class ConfigurationBound:
    """The estimate and the pessimistic bound of a configuration."""

    estimate: float
    """The estimated true value, as of the first seed."""
    bound: float
    """Its pessimistic bound: the larger the better for an objective that is maximized, else the smaller."""


@dataclass(frozen=True, slots=True)
class RaceResult:
    """How the best configuration of a study with racing was chosen."""

    rule: RaceRule
    seeds: int
    """Number of seeds that every configuration gets."""
    bounds: Mapping[str, ConfigurationBound]
    """By fingerprint; empty while the noise is not known."""
    best: str | None
    """Fingerprint of the configuration with the largest pessimistic bound; None without bounds."""
    rivals: tuple[str, ...]
    """Fingerprints of the configurations that are not ruled out, most promising first."""
    is_decided: bool
    """Whether no configuration would get a further seed."""
    runs: int
    """Number of runs with all seeds so far, without screening runs."""
    runs_of_all: int
    """Number of runs that `most` seeds of every configuration would take."""
    noise: float
    """Standard deviation of the noise of a value; NaN if it is not known."""
    spread: float
    """Standard deviation of the true values."""

    @property
    def has_bounds(self) -> bool:
        """Whether the best was chosen on its bound."""
        return self.best is not None

    def rates(self) -> RaceRates | None:
        """Rates in simulated studies like this one, within seconds at the first call. None without bounds."""
        if not self.has_bounds or len(self.bounds) < 2:
            return None
        spread, noise = (float(f"{value:.3g}") for value in (self.spread, self.noise))
        return _simulated(len(self.bounds), self.seeds, self.rule, spread, noise)


def seeds_due(study: Study, trials: Sequence["FrozenTrial"]) -> SeedsDue:
    """The configurations that get another seed, when all trials of the study's search have ended.

    A round that was begun is completed first, as decided from the trials before it, unless the search was continued.
    """
    rounds = {trial.number: int(trial.user_attrs[RACE_ROUND]) for trial in trials if RACE_ROUND in trial.user_attrs}
    last = max(rounds.values(), default=0)
    of_last = {number for number, of_round in rounds.items() if of_round == last}
    if of_last:
        start = min(of_last)
        after = [trial for trial in trials if trial.number >= start and "fingerprint" in trial.user_attrs]
        if all(trial.number in of_last for trial in after):
            begun = {trial.user_attrs["fingerprint"] for trial in after}
            due = _due(study, [trial for trial in trials if trial.number < start])
            left = tuple(name for name in due if name not in begun) if begun <= set(due) else ()
            if left:
                return SeedsDue(last, left)
    return SeedsDue(last + 1, _due(study, trials))


def _due(study: Study, trials: Sequence["FrozenTrial"]) -> tuple[str, ...]:
    assert study.search.racing is not None
    raced = raced_trials(study, trials)
    if len(raced.names) < 2:
        return ()
    state = race_state(raced.table, rule_of(study), raced.tried)
    return tuple(raced.names[i] for i in state.due)


def rule_of(study: Study) -> RaceRule:
    """The rule of the race of a study with `search.racing`."""
    racing = study.search.racing
    assert racing is not None, "a study with racing"
    return RaceRule(racing.most, racing.level)


def raced_trials(study: Study, trials: Sequence["FrozenTrial"]) -> RacedValues:
    """The values of the configurations of these trials."""
    values: dict[str, dict[int, float]] = {}
    tried = {}
    for name, group in trials_by_configuration(trials).items():
        by_seed: dict[int, float] = {}
        for trial in group:
            by_seed |= {int(seed): value for seed, value in trial.user_attrs.get("values_by_seed", {}).items()}
        if configuration_status([trial_status(trial) for trial in group]).state == "complete":
            values[name] = by_seed
            tried[name] = sum(len(trial.user_attrs["seeds"]) for trial in group)
    return raced_values(study, values, tried)


def raced_values(study: Study, values: Mapping[str, Mapping[int, float]], tried: Mapping[str, int]) -> RacedValues:
    """The values of these complete configurations as a table; those without a finite value take no part."""
    sign = 1.0 if next(iter(study.objectives.values())) == "maximize" else -1.0
    finite = {
        name: {seed: sign * value for seed, value in by_seed.items() if math.isfinite(value)}
        for name, by_seed in values.items()
    }
    names = tuple(name for name, by_seed in finite.items() if by_seed)
    counts: dict[int, int] = {}
    for name in names:
        for seed in finite[name]:
            counts[seed] = counts.get(seed, 0) + 1
    seeds = sorted(counts, key=lambda seed: (-counts[seed], seed))  # the reference is a seed that most of them have
    table = np.array([[finite[name].get(seed, np.nan) for seed in seeds] for name in names], dtype=np.float64)
    return RacedValues(names, table, tuple(tried[name] for name in names))


def race_result(
    study: Study, values: Mapping[str, Mapping[int, float]], tried: Mapping[str, int], macs: Mapping[str, int]
) -> RaceResult:
    """How the best of these complete configurations is chosen; of equal bounds, that with the fewest MACs is taken."""
    rule, search = rule_of(study), study.search
    raced = raced_values(study, values, tried)
    order = sorted(range(len(raced.names)), key=lambda i: macs[raced.names[i]])
    names, table = tuple(raced.names[i] for i in order), raced.table[order]
    runs = sum(len(by_seed) for by_seed in values.values())
    facts: dict[str, Any] = {
        "rule": rule,
        "seeds": search.seeds,
        "runs": runs,
        "runs_of_all": sum(max(rule.most, len(by_seed)) for by_seed in values.values()),
    }
    if not names:
        return RaceResult(bounds={}, best=None, rivals=(), is_decided=True, noise=math.nan, spread=0.0, **facts)
    state = race_state(table, rule, [raced.tried[i] for i in order])
    fit = fit_race(table)
    low = race_bounds(fit, rule.level).low
    sign = 1.0 if next(iter(study.objectives.values())) == "maximize" else -1.0
    has_bounds = float(fit.degrees) > 0
    bounds = {
        name: ConfigurationBound(sign * float(estimate), sign * float(bound))
        for name, estimate, bound in zip(names, fit.estimate, low, strict=True)
    }
    return RaceResult(
        bounds=bounds if has_bounds else {},
        best=names[int(np.argmax(low))] if has_bounds else None,
        rivals=tuple(names[i] for i in state.rivals) if has_bounds else (),
        is_decided=not state.due,
        noise=float(fit.noise),
        spread=float(fit.spread),
        **facts,
    )


@functools.lru_cache(maxsize=8)
def _simulated(configurations: int, seeds: int, rule: RaceRule, spread: float, noise: float) -> RaceRates:
    studies = min(MOST_SIMULATED, max(LEAST_SIMULATED, SIMULATED_CONFIGURATIONS // configurations))
    truth = spread * np.random.default_rng(1).standard_normal((studies, configurations))
    return simulate_races(truth, noise, rule, seeds=min(seeds, rule.most))
