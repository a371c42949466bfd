"""The plan of a study's looks at its claims, with the level of each look, so that all looks together err at most alpha.

A plan looks after `first` pairs, then after each further pair, up to `most`. By the look at n it has spent
alpha * (n / most)^2 of its error rate (Lan & DeMets 1983; of the power family, Jennison & Turnbull 1999, section 7.2).
A look's test is a paired t test at its nominal level, and the levels are such that what is spent is exact for normal
differences at every n (`repeated_t`).

Why the square, from simulated studies of the plan (3, 8): an effect of 1 standard deviation is found in 58 % of them,
after 7.0 pairs on average, and one of 2 in 99 %, after 5.3. Spending evenly finds 50 % (6.9 pairs) and 98 % (5.0); the
cube 62 % (7.1) and 99 % (5.5). O'Brien and Fleming's spending is close to the cube, but leaves almost nothing to an
early first look: for the plan (5, 20) 0.0001, where the square leaves 0.003, and an effect of 2 takes 8.0 pairs, not
6.8.

Why not the textbook levels, those of Brownian motion: with unknown spread, the t of neighboring looks are less
correlated. At those levels, the plan (3, 8) decides 6.0 % of null studies and the plan (2, 6) 6.1 %; at the levels
here, 5.0 % (200,000 studies each).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from harness.analysis.statistics.sample import Sample, Values

if TYPE_CHECKING:
    from harness.analysis.statistics.repeated_t import Array

EXPONENT = 2
"""Exponent of the spent error rate as a function of the pairs."""
SMALLEST_ALPHA = 1e-4
"""Below this alpha, repeated p are extrapolated in proportion."""
ALPHAS_PER_DECADE = 5
SMALLEST_P = 1e-300
"""Smallest p of a test on a sample; 0 is only for exact effects."""
LookP = Callable[[Sample, float], float]
"""Function of a look's sample and a bound: the smallest alpha at which the look rejects the bound."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Looks at `first`, `first` + 1, ... `most` pairs with an error rate of alpha over all of them.

    One value cannot be tested, so a plan with `first` = 1 looks at 2 pairs first. Raises `ValueError` for invalid
    numbers.
    """

    first: int
    most: int
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.most:
            raise ValueError(f"1 <= first <= most must hold, but got (first={self.first}, most={self.most})")
        if not SMALLEST_ALPHA < self.alpha <= 0.5:
            raise ValueError(f"alpha must be above {SMALLEST_ALPHA:g} and at most 0.5, but got {self.alpha}")

    @property
    def looks(self) -> range:
        """The numbers of pairs at which the claim is tested."""
        return range(max(2, self.first), self.most + 1)

    def level(self, n: int) -> float:
        """The two-sided level of the t test at n pairs."""
        alphas, levels = rising_levels(self)
        return levels[self.looks.index(n)][alphas.index(self.alpha)]

    def p_of(self, _: Values) -> LookP:
        """The function of a look's sample and a bound that returns the smallest alpha at which it rejects the bound."""
        return lambda look, bound: self.repeated_p(look.n, look.p(bound))

    def interval(self, _: Values, look: Sample) -> tuple[float, float] | None:
        """The bounds that a look does not reject at alpha; None if the values have no spread."""
        return look.interval(self.level(look.n))

    def repeated_p(self, n: int, p: float) -> float:
        """The smallest alpha at which a plan with these looks decides at n pairs, given that look's own two-sided p.

        It is at most alpha if and only if p is at most `level(n)`. The smallest of several looks is the p over all.
        """
        alphas, levels = rising_levels(self)
        return interpolated(p, levels[self.looks.index(n)], alphas)


def interpolated(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """y at x between rising points; linear in the logarithms, proportional below the first point."""
    if x <= xs[0]:
        return max(ys[0] * x / xs[0], SMALLEST_P) if xs[0] > 0 else SMALLEST_P
    above = next((i for i, point in enumerate(xs) if x <= point), None)
    if above is None:
        return ys[-1]
    low, high = max(ys[above - 1], SMALLEST_P), max(ys[above], SMALLEST_P)
    share = math.log(x / xs[above - 1]) / math.log(xs[above] / xs[above - 1])
    return min(high, math.exp((1 - share) * math.log(low) + share * math.log(high)))


@lru_cache(maxsize=64)
def rising_levels(plan: Plan) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """Rising alphas, which include the plan's own, and the nominal level of each look at each alpha."""
    import numpy as np

    decades = -math.log10(SMALLEST_ALPHA)
    grid = np.geomspace(SMALLEST_ALPHA, 1, round(decades * ALPHAS_PER_DECADE) + 1)
    other_alphas = grid[np.abs(np.log(grid / plan.alpha)) > 0.01]
    alphas = np.sort(np.append(other_alphas, plan.alpha))
    levels = look_levels(plan, alphas)
    return tuple(alphas.tolist()), tuple(tuple(look) for look in levels.T.tolist())


def look_levels(plan: Plan, alphas: "Array") -> "Array":
    """The nominal levels of a plan's looks at other error rates than its own; (A,) -> (A, looks)."""
    import numpy as np

    from harness.analysis.statistics.repeated_t import nominal_levels

    return nominal_levels(plan.looks[0], alphas[:, None] * (np.array(plan.looks) / plan.most) ** EXPONENT)
