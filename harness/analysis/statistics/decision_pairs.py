"""The number of pairs until a sequential plan decides, as a function of the standardized effect.

The standardized effect is the mean of the paired contrast over its standard deviation. Its estimate is median-unbiased:
the noncentrality at which the observed t is the median; the interval holds those at which it is neither in the upper
nor in the lower 2.5 % (noncentral t, as in Steiger & Fouladi 1997). Both are for normal differences. With three pairs
the mean over the spread itself would be too large by three quarters on average.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.statistics.repeated_t import nominal_levels
from harness.analysis.statistics.sequential import EXPONENT, Sample

POWER = 0.8
"""The share of studies that a plan must decide, with the correct sign."""
MOST_PAIRS = 100
"""Plans with more pairs are not considered: the effect counts as not decidable."""
GROWTH = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.5, 16.0, 20.0, 25.0, 33.0, 50.0, 100.0)
"""The last looks that are tried, as multiples of the study's own."""
STUDIES = 2000
"""Simulated studies per plan; the same random numbers for all effects and plans."""
LEVEL = 0.05
MOST_EFFECT = 50.0
"""Larger standardized effects are not distinguished."""


class Range(NamedTuple):
    """An estimate with its 95 % interval; numbers may be infinite."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Looks:
    """Looks at `first` to `most` pairs with an error rate of `alpha` over all of them, the claim's share of it."""

    first: int
    most: int
    alpha: float


def effect_size(pairs: Sample, bound: float) -> Range | None:
    """The size of a standardized effect, whatever its sign; None without a spread, as for a single pair."""
    if pairs.sd == 0:
        return None
    root = math.sqrt(pairs.n)
    t = min(abs(pairs.mean - bound) / pairs.sd, MOST_EFFECT) * root
    middle, low, high = (_noncentrality(t, pairs.n - 1, share) for share in (0.5, 1 - LEVEL / 2, LEVEL / 2))
    sizes = sorted((abs(low), abs(high)))
    smallest = 0.0 if low <= 0 <= high else sizes[0]
    return Range(abs(middle) / root, smallest / root, sizes[1] / root)


def pairs_to_decision(size: Range, looks: Looks) -> Range:
    """The expected pairs until a decision, for an effect size and for the ends of its interval."""
    return Range(*(expected_pairs(each, looks) for each in (size.value, size.high, size.low)))


def expected_pairs(size: float, looks: Looks) -> float:
    """The mean number of pairs until a plan ends, infinite if no plan of up to `MOST_PAIRS` pairs has the power.

    The plan is the study's own if its power is 80 %, otherwise the shortest one that has it: with the same first look,
    and the last one later.
    """
    return _expected_pairs(float(f"{min(size, MOST_EFFECT):.3g}"), looks)


@lru_cache(maxsize=4096)
def _expected_pairs(size: float, looks: Looks) -> float:
    lasts = sorted({last for factor in GROWTH if (last := round(looks.most * factor)) <= MOST_PAIRS} | {looks.most})
    low, high = 0, len(lasts)
    while low < high:
        middle = (low + high) // 2
        if _simulated(size, Looks(looks.first, lasts[middle], looks.alpha))[0] >= POWER:
            high = middle
        else:
            low = middle + 1
    return math.inf if low == len(lasts) else _simulated(size, Looks(looks.first, lasts[low], looks.alpha))[1]


@lru_cache(maxsize=4096)
def _simulated(size: float, looks: Looks) -> tuple[float, float]:
    """Share of simulated studies that are decided with the correct sign, and their mean number of pairs."""
    counts, critical = _critical_values(looks)
    x = _normal(looks.most) + size
    sums, squares = np.cumsum(x, axis=1)[:, counts - 1], np.cumsum(x * x, axis=1)[:, counts - 1]
    variance = np.maximum((squares - sums * sums / counts) / (counts - 1), 1e-300)
    t = sums / np.sqrt(counts * variance)
    crossed = np.abs(t) >= critical
    first = np.argmax(crossed, axis=1)
    is_decided = crossed.any(axis=1)
    is_correct = is_decided & (np.take_along_axis(t, first[:, None], axis=1)[:, 0] > 0)
    pairs = np.where(is_decided, counts[first], counts[-1])
    return float(is_correct.mean()), float(pairs.mean())


@lru_cache(maxsize=64)
def _critical_values(looks: Looks) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The numbers of pairs at which the plan looks, and the smallest |t| that decides at each."""
    from scipy.special import stdtrit

    counts = np.arange(max(2, looks.first), looks.most + 1)
    levels = nominal_levels(int(counts[0]), looks.alpha * (counts[None, :] / looks.most) ** EXPONENT)[0]
    critical: NDArray[np.float64] = -stdtrit(counts - 1, levels / 2)
    return counts, critical


@lru_cache(maxsize=8)
def _normal(most: int) -> NDArray[np.float64]:
    """Standard normal values (studies, pairs); those of fewer pairs are the first of more."""
    numbers: NDArray[np.float64] = np.random.default_rng(0).standard_normal((most, STUDIES)).T
    return numbers


def _noncentrality(t: float, degrees: int, share: float) -> float:
    """The noncentrality at which this share of values of t is below `t`."""
    from scipy.special import nctdtr

    low, high = -10.0 - abs(t), 10.0 + 4 * abs(t) + t * t
    for _ in range(80):
        middle = (low + high) / 2
        below = float(nctdtr(degrees, middle, t))
        low, high = (middle, high) if below > share else (low, middle)
    return (low + high) / 2
