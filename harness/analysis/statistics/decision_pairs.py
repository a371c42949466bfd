"""The number of pairs until a sequential plan decides, as a function of the standardized effect.

The standardized effect is the mean of the contrast over its standard deviation, which is that of pairs or, unpaired,
that of independent arms. Its estimate is median-unbiased: the noncentrality at which the observed t is the median; the
interval holds those at which it is neither in the upper nor in the lower 2.5 % (noncentral t, as in Steiger & Fouladi
1997). Both are for normal differences. With three pairs the mean over the spread itself would be too large by three
quarters on average.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from harness.analysis.statistics.power import MOST_PAIRS, decision_chances
from harness.analysis.statistics.sample import PAIRED, Sample, satterthwaite_degrees
from harness.analysis.statistics.sequential import Plan
from harness.config.expectation import Expectation

EITHER_SIGN = Expectation.parse("> 0")
"""It is decided by an effect above 0, and by one below."""
POWER = 0.8
"""The share of studies that a plan must decide; with it, fewer than one in 5,000 is decided with the wrong sign."""
GROWTH = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.5, 16.0, 20.0, 25.0, 33.0, 50.0, 100.0)
"""The last looks that are tried, as multiples of the study's own."""
LEVEL = 0.05
SHARE_DIGITS = 2
"""Digits to which shares of a variance are distinguished."""
MOST_EFFECT = 50.0
"""Larger standardized effects are not distinguished."""


class Range(NamedTuple):
    """An estimate with its 95 % interval; numbers may be infinite."""

    value: float
    low: float
    high: float


def effect_size(pairs: Sample, bound: float) -> Range | None:
    """The size of a standardized effect, whatever its sign; None without a spread, as for a single pair."""
    if pairs.sd == 0:
        return None
    root = math.sqrt(pairs.n)
    t = min(abs(pairs.mean - bound) / pairs.sd, MOST_EFFECT) * root
    degrees = float(satterthwaite_degrees(np.array(pairs.shares), pairs.n))
    middle, low, high = (_noncentrality(t, degrees, share) for share in (0.5, 1 - LEVEL / 2, LEVEL / 2))
    sizes = sorted((abs(low), abs(high)))
    smallest = 0.0 if low <= 0 <= high else sizes[0]
    return Range(abs(middle) / root, smallest / root, sizes[1] / root)


def pairs_to_decision(size: Range, plan: Plan, shares: tuple[float, ...] = PAIRED) -> Range:
    """The expected pairs until a decision, for an effect size and for the ends of its interval.

    `shares` are those of the independent arms in the variance of the contrast, taken as they are.
    """
    return Range(*(expected_pairs(each, plan, shares) for each in (size.value, size.high, size.low)))


def expected_pairs(size: float, plan: Plan, shares: tuple[float, ...] = PAIRED) -> float:
    """The mean number of pairs until a plan ends, infinite if no plan of up to `MOST_PAIRS` pairs has the power.

    `plan` is the study's own; if its power is less than 80 %, the shortest one is used that has it, with the same first
    look and the last one later.
    """
    rounded = [round(share, SHARE_DIGITS) for share in shares]
    total = sum(rounded)
    return _expected_pairs(float(f"{min(size, MOST_EFFECT):.3g}"), plan, tuple(share / total for share in rounded))


@lru_cache(maxsize=4096)
def _expected_pairs(size: float, plan: Plan, shares: tuple[float, ...]) -> float:
    lasts = sorted({last for factor in GROWTH if (last := round(plan.most * factor)) <= MOST_PAIRS} | {plan.most})
    low, high, found = 0, len(lasts), None
    while low < high:
        middle = (low + high) // 2
        tried = decision_chances(Plan(plan.first, lasts[middle], plan.alpha), EITHER_SIGN, size, 1.0, shares=shares)
        if tried.chance >= POWER:
            high, found = middle, tried
        else:
            low = middle + 1
    return math.inf if found is None else found.expected_pairs()


def _noncentrality(t: float, degrees: float, share: float) -> float:
    """The noncentrality at which this share of values of t is below `t`."""
    from scipy.special import nctdtr

    low, high = -10.0 - abs(t), 10.0 + 4 * abs(t) + t * t
    for _ in range(80):
        middle = (low + high) / 2
        below = float(nctdtr(degrees, middle, t))
        low, high = (middle, high) if below > share else (low, middle)
    return (low + high) / 2
