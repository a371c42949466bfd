"""How well the objective after each epoch orders configurations as their final value does.

A configuration is compared with itself by another seed: one seed after some epochs, and the mean of its other seeds at
the end, averaged over the seeds. The noise of the early number is then not in the final one. After the last epoch, this
is the correlation that the full budget has with itself over other seeds: the ceiling of what any rung can reach. With
one seed, a configuration is compared within one run, whose noise is in both numbers.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.statistics.rank_correlation import RankCorrelation, difference_interval, rank_correlation
from harness.analysis.trust_observations import Population, TrainedConfiguration, TrainedStudy
from harness.config.study import CURVES, decision_epochs

Series = tuple[list[float], list[float]]


@dataclass(frozen=True, slots=True)
class RungCorrelation:
    """A rung's correlation with the full budget, and what it lacks to the ceiling."""

    correlation: RankCorrelation
    below_ceiling: float | None = None
    """The ceiling less this correlation; None with one seed, and for the full budget itself."""
    below_interval: tuple[float, float] | None = None
    """The interval of that difference, from the same configurations."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A number of epochs, compared with all of them."""

    epochs: int
    is_decision: bool
    """Whether the pruner decides after this number of epochs."""
    by_population: Mapping[Population, RungCorrelation]
    screening: RankCorrelation | None = None
    """Of the survivors, between the screening run, on which the pruner decided, and the mean of all seeds."""


@dataclass(frozen=True, slots=True)
class RungTable:
    """The rungs of a study."""

    rungs: tuple[Rung, ...]
    seeds: int
    """Number of seeds that a configuration is compared over; with one, a run is compared with itself."""
    reason: str | None = None
    """Why there are no rungs."""

    @property
    def full(self) -> Rung | None:
        """The full budget, whose correlation with itself is the ceiling; None with one seed."""
        return self.rungs[-1] if self.rungs and self.seeds > 1 else None


def rung_table(trained: TrainedStudy) -> RungTable:
    """The correlation of each epoch, and of each rung of the pruner, with the full budget."""
    study, seeds = trained.study, trained.seeds
    metric = study.curve_objective
    if metric not in CURVES:
        return RungTable((), len(seeds), f"{metric} is known at the end of a run alone, so there is no rung")
    lengths = {one.recipe.epochs for one in trained.configurations}
    if len(lengths) > 1:
        return RungTable((), len(seeds), "configurations have different numbers of epochs, so they share no rung")
    populations = trained.populations()
    decisions = decision_epochs(study.search.pruner, study.proxy.epochs)
    rungs = []
    for epochs in range(1, max(lengths, default=0) + 1):
        by_population = {name: _of_epoch(group, seeds, epochs) for name, group in populations.items()}
        is_decision = epochs in decisions
        screening = _of_screening(trained.finished, epochs) if is_decision else None
        rungs.append(Rung(epochs, is_decision, by_population, screening))
    return RungTable(tuple(rungs), len(seeds))


def _of_epoch(group: Sequence[TrainedConfiguration], seeds: Sequence[int], epochs: int) -> RungCorrelation:
    early = _across_seeds(group, seeds, epochs)
    correlation = rank_correlation(*early)
    full = max(len(curve) for one in group for curve in one.curves.values())
    if len(seeds) < 2 or epochs == full or correlation.tau is None:
        return RungCorrelation(correlation)
    late = _across_seeds(group, seeds, full)
    ceiling = rank_correlation(*late).tau
    if ceiling is None:
        return RungCorrelation(correlation)
    return RungCorrelation(correlation, ceiling - correlation.tau, difference_interval(late, early))


def _across_seeds(group: Sequence[TrainedConfiguration], seeds: Sequence[int], epochs: int) -> list[Series]:
    """For each seed, its value after some epochs, and the final mean of the other seeds; of one seed, its own."""
    pairs = []
    for seed in seeds:
        others = [other for other in seeds if other != seed] or [seed]
        early = [one.curves[seed][epochs - 1] for one in group]
        pairs.append((early, [statistics.fmean(one.values[other] for other in others) for one in group]))
    return pairs


def _of_screening(finished: Sequence[TrainedConfiguration], epochs: int) -> RankCorrelation | None:
    """Of the configurations that passed; those that were stopped have no final value."""
    passed = [one for one in finished if len(one.screening) >= epochs]
    if not passed:
        return None
    return rank_correlation(([one.screening[epochs - 1] for one in passed], [one.mean for one in passed]))
