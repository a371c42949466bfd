"""The chance that a plan decides a claim, by simulated pairs: before the first, or after those that are there.

Before the first pair, effect and spread are assumed. After some, they are drawn from what these pairs leave open
(`draw_predictive`): with three pairs a spread may be half or twice of what was seen, and a chance that ignored it would
promise too much. So the chance is predictive power, the mean of conditional power over these effects and spreads
(Spiegelhalter, Freedman & Blackburn 1986). Means of normal pairs are tested at the levels of the plan's looks, as the
claim will be. Unpaired, each arm has a mean and a spread of its own, and the means of the arms are simulated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.statistics.sample import PAIRED, Values, degrees_of_test, terms_of
from harness.analysis.statistics.sequential import Plan, look_levels
from harness.config.expectation import Expectation, ExpectationKind

Array = NDArray[np.floating[Any]]
Counts = NDArray[np.integer[Any]]

DRAWS = 4000
"""Simulated studies; the standard error of a chance is at most 0.8 %."""
GRID = 97
"""Degrees of freedom for which critical values are computed; others are interpolated."""
MOST_PAIRS = 100
"""Pairs that a claim may need before it counts as not decidable."""


@dataclass(frozen=True, slots=True)
class DecisionChances:
    """The chance that a claim is decided, by the number of pairs."""

    pairs: tuple[int, ...]
    """Numbers of pairs at which the plan still looks, rising."""
    chances: tuple[float, ...]
    """The chance of a verdict at these numbers or before; rising."""

    @property
    def chance(self) -> float:
        """The chance of a verdict by the last look; 0 if there is none left."""
        return self.chances[-1] if self.chances else 0.0

    def expected_pairs(self, done: int = 0) -> float:
        """The mean number of pairs beyond `done` until the verdict, or the last look."""
        left, before, total = 1.0, done, 0.0
        for n, chance in zip(self.pairs, self.chances, strict=True):
            total += left * (n - before)
            left, before = 1 - chance, n
        return total


def decision_chances(
    plan: Plan,
    expectation: Expectation,
    effect: float,
    sd: float,
    *,
    ignore: float | None = None,
    shares: tuple[float, ...] = PAIRED,
) -> DecisionChances:
    """The chances of a plan whose contrasts are normal with this mean and standard deviation (above 0).

    `shares` are those of the independent terms in the variance; one for pairs. All plans and effects have the same
    random numbers, so that a comparison of them is smooth.
    """
    looks = np.array(plan.looks, dtype=int)
    standard = [_standard_samples(max(plan.most, MOST_PAIRS), term) for term in range(len(shares))]
    scales = [sd * math.sqrt(share) for share in shares]
    means = [scale * means[:, looks - 1] for scale, (means, _) in zip(scales, standard, strict=True)]
    sds = [scale * sds[:, looks - 1] for scale, (_, sds) in zip(scales, standard, strict=True)]
    return _chances(plan, expectation, looks, effect + np.sum(means, axis=0), np.array(sds), ignore)


def predicted_chances(
    plan: Plan, expectation: Expectation, values: Values, *, ignore: float | None = None
) -> DecisionChances:
    """The chances of the looks after these values, of which there are at least two that differ."""
    done = len(values)
    if done >= plan.most:
        return DecisionChances((), ())
    rng = np.random.default_rng(0)
    looks = np.arange(max(done + 1, plan.looks[0]), plan.most + 1)
    terms = [_predicted_samples(term, looks, rng) for term in zip(*map(terms_of, values), strict=True)]
    means = np.sum([means for means, _ in terms], axis=0)
    return _chances(plan, expectation, looks, means, np.array([sds for _, sds in terms]), ignore)


def _predicted_samples(values: Sequence[float], looks: Counts, rng: np.random.Generator) -> tuple[Array, Array]:
    """Means and standard deviations (DRAWS, looks) of one term's values so far and of drawn ones."""
    done = len(values)
    future = draw_predictive(values, int(looks[-1]) - done, rng)
    center = float(np.mean(values))  # sums of squares about it lose no digits
    known = np.asarray(values) - center
    sums = known.sum() + np.cumsum(future - center, 1)
    squares = (known**2).sum() + np.cumsum((future - center) ** 2, 1)
    means, sds = _means_and_sds(sums[:, looks - done - 1], squares[:, looks - done - 1], looks)
    return center + means, sds


def draw_predictive(values: Sequence[float], count: int, rng: np.random.Generator | None = None) -> Array:
    """Draw `count` further values for each of DRAWS simulated studies, given these; (DRAWS, count).

    Each study has a mean and a spread of its own, drawn as the values leave them open under a prior that is flat in the
    mean and the spread's logarithm (Student's distribution for one further value).
    """
    rng, n = rng or np.random.default_rng(0), len(values)
    spread = float(np.std(values, ddof=1)) * np.sqrt((n - 1) / rng.chisquare(n - 1, DRAWS))
    mean = float(np.mean(values)) + spread / np.sqrt(n) * rng.standard_normal(DRAWS)
    drawn: Array = mean[:, None] + spread[:, None] * rng.standard_normal((DRAWS, count))
    return drawn


