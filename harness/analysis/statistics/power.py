"""The chance that a plan decides a claim, by simulated pairs: before the first, or after those that are there.

Before the first pair, effect and spread are assumed. After some, they are drawn from what these pairs leave open
(`draw_predictive`): with three pairs a spread may be half or twice of what was seen, and a chance that ignored it would
promise too much. So the chance is predictive power, the mean of conditional power over these effects and spreads
(Spiegelhalter, Freedman & Blackburn 1986). Means of normal pairs are tested at the levels of the plan's looks, as the
claim will be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.statistics.sequential import Plan, look_levels
from harness.config.expectation import Expectation, ExpectationKind

Array = NDArray[np.floating[Any]]
Counts = NDArray[np.integer[Any]]

DRAWS = 4000
"""Simulated studies; the standard error of a chance is at most 0.8 %."""
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
    plan: Plan, expectation: Expectation, effect: float, sd: float, *, ignore: float | None = None
) -> DecisionChances:
    """The chances of a plan whose pairs are normal with this mean and standard deviation (above 0).

    All plans and effects have the same random numbers, so that a comparison of them is smooth.
    """
    means, sds = _standard_samples(max(plan.most, MOST_PAIRS))
    looks = np.array(plan.looks, dtype=int)
    return _chances(plan, expectation, looks, effect + sd * means[:, looks - 1], sd * sds[:, looks - 1], ignore)


def predicted_chances(
    plan: Plan, expectation: Expectation, values: Sequence[float], *, ignore: float | None = None
) -> DecisionChances:
    """The chances of the looks after these values, of which there are at least two that differ."""
    done = len(values)
    if done >= plan.most:
        return DecisionChances((), ())
    future = draw_predictive(values, plan.most - done)
    center = float(np.mean(values))  # sums of squares about it lose no digits
    known = np.asarray(values) - center
    looks = np.arange(max(done + 1, plan.looks[0]), plan.most + 1)
    sums = known.sum() + np.cumsum(future - center, 1)
    squares = (known**2).sum() + np.cumsum((future - center) ** 2, 1)
    means, sds = _means_and_sds(sums[:, looks - done - 1], squares[:, looks - done - 1], looks)
    return _chances(plan, expectation, looks, center + means, sds, ignore)


def draw_predictive(values: Sequence[float], count: int) -> Array:
    """Draw `count` further values for each of DRAWS simulated studies, given these; (DRAWS, count).

    Each study has a mean and a spread of its own, drawn as the values leave them open under a prior that is flat in the
    mean and the spread's logarithm (Student's distribution for one further value).
    """
    rng, n = np.random.default_rng(0), len(values)
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
) -> tuple[int, DecisionChances] | None:
    """The fewest pairs, up to `most`, with which a plan from `first` on has this power, and the chances of that plan.

    None if `most` pairs are not enough.
    """

    def chances_of(n: int) -> DecisionChances:
        return decision_chances(Plan(first, n, alpha), expectation, effect, sd, ignore=ignore)

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
    """The chances of the last looks of a plan, from the means and standard deviations (DRAWS, looks) at them."""
    if not looks.size:
        return DecisionChances((), ())
    halves = _critical_values(plan)[-looks.size :] / np.sqrt(looks) * sds
    decided = _is_decided(means - halves, means + halves, expectation, ignore)
    by_look = np.maximum.accumulate(decided, axis=1).mean(0)
    return DecisionChances(tuple(looks.tolist()), tuple(by_look.tolist()))


@lru_cache(maxsize=2)
def _standard_samples(most: int) -> tuple[Array, Array]:
    """Means and standard deviations (DRAWS, most) of the first 1, 2, ... of standard normal values.

    Samples of fewer values are the first of those of more. One value has a standard deviation of 0.
    """
    values = np.random.default_rng(0).standard_normal((most, DRAWS)).T
    return _means_and_sds(np.cumsum(values, 1), np.cumsum(values**2, 1), np.arange(1, most + 1))


def _means_and_sds(sums: Array, squares: Array, n: Counts) -> tuple[Array, Array]:
    """Means and standard deviations of n values each, from their sums and the sums of their squares."""
    means = sums / n
    return means, np.sqrt(np.maximum(squares - sums * means, 0) / np.maximum(n - 1, 1))


@lru_cache(maxsize=256)
def _critical_values(plan: Plan) -> Array:
    """The smallest |t| that decides at each look."""
    from scipy.special import stdtrit

    critical: Array = -stdtrit(np.array(plan.looks) - 1, look_levels(plan, np.array([plan.alpha]))[0] / 2)
    return critical


def _is_decided(low: Array, high: Array, expectation: Expectation, ignore: float | None) -> NDArray[np.bool_]:
    """Whether repeated intervals come to a verdict, as `estimates.repeated_evidence` does."""
    bound = expectation.bound
    if expectation.kind == ExpectationKind.WITHIN:
        return (low > bound) | (high < -bound) | ((low > -bound) & (high < bound))
    decided: NDArray[np.bool_] = (low > bound) | (high < bound)
    if ignore is not None:
        decided |= (low > bound - ignore) & (high < bound + ignore)
    return decided
