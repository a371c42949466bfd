"""How strongly the looks up to now speak for each verdict: its repeated p."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.claims.expectation import Expectation, Kind
from harness.claims.sample import Sample
from harness.claims.sequential import Plan

Test = Callable[[Sample], float]
"""The smallest two-sided level at which one look comes to a conclusion; 1 where it points elsewhere."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """By verdict, the smallest alpha at which some look up to now would have given it. It never rises with n."""

    supported: float = 1.0
    contradicted: float = 1.0
    equivalent: float = 1.0

    @property
    def p(self) -> float:
        """The smallest alpha at which the claim would have been decided, whichever way."""
        return min(self.supported, self.contradicted, self.equivalent)


def repeated_evidence(looks: Sequence[Sample], expectation: Expectation, plan: Plan, ignore: float | None) -> Evidence:
    """The evidence of samples that grow by one value each, one for each look of the plan up to now."""

    def strongest(test: Test) -> float:
        return min((plan.repeated_p(look.n, test(look)) for look in looks), default=1.0)

    bound = expectation.bound
    if expectation.kind == Kind.WITHIN:
        outside = min(strongest(_below(-bound)), strongest(_above(bound)))
        return Evidence(supported=strongest(_between(-bound, bound)), contradicted=outside)
    above, below = strongest(_above(bound)), strongest(_below(bound))
    same = 1.0 if ignore is None else strongest(_between(bound - ignore, bound + ignore))
    is_above = expectation.kind == Kind.ABOVE
    return Evidence(above if is_above else below, below if is_above else above, same)


def exact_evidence(effect: float, expectation: Expectation, ignore: float | None) -> Evidence:
    """The evidence of an effect that is known without error: certainty for one verdict."""
    if ignore is not None and expectation.kind != Kind.WITHIN and abs(effect - expectation.bound) < ignore:
        return Evidence(equivalent=0.0)
    return Evidence(supported=0.0) if expectation.holds(effect) else Evidence(contradicted=0.0)


def _above(bound: float) -> Test:
    return lambda sample: sample.p(bound) if sample.mean > bound else 1.0


def _below(bound: float) -> Test:
    return lambda sample: sample.p(bound) if sample.mean < bound else 1.0


def _between(low: float, high: float) -> Test:
    """Two one-sided tests (Schuirmann 1987), each at half the two-sided level: the interval lies inside."""
    return lambda sample: max(sample.p(low), sample.p(high)) if low < sample.mean < high else 1.0
