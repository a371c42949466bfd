"""Estimates from the values of a claim: effect, spread, intervals, p, evidence and verdict; and the seeds it needs.

The bootstrap and the sign flips use all values in a single look, with fixed random numbers; they are shown in addition
to the t test, and decide nothing. Unpaired, the bootstrap resamples each arm by itself. There is no permutation test
then: arms that differ in more than the effect, such as the four of an interaction, cannot be exchanged, and flipped
signs would pair them.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.analysis.statistics.sample import (
    PAIRED,
    Sample,
    Values,
    degrees_of_test,
    satterthwaite_degrees,
    terms_of,
)
from harness.analysis.statistics.sequential import LookP, Plan
from harness.analysis.statistics.stretched import ExtendedPlan
from harness.config.expectation import Expectation, ExpectationKind

Interval = tuple[float, float]
Power = Callable[[int], float]
MIN_VALUES = 4
"""Minimum number of values for the bootstrap, which has too few distinct samples below."""
RESAMPLES = 9999
Test = Callable[[Sample], float]
"""Function of a look's sample: the smallest alpha at which the look reaches a conclusion; 1 if it supports another."""


class Verdict(StrEnum):
    """The verdict on a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    EQUIVALENT = "equivalent"
    """No difference larger than the smallest effect of interest."""
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The smallest alpha, by verdict, at which a look so far would have reached it. It never rises with n."""

    supported: float = 1.0
    contradicted: float = 1.0
    equivalent: float = 1.0

    @property
    def p(self) -> float:
        """The smallest alpha at which the claim would have been decided, with any verdict."""
        return min(self.supported, self.contradicted, self.equivalent)


def repeated_evidence(looks: Sequence[Sample], expectation: Expectation, p: LookP, ignore: float | None) -> Evidence:
    """The evidence of the looks so far, each given as its sample; `p` is the plan's."""

    def strongest(test: Test) -> float:
        return min((test(look) for look in looks), default=1.0)

    def rises_above(bound: float) -> Test:
        return lambda look: p(look, bound) if look.mean > bound else 1.0

    def falls_below(bound: float) -> Test:
        return lambda look: p(look, bound) if look.mean < bound else 1.0

    def lies_between(low: float, high: float) -> Test:
        """Two one-sided tests (Schuirmann 1987), each at half the two-sided level: the interval lies inside."""
        return lambda look: max(p(look, low), p(look, high)) if low < look.mean < high else 1.0

    bound = expectation.bound
    if expectation.kind == ExpectationKind.WITHIN:
        outside = min(strongest(falls_below(-bound)), strongest(rises_above(bound)))
        return Evidence(supported=strongest(lies_between(-bound, bound)), contradicted=outside)
    above, below = strongest(rises_above(bound)), strongest(falls_below(bound))
    same = 1.0 if ignore is None else strongest(lies_between(bound - ignore, bound + ignore))
    is_above = expectation.kind == ExpectationKind.ABOVE
    return Evidence(above if is_above else below, below if is_above else above, same)


def exact_evidence(effect: float, expectation: Expectation, ignore: float | None) -> Evidence:
    """The evidence of an effect without error: p is 0 for one verdict."""
    if ignore is not None and expectation.kind != ExpectationKind.WITHIN and abs(effect - expectation.bound) < ignore:
        return Evidence(equivalent=0.0)
    return Evidence(supported=0.0) if expectation.holds(effect) else Evidence(contradicted=0.0)


def bootstrap_interval(values: Values, alpha: float) -> tuple[float, float] | None:
    """The BCa interval of the mean (Efron 1987); None for fewer than 4 values, and if all are equal.

    Independent terms are resampled each by itself.
    """
    import numpy as np
    from scipy.stats import bootstrap

    terms = np.array([terms_of(value) for value in values]).T
    if len(values) < MIN_VALUES or (terms == terms[:, :1]).all():
        return None

    def mean(*samples: Any, axis: int) -> Any:
        return sum(np.mean(sample, axis=axis) for sample in samples)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a degenerate distribution yields NaN, hence None
        result = bootstrap(
            tuple(terms),
            mean,
            confidence_level=1 - alpha,
            n_resamples=RESAMPLES,
            method="BCa",
            rng=np.random.default_rng(0),
        )
    low, high = (float(end) for end in result.confidence_interval)
    return (low, high) if np.isfinite([low, high]).all() else None


