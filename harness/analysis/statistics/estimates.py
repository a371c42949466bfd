"""Estimates from the values of a claim: effect, spread, intervals, p, and the evidence for each verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.statistics.evidence import Evidence, exact_evidence, repeated_evidence
from harness.analysis.statistics.resampling import bootstrap_interval, sign_flip_p
from harness.analysis.statistics.sample import Sample
from harness.analysis.statistics.sequential import Plan
from harness.analysis.statistics.stretched import ExtendedPlan
from harness.config.expectation import Expectation

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A claim's effect after n pairs. Intervals have level 1 - alpha; they are None if the values have no spread."""

    values: tuple[float, ...]
    effect: float
    """The mean of the values."""
    sd: float
    """Standard deviation of the values; 0 for one value, or if all are equal."""
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

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.values)

    @property
    def standardised(self) -> float | None:
        """The effect in standard deviations of the values (Cohen's d_z)."""
        return self.effect / self.sd if self.sd > 0 else None

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
        """The p of sign flips against the nearest bound, of a single look; None for one value."""
        return None if self.is_exact else sign_flip_p(self.values, self.nearest)


def estimate_effect(
    values: Sequence[float],
    expectation: Expectation,
    plan: Plan | ExtendedPlan,
    *,
    ignore: float | None = None,
    exact: bool = False,
) -> Estimate:
    """Estimate an effect from its values: one for each seed, in order, finite, and at most as many as the plan has.

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
        values=tuple(values),
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
    )
