"""The number of seeds that would decide a claim, if effect and spread are as observed."""

import math
from collections.abc import Callable

from harness.analysis.statistics.estimates import Estimate
from harness.config.expectation import Expectation, ExpectationKind

Power = Callable[[int], float]


def seeds_to_decide(
    estimate: Estimate, expectation: Expectation, alpha: float, power: float = 0.8, most: int = 1000
) -> int | None:
    """The fewest pairs with which one two-sided paired t test at `alpha` decides with this power; None beyond `most`.

    Also None if the values have no spread, since it is then unknown; an exact effect needs no more pairs.
    """
    if estimate.is_exact:
        return estimate.n
    if estimate.sd == 0:
        return None
    pairs = [_min_pairs(chance, power, most) for chance in _decision_chances(estimate, expectation, alpha)]
    return min((n for n in pairs if n is not None), default=None)


def _decision_chances(estimate: Estimate, expectation: Expectation, alpha: float) -> list[Power]:
    """The power as a function of n, for each verdict that the claim can reach."""
    bound, off = expectation.bound, abs(estimate.effect - expectation.bound)

    def outside(distance: float) -> Power:
        return lambda n: _power_of_t(n, distance / estimate.sd, alpha)

    def inside(reach: float, distance: float) -> Power:
        """A lower bound on the power of two one-sided tests: the probability that neither fails."""
        near, far = (outside(reach - distance), outside(reach + distance))
        return lambda n: near(n) + far(n) - 1

    if expectation.kind == ExpectationKind.WITHIN:
        size = abs(estimate.effect)
        return [outside(size - bound) if size > bound else inside(bound, size)]
    is_small = estimate.ignore is not None and off < estimate.ignore
    return [outside(off), *([inside(estimate.ignore or 0.0, off)] if is_small else [])]


def _power_of_t(n: int, effect_size: float, alpha: float) -> float:
    """The probability that a t test at the two-sided level `alpha` detects an effect with the correct sign."""
    from scipy.special import nctdtr, stdtrit

    critical = float(-stdtrit(n - 1, alpha / 2))
    return 1 - float(nctdtr(n - 1, effect_size * math.sqrt(n), critical))


def _min_pairs(chance: Power, power: float, most: int) -> int | None:
    """The smallest n of 2 to `most` with this power, which grows with n."""
    low, high = 1, 2
    while high < most and chance(high) < power:
        low, high = high, min(2 * high, most)
    if high > most or chance(high) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= power else (middle, high)
    return high