def pairs_for_power(
    first: int,
    expectation: Expectation,
    effect: float,
    sd: float,
    *,
    alpha: float,
    power: float,
    most: int,
    ignore: float | None = None,
    shares: tuple[float, ...] = PAIRED,
) -> tuple[int, DecisionChances] | None:
    """The fewest pairs, up to `most`, with which a plan from `first` on has this power, and the chances of that plan.

    None if `most` pairs are not enough.
    """

    def chances_of(n: int) -> DecisionChances:
        return decision_chances(Plan(first, n, alpha), expectation, effect, sd, ignore=ignore, shares=shares)

    low, high = first - 1, first
    while (found := chances_of(high)).chance < power:
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        tried = chances_of(middle)
        if tried.chance >= power:
            high, found = middle, tried
        else:
            low = middle
    return high, found


def _chances(
    plan: Plan, expectation: Expectation, looks: Counts, means: Array, sds: Array, ignore: float | None
) -> DecisionChances:
    """The chances of the last looks of a plan, from the contrast's means (DRAWS, looks) and the terms' spreads at them.

    `sds` are the standard deviations of the independent terms, (terms, DRAWS, looks).
    """
    if not looks.size:
        return DecisionChances((), ())
    halves = _critical_values(plan, looks, sds) / np.sqrt(looks) * np.hypot.reduce(sds)
    decided = _is_decided(means - halves, means + halves, expectation, ignore)
    by_look = np.maximum.accumulate(decided, axis=1).mean(0)
    return DecisionChances(tuple(looks.tolist()), tuple(by_look.tolist()))


@lru_cache(maxsize=8)
def _standard_samples(most: int, term: int) -> tuple[Array, Array]:
    """Means and standard deviations (DRAWS, most) of the first 1, 2, ... of standard normal values, by term.

    Samples of fewer values are the first of those of more. One value has a standard deviation of 0.
    """
    values = np.random.default_rng(term).standard_normal((most, DRAWS)).T
    return _means_and_sds(np.cumsum(values, 1), np.cumsum(values**2, 1), np.arange(1, most + 1))


def _means_and_sds(sums: Array, squares: Array, n: Counts) -> tuple[Array, Array]:
    """Means and standard deviations of n values each, from their sums and the sums of their squares."""
    means = sums / n
    return means, np.sqrt(np.maximum(squares - sums * means, 0) / np.maximum(n - 1, 1))


def _critical_values(plan: Plan, looks: Counts, sds: Array) -> Array:
    """The smallest |t| that decides at the last looks of a plan: (looks,) for pairs, else (DRAWS, looks)."""
    if len(sds) == 1:
        return _paired_critical_values(plan)[-looks.size :]
    degrees = degrees_of_test(sds**2, looks)
    levels = _levels(plan)[-looks.size :]
    columns = zip(looks.tolist(), levels.tolist(), degrees.T, strict=True)
    return np.array([_critical_value(n - 1, len(sds), level, column) for n, level, column in columns]).T


def _critical_value(least: int, terms: int, level: float, degrees: Array) -> Array:
    """Critical values of t for degrees of freedom from `least` to `terms` times that, interpolated (error 1e-4)."""
    from scipy.special import stdtrit

    inverse = np.linspace(1 / terms, 1, GRID)
    logarithms = np.log(-stdtrit(least / inverse, level / 2))
    critical: Array = np.exp(np.interp(least / degrees, inverse, logarithms))
    return critical


@lru_cache(maxsize=256)
def _paired_critical_values(plan: Plan) -> Array:
    from scipy.special import stdtrit

    critical: Array = -stdtrit(np.array(plan.looks) - 1, _levels(plan) / 2)
    return critical


@lru_cache(maxsize=256)
def _levels(plan: Plan) -> Array:
    levels: Array = look_levels(plan, np.array([plan.alpha]))[0]
    return levels


def _is_decided(low: Array, high: Array, expectation: Expectation, ignore: float | None) -> NDArray[np.bool_]:
    """Whether repeated intervals come to a verdict, as `estimates.repeated_evidence` does."""
    bound = expectation.bound
    if expectation.kind == ExpectationKind.WITHIN:
        return (low > bound) | (high < -bound) | ((low > -bound) & (high < bound))
    decided: NDArray[np.bool_] = (low > bound) | (high < bound)
    if ignore is not None:
        decided |= (low > bound - ignore) & (high < bound + ignore)
    return decided
