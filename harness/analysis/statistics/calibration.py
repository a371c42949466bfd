"""Calibration on real runs: the rate of false verdicts, and the coverage of the intervals.

An A/A test has two arms with the same network. Given the images, both draw initial weights and an order of the images
independently from the same distribution, so that the arms of each pair are exchangeable: the sign of the difference is
random. Studies are sampled from the recorded pairs as subsets in random order with random signs, and tested as a plan
specifies.

This also holds if all seeds share a data set, which therefore cannot raise the rate of false verdicts. It affects the
coverage: the interval of a claim on one data set does not include the part of the effect that belongs to this set. With
m pairs of variance s^2 around an effect of the set, whose variance over sets is t^2, the t statistic around the effect
over all sets is sqrt(1 + m t^2 / s^2) times Student's, from which the true coverage follows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.statistics.sequential import Plan

LEVEL = 0.95
"""Confidence level of all intervals here."""


class ErrorRate(NamedTuple):
    """A share of studies, with its exact interval (Clopper & Pearson 1934), conditional on the recorded runs."""

    hits: int
    studies: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share, from 0 to 1."""
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
    """The share of studies, sampled from the differences of two equal arms, that reach a verdict on `> 0`.

    Raises `ValueError` for fewer differences than the plan may take.
    """
    if len(differences) < plan.most:
        raise ValueError(f"a plan of up to {plan.most} pairs needs as many differences, but got {len(differences)}")
    rng, recorded = np.random.default_rng(seed), np.array(differences)
    order = rng.random((studies, len(recorded))).argsort(axis=1)[:, : plan.most]
    values = recorded[order] * rng.choice([-1.0, 1.0], order.shape)
    verdicts, _ = simulate_verdicts(values, plan)
    return ErrorRate.of(int(np.count_nonzero(verdicts)), studies)


def simulate_verdicts(values: NDArray[np.float64], plan: Plan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sign of each study's verdict on `> 0`, 0 for none, and its number of pairs; values are (studies, pairs)."""
    verdicts, pairs = np.zeros(len(values)), np.full(len(values), float(plan.most))
    for n in plan.looks:
        mean, p = values[:, :n].mean(axis=1), _p(values[:, :n])
        is_decided_now = (p <= plan.level(n)) & (verdicts == 0)
        verdicts[is_decided_now], pairs[is_decided_now] = np.sign(mean[is_decided_now]), n
    return verdicts, pairs


def _p(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`Sample.p` against 0, a study per row."""
    from scipy.special import stdtr

    n = values.shape[1]
    mean, sd = values.mean(axis=1), values.std(axis=1, ddof=1)
    is_flat = sd < 1e-9
    t_p = 2 * stdtr(n - 1, -np.abs(mean) * math.sqrt(n) / np.where(is_flat, 1, sd))
    sign_p = np.where(mean == 0, 1.0, 2.0 ** (1 - n))
    p: NDArray[np.float64] = np.where(is_flat, sign_p, t_p)
    return p


class VarianceParts(NamedTuple):
    """The variance of an effect between data sets, and between the seeds of one (analysis of variance)."""

    sets: int
    seeds: int
    """Number of seeds of each data set."""
    effect: float
    between: float
    """Variance of the effects of data sets, without the part of the seeds; 0 if the seeds explain all of it."""
    within: float
    """Variance of the differences of one data set."""
    p: float
    """The p of the F test that all data sets have the same effect."""
    coverage: float
    """Coverage of a t interval on one data set, for the effect over all, at the estimated variances."""
    coverage_low: float
    """Lower end of its interval, from that of the F statistic."""
    coverage_high: float
    held: ErrorRate
    """Share of the data sets' own intervals that contain the mean effect of the others."""


def variance_parts(differences: Mapping[object, Sequence[float]]) -> VarianceParts:
    """The variances of an effect, from the paired differences of each data set; uses the same number of each.

    Raises `ValueError` for fewer than two data sets, or fewer than two seeds each.
    """
    from scipy.special import fdtrc, fdtri

    sets, seeds = len(differences), min(map(len, differences.values()), default=0)
    if sets < 2 or seeds < 2:
        raise ValueError(f"2 data sets with 2 seeds each are needed, but got {sets} with {seeds}")
    values = np.array([list(paired)[:seeds] for paired in differences.values()])
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
    """Coverage of the t interval of `seeds` values whose mean has `ratio` times the variance that they imply."""
    from scipy.special import stdtr, stdtrit

    if not math.isfinite(ratio):
        return 0.0
    half = float(stdtrit(seeds - 1, (1 + LEVEL) / 2))
    return 1 - 2 * float(stdtr(seeds - 1, -half / math.sqrt(ratio)))


def _interval_coverage(values: NDArray[np.float64]) -> ErrorRate:
    """Each set's t interval against the mean of the other sets; the error of that mean adds to the misses."""
    from scipy.special import stdtrit

    sets, seeds = values.shape
    means, sds = values.mean(axis=1), values.std(axis=1, ddof=1)
    means_of_others = (means.sum() - means) / (sets - 1)
    half = float(stdtrit(seeds - 1, (1 + LEVEL) / 2)) * sds / math.sqrt(seeds)
    return ErrorRate.of(int(np.count_nonzero(np.abs(means - means_of_others) <= half)), sets)