def sign_flip_p(values: Sequence[float], bound: float) -> float | None:
    """The two-sided p of the mean against a bound under random signs around the bound; exact for up to 13 values.

    None for one value.
    """
    import numpy as np
    from scipy.stats import permutation_test

    if len(values) < 2:
        return None
    result: Any = permutation_test(
        (np.array(values) - bound,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A claim's effect after n seeds. Intervals have level 1 - alpha; they are None if the values have no spread."""

    values: tuple[float, ...] | tuple[tuple[float, ...], ...]
    """Contrasts, or their terms; see `sample.Values`."""
    effect: float
    """The mean of the contrasts."""
    sd: float
    """Standard deviation of a contrast, of independent terms if unpaired; 0 for one seed, or if all are equal."""
    is_exact: bool
    """Whether the effect has no error."""
    alpha: float
    """The error rate of the plan."""
    ignore: float | None
    """The smallest effect of interest."""
    nearest: float
    """The bound nearest to the effect, which is the hardest to reject."""
    interval: Interval | None
    """The t interval of a single look."""
    repeated_interval: Interval | None
    """The t interval at the level of this look, None before the first look; simultaneous over all looks."""
    t_p: float
    """The two-sided p against the nearest bound, of a single look."""
    evidence: Evidence
    """Repeated p by verdict."""
    shares: tuple[float, ...] = PAIRED
    """The share of the variance that each arm has, unpaired; see `Sample`."""

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def p(self) -> float:
        """Repeated p: the smallest alpha at which a look so far would have decided the claim."""
        return self.evidence.p

    @property
    def low(self) -> float | None:
        """The lower end of the repeated interval."""
        return None if self.repeated_interval is None else self.repeated_interval[0]

    @property
    def high(self) -> float | None:
        """The upper end of the repeated interval."""
        return None if self.repeated_interval is None else self.repeated_interval[1]

    @property
    def bootstrap_interval(self) -> Interval | None:
        """The BCa interval of a single look; None for fewer than 4 values."""
        return bootstrap_interval(self.values, self.alpha) if self.sd > 0 else None

    @property
    def permutation_p(self) -> float | None:
        """The p of sign flips against the nearest bound, of a single look; None for one value, and unpaired."""
        contrasts = [value for value in self.values if isinstance(value, float | int)]
        return None if self.is_exact or not contrasts else sign_flip_p(contrasts, self.nearest)


def estimate_effect(
    values: Values,
    expectation: Expectation,
    plan: Plan | ExtendedPlan,
    *,
    ignore: float | None = None,
    exact: bool = False,
) -> Estimate:
    """Estimate an effect from its values: one for each seed, in order, finite, and at most as many as the plan has.

    Contrasts are tested as pairs, their terms as unpaired arms; see `sample.Values`.

    `ignore` is the smallest effect of interest; it has no meaning with `within`. `exact` means that the metric has no
    error, such as a number of parameters: one value or equal values are then the effect itself.
    """
    if not 1 <= len(values) <= plan.most:
        raise ValueError(f"there must be 1 to {plan.most} values (`most` of the plan), but got {len(values)}")
    if ignore is not None and ignore <= 0:
        raise ValueError(f"the smallest effect of interest must be positive, but got {ignore}")
    now, nearest = Sample.of(values), expectation.nearest(Sample.of(values).mean)
    looks = [Sample.of(values[:n]) for n in plan.looks if n <= now.n]
    is_exact = exact and now.sd == 0
    if is_exact:
        evidence = exact_evidence(now.mean, expectation, ignore)
    else:
        evidence = repeated_evidence(looks, expectation, plan.p_of(values), ignore)
    point = (now.mean, now.mean) if is_exact else None
    return Estimate(
        values=_frozen(values),
        effect=now.mean,
        sd=now.sd,
        is_exact=is_exact,
        alpha=plan.alpha,
        ignore=ignore,
        nearest=nearest,
        interval=point or now.interval(plan.alpha),
        repeated_interval=point or (plan.interval(values, looks[-1]) if looks else None),
        t_p=evidence.p if is_exact else now.p(nearest),
        evidence=evidence,
        shares=now.shares,
    )


def _frozen(values: Values) -> tuple[float, ...] | tuple[tuple[float, ...], ...]:
    numbers = tuple(value for value in values if isinstance(value, float | int))
    return numbers or tuple(tuple(value) for value in values if not isinstance(value, float | int))


def variance_removed(weights: Sequence[float], arms: Sequence[Sequence[float]]) -> float | None:
    """The share of a contrast's variance that pairing by seed removes, estimated: negative if pairing adds variance.

    `arms` has the values of each arm, (arms, pairs) in the same order of seeds. Without pairing the variance is the sum
    of weight^2 times the arm's variance; with two arms of equal spread the share is their correlation. None if there
    are fewer than three pairs or no spread.
    """
    import numpy as np

    if len(arms) < 2 or len(arms[0]) < 3:
        return None
    table, factors = np.asarray(arms, float), np.asarray(weights, float)
    unpaired = float((factors**2 * table.var(axis=1, ddof=1)).sum())
    return None if unpaired == 0 else 1 - float((factors @ table).var(ddof=1)) / unpaired


def holm(ps: Sequence[float]) -> list[float]:
    """The p of claims that are tested together, corrected step by step from the smallest (Holm 1979)."""
    corrected, largest = [1.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = largest
    return corrected


def judge(estimate: Estimate, corrected_p: float | None = None) -> Verdict:
    """The verdict at the plan's alpha; `corrected_p` is the estimate's p, corrected over the claims of a file.

    If the effect is shown to be smaller than the smallest effect of interest, that takes precedence over its sign.
    """
    evidence = estimate.evidence
    corrected = evidence.p if corrected_p is None else corrected_p
    if corrected > estimate.alpha:
        return Verdict.UNDECIDED
    granted = estimate.alpha * evidence.p / corrected if corrected > 0 else estimate.alpha
    if evidence.equivalent == evidence.p or evidence.equivalent <= granted:
        return Verdict.EQUIVALENT
    return Verdict.SUPPORTED if evidence.supported < evidence.contradicted else Verdict.CONTRADICTED


def seeds_to_decide(
    estimate: Estimate, expectation: Expectation, alpha: float, power: float = 0.8, most: int = 1000
) -> int | None:
    """The fewest seeds with which one two-sided t test at `alpha` decides with this power; None beyond `most`.

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
        return lambda n: _power_of_t(n, distance / estimate.sd, alpha, estimate.shares)

    def inside(reach: float, distance: float) -> Power:
        """A lower bound on the power of two one-sided tests: the probability that neither fails."""
        near, far = (outside(reach - distance), outside(reach + distance))
        return lambda n: near(n) + far(n) - 1

    if expectation.kind == ExpectationKind.WITHIN:
        size = abs(estimate.effect)
        return [outside(size - bound) if size > bound else inside(bound, size)]
    is_small = estimate.ignore is not None and off < estimate.ignore
    return [outside(off), *([inside(estimate.ignore or 0.0, off)] if is_small else [])]


def _power_of_t(n: int, effect_size: float, alpha: float, shares: tuple[float, ...]) -> float:
    """The probability that a t test at the two-sided level `alpha` detects an effect with the correct sign."""
    import numpy as np
    from scipy.special import nctdtr, stdtrit

    variances = np.array(shares)
    critical = float(-stdtrit(degrees_of_test(variances, n), alpha / 2))
    return 1 - float(nctdtr(satterthwaite_degrees(variances, n), effect_size * math.sqrt(n), critical))


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
