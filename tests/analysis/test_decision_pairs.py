"""Pairs until a decision: estimates and intervals of drawn samples, and the plan that they lead to."""

import math

import numpy as np
import pytest

from harness.analysis.statistics import Plan, estimate_effect, judge
from harness.analysis.statistics.decision_pairs import POWER, effect_size, expected_pairs, pairs_to_decision
from harness.analysis.statistics.estimates import Verdict
from harness.analysis.statistics.sample import Sample
from harness.config.expectation import Expectation

PLAN = Plan(3, 8)


@pytest.mark.parametrize(("true", "n"), [(1.0, 3), (3.0, 3), (1.0, 8), (2.5, 8)])
def test_intervals_contain_the_true_size_and_half_of_the_estimates_are_above_it(true: float, n: int) -> None:
    rng, draws = np.random.default_rng(11), 1000
    sizes = [effect_size(Sample.of(rng.normal(-true, 1, n).tolist()), 0.0) for _ in range(draws)]
    inside = sum(size is not None and size.low <= true <= size.high for size in sizes)
    above = sum(size is not None and size.value > true for size in sizes)
    assert 0.92 <= inside / draws <= 0.99
    assert 0.44 <= above / draws <= 0.56


def test_the_sign_does_not_matter_and_the_distance_is_that_from_the_bound() -> None:
    values = [1.0, 1.7, 1.2, 2.1]
    up, down = (effect_size(Sample.of([sign * value for value in values]), 0.0) for sign in (1, -1))
    assert up == down and up is not None and up.low < up.value < up.high
    shifted = effect_size(Sample.of([value + 5 for value in values]), 5.0)
    assert shifted is not None and shifted == pytest.approx(up)


def test_without_a_spread_there_is_no_size() -> None:
    assert effect_size(Sample.of([1.0]), 0.0) is None
    assert effect_size(Sample.of([1.0, 1.0, 1.0]), 0.0) is None


def test_expected_pairs_are_those_of_the_studys_own_statistics() -> None:
    """Studies are drawn, and judged look by look as `harness run` does."""
    rng, expectation = np.random.default_rng(3), Expectation.parse("> 0")
    pairs, decided = [], 0
    for _ in range(300):
        values = rng.normal(1.5, 1, PLAN.most).tolist()
        verdicts = [judge(estimate_effect(values[:n], expectation, PLAN)) for n in PLAN.looks]
        first = next((i for i, verdict in enumerate(verdicts) if verdict == Verdict.SUPPORTED), None)
        decided += first is not None
        pairs.append(PLAN.most if first is None else PLAN.looks[first])
    assert decided / 300 >= POWER
    assert np.mean(pairs) == pytest.approx(expected_pairs(1.5, PLAN), abs=0.3)


def test_smaller_effects_and_smaller_shares_of_the_error_rate_need_more_pairs() -> None:
    needed = [expected_pairs(size, PLAN) for size in (5.0, 2.0, 1.0, 0.5, 0.35)]
    assert needed == sorted(needed) and needed[0] >= 3 and math.isfinite(needed[-1])
    assert expected_pairs(0.1, PLAN) == math.inf == expected_pairs(0.0, PLAN)
    assert expected_pairs(1.5, Plan(3, 8, 0.025)) > expected_pairs(1.5, PLAN)


def test_an_interval_that_contains_zero_has_no_largest_number_of_pairs() -> None:
    size = effect_size(Sample.of([1.0, 2.0, 3.5]), 0.0)
    assert size is not None
    needed = pairs_to_decision(size, PLAN)
    assert needed.low <= needed.value < needed.high == math.inf
