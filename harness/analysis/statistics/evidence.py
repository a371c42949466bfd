"""The evidence of the looks so far for each verdict: its repeated p."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.analysis.statistics.sample import Sample
from harness.config.expectation import Expectation, ExpectationKind

LookP = Callable[[Sample, float], float]
"""Function of a look's sample and a bound: the smallest alpha at which the look rejects the bound."""
Test = Callable[[Sample], float]
"""Function of a look's sample: the smallest alpha at which the look reaches a conclusion; 1 if it supports another."""


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
