"""How often real runs come to a verdict that is false, and how often their intervals hold what they should.

An A/A test has two arms that are one network. Given the images, both have initial weights and an order of the images
drawn alike and independently, so that the arms of each pair may change places: the sign of its difference is a toss.
Studies are drawn from the recorded pairs as subsets in random order with random signs, and looked at as a plan says.

That holds for a data set that all seeds share as well, which therefore cannot raise the rate of false verdicts. What it
breaks is coverage: the interval of a claim made on one data set says nothing of the part of the effect that belongs to
this set. With m pairs of variance s^2 around an effect of the set, whose variance over sets is t^2, the t statistic
around the effect over all sets is sqrt(1 + m t^2 / s^2) times Student's, which gives the true coverage.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.statistics.sequential import Plan
from harness.analysis.statistics.simulate import simulate_verdicts

LEVEL = 0.95
"""Of all intervals here."""


class ErrorRate(NamedTuple):
    """A share of studies, with its exact interval (Clopper & Pearson 1934); the runs behind them are taken as given."""

    hits: int
    studies: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.hits / self.studies

    @classmethod
    def of(cls, hits: int, studies: int) -> "ErrorRate":
        """The share of `hits` among `studies`."""
        from scipy.special import betaincinv

        tail = (1 - LEVEL) / 2
        low = float(betaincinv(hits, studies - hits + 1, tail)) if hits else 0.0
        high = float(betaincinv(hits + 1, studies - hits, 1 - tail)) if hits < studies else 1.0
        return cls(hits, studies, low, high)


def false_verdicts(differences: Sequence[float], plan: Plan, *, studies: int, seed: int) -> ErrorRate:
    """The share of studies, drawn from the differences of two equal arms, that come to a verdict on `> 0`.

    Raises `ValueError` for fewer differences than the plan may take.
    """
    if len(differences) < plan.most:
        raise ValueError(f"a plan of up to {plan.most} pairs needs as many differences, but got {len(differences)}")
    rng, known = np.random.default_rng(seed), np.array(differences)
    order = rng.random((studies, len(known))).argsort(axis=1)[:, : plan.most]
    values = known[order] * rng.choice([-1.0, 1.0], order.shape)
    verdicts, _ = simulate_verdicts(values, plan)
    return ErrorRate.of(int(np.count_nonzero(verdicts)), studies)


class VarianceParts(NamedTuple):
    """An effect's variance between data sets, and that between the seeds of one (analysis of variance)."""

    sets: int
    seeds: int
    """Of each data set."""
    effect: float
    between: float
    """Variance of the effects of data sets, without what the seeds add; 0 where they explain all."""
    within: float
    """Variance of the differences of one data set."""
    p: float
    """Of the F test that data sets have one effect."""
    coverage: float
    """Of a t interval on one data set, for the effect over all, at the variances found."""
    coverage_low: float
    """Its interval, from that of the F statistic."""
    coverage_high: float
    held: ErrorRate
    """How many of the data sets' own intervals hold the mean effect of the others."""


def variance_parts(differences: Mapping[object, Sequence[float]]) -> VarianceParts:
    """The parts of an effect, from the paired differences of each data set; equally many for all, else the first ones.

    Raises `ValueError` for fewer than two data sets, or fewer than two seeds each.
    """
    from scipy.special import fdtrc, fdtri

    sets, seeds = len(differences), min(map(len, differences.values()), default=0)
    if sets < 2 or seeds < 2:
        raise ValueError(f"2 data sets with 2 seeds each are needed, but got {sets} with {seeds}")
    values = np.array([list(each)[:seeds] for each in differences.values()])
    means, within = values.mean(axis=1), float(values.var(axis=1, ddof=1).mean())
    of_means = seeds * float(means.var(ddof=1))
    ratio = of_means / within if within > 0 else math.inf
    df = sets - 1, sets * (seeds - 1)
    ends = [ratio / float(fdtri(*df, tail)) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    return VarianceParts(
        sets,
        seeds,
        effect=float(means.mean()),
        between=max(0.0, (of_means - within) / seeds),
        within=within,
        p=float(fdtrc(*df, ratio)) if math.isfinite(ratio) else 0.0,
        coverage=coverage(max(1.0, ratio), seeds),
        coverage_low=coverage(max(1.0, ends[0]), seeds),
        coverage_high=coverage(max(1.0, ends[1]), seeds),
        held=_interval_coverage(values),
    )


def coverage(ratio: float, seeds: int) -> float:
    """Of the t interval of `seeds` values, where their mean varies `ratio` times as much as their spread shows."""
    from scipy.special import stdtr, stdtrit

    if not math.isfinite(ratio):
        return 0.0
    half = float(stdtrit(seeds - 1, (1 + LEVEL) / 2))
    return 1 - 2 * float(stdtr(seeds - 1, -half / math.sqrt(ratio)))


def _interval_coverage(values: NDArray[np.float64]) -> ErrorRate:
    """Each set's t interval against the mean of the other sets, whose own error is thereby counted as a miss."""
    from scipy.special import stdtrit

    sets, seeds = values.shape
    means, sds = values.mean(axis=1), values.std(axis=1, ddof=1)
    others = (means.sum() - means) / (sets - 1)
    half = float(stdtrit(seeds - 1, (1 + LEVEL) / 2)) * sds / math.sqrt(seeds)
    return ErrorRate.of(int(np.count_nonzero(np.abs(means - others) <= half)), sets)
