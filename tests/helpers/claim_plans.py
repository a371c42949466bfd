"""Values, plans of looks, and what the tests of claims judge with them."""

from harness.analysis.statistics import Plan, Verdict, estimate_effect, judge
from harness.config.expectation import Expectation, ExpectationKind

VALUES = [1.9, 0.7, 2.4, 1.1, 3.0, 1.6, 0.4, 2.2]
ABOVE_0 = Expectation(ExpectationKind.ABOVE, 0.0)
PLAN = Plan(3, 8)
ONE_LOOK = Plan(8, 8)
PLANS = [Plan(3, 8), Plan(3, 5), Plan(5, 20), Plan(2, 6), Plan(8, 8), Plan(4, 12)]


def verdict_of(values: list[float], text: str, plan: Plan, ignore: float | None = None) -> Verdict:
    return judge(estimate_effect(values, Expectation.parse(text), plan, ignore=ignore))
