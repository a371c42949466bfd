"""Effects, intervals and p of one look or several: against scipy, and at the edges."""

import math
from itertools import pairwise

import numpy as np
import pytest
from claim_plans import ABOVE_0, ONE_LOOK, PLAN, VALUES, verdict_of
from numpy.typing import NDArray
from scipy import stats

from harness.analysis.statistics import Plan, Verdict, estimate_effect, judge, seeds_to_decide, variance_removed
from harness.analysis.statistics.sample import Sample
from harness.config.expectation import Expectation, ExpectationKind

# Estimates


def test_an_estimate_of_one_look_is_that_of_scipy() -> None:
    estimate = estimate_effect(VALUES, Expectation.parse("> 0.5"), ONE_LOOK)
    test = stats.ttest_1samp(VALUES, 0.5)
    assert estimate.n == 8
    assert [estimate.effect, estimate.sd] == pytest.approx([np.mean(VALUES), np.std(VALUES, ddof=1)])
    assert estimate.interval == estimate.repeated_interval == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert estimate.p == pytest.approx(estimate.t_p) == pytest.approx(test.pvalue)
    rng = np.random.default_rng(0)
    boot = stats.bootstrap((VALUES,), np.mean, method="BCa", rng=rng).confidence_interval
    assert estimate.bootstrap_interval == pytest.approx(tuple(boot))
    assert not estimate.is_exact


def test_sign_flips_are_counted_in_full() -> None:
    values = np.array(VALUES)
    signs = 1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    means = (signs * (values - 0.9)).mean(axis=1)
    expected = min(1.0, 2 * float(np.mean(means >= (values - 0.9).mean() - 1e-12)))
    assert estimate_effect(VALUES, Expectation.parse("> 0.9"), PLAN).permutation_p == pytest.approx(expected)
    assert estimate_effect(VALUES, ABOVE_0, PLAN).permutation_p == pytest.approx(2 / 256)


def test_repeated_looks_widen_the_interval() -> None:
    estimate = estimate_effect(VALUES, ABOVE_0, PLAN)
    assert estimate.interval is not None and estimate.low is not None and estimate.high is not None
    assert estimate.low < estimate.interval[0] < estimate.interval[1] < estimate.high
    assert estimate.repeated_interval == pytest.approx(
        stats.ttest_1samp(VALUES, 0).confidence_interval(1 - PLAN.level(8))
    )


@pytest.mark.parametrize(("text", "ignore"), [("> 0", None), ("< 1.5", 0.8), ("> 1.2", 0.9), ("within 2.5", None)])
def test_the_interval_of_the_only_look_and_the_verdict_agree(text: str, ignore: float | None) -> None:
    """Over many samples: a verdict on a side where the interval lies on it, and so forth."""
    seen, expectation = set(), Expectation.parse(text)
    for row in np.random.default_rng(7).normal(1.2, 1.0, (150, 8)).tolist():
        estimate = estimate_effect(row, expectation, ONE_LOOK, ignore=ignore)
        low, high, verdict = estimate.low, estimate.high, judge(estimate)
        assert low is not None and high is not None
        if text == "within 2.5":
            inside, outside = low > -2.5 and high < 2.5, low > 2.5 or high < -2.5
            expected = Verdict.SUPPORTED if inside else Verdict.CONTRADICTED if outside else Verdict.UNDECIDED
        else:
            bound, is_above = expectation.bound, expectation.kind == ExpectationKind.ABOVE
            is_small = ignore is not None and bound - ignore < low and high < bound + ignore
            right, wrong = (low > bound, high < bound) if is_above else (high < bound, low > bound)
            expected = Verdict.SUPPORTED if right else Verdict.CONTRADICTED if wrong else Verdict.UNDECIDED
            expected = Verdict.EQUIVALENT if is_small else expected
        assert verdict == expected
        seen.add(verdict)
    assert len(seen) >= 2


def test_what_is_decided_stays_decided_with_more_seeds() -> None:
    decided = 0
    for row in np.random.default_rng(8).normal(0.9, 1.0, (60, 8)).tolist():
        estimates = [estimate_effect(row[:n], ABOVE_0, PLAN) for n in range(1, 9)]
        assert all(before.p >= after.p for before, after in pairwise(estimates))
        verdicts = [judge(estimate) for estimate in estimates]
        assert verdicts[:2] == [Verdict.UNDECIDED] * 2
        assert all(after == before for before, after in pairwise(verdicts) if before != Verdict.UNDECIDED)
        decided += verdicts[-1] != Verdict.UNDECIDED
    assert decided > 20


def test_a_later_fall_does_not_turn_a_verdict_round() -> None:
    rising = [2.0, 2.1, 1.9, 2.05]
    assert verdict_of(rising, "> 0", PLAN) == Verdict.SUPPORTED
    estimate = estimate_effect([*rising, -6.0, -7.0, -6.5, -7.5], ABOVE_0, PLAN)
    assert estimate.effect < 0 and judge(estimate) == Verdict.SUPPORTED


def test_the_same_values_give_the_same_estimate() -> None:
    assert estimate_effect(VALUES, ABOVE_0, PLAN) == estimate_effect(list(VALUES), Expectation.parse("> 0"), Plan(3, 8))
    long = np.random.default_rng(9).normal(0, 1, 20).tolist()
    assert estimate_effect(long, ABOVE_0, Plan(5, 20)) == estimate_effect(long, ABOVE_0, Plan(5, 20))


@pytest.mark.parametrize("ignore", [None, 0.5])
def test_mirrored_values_give_the_mirrored_verdict(ignore: float | None) -> None:
    for text, mirrored in (("> 0.3", "< -0.3"), ("within 2", "within 2")):
        one = estimate_effect(VALUES, Expectation.parse(text), PLAN, ignore=ignore)
        other = estimate_effect([-value for value in VALUES], Expectation.parse(mirrored), PLAN, ignore=ignore)
        assert one.evidence == other.evidence


# Edges


def test_one_measured_value_is_no_evidence() -> None:
    estimate = estimate_effect([5.0], ABOVE_0, Plan(1, 1))
    assert (estimate.interval, estimate.repeated_interval, estimate.bootstrap_interval, estimate.permutation_p) == (
        None,
    ) * 4
    assert estimate.p == 1.0 and judge(estimate) == Verdict.UNDECIDED
    assert (estimate.low, estimate.high) == (None, None)


def test_before_the_first_look_nothing_is_decided() -> None:
    estimate = estimate_effect([5.0, 5.1], ABOVE_0, PLAN)
    assert estimate.interval is not None and estimate.repeated_interval is None
    assert estimate.p == 1.0 and judge(estimate) == Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("values", "text", "ignore", "verdict"),
    [
        ([12.0], "> 0", None, Verdict.SUPPORTED),
        ([12.0, 12.0], "< 0", None, Verdict.CONTRADICTED),
        ([0.1 + 0.2, 0.3], "within 0.3", None, Verdict.CONTRADICTED),
        ([0.0], "> 0", None, Verdict.CONTRADICTED),
        ([0.0], "within 0", None, Verdict.SUPPORTED),
        ([0.2], "> 0", 0.5, Verdict.EQUIVALENT),
        ([0.7], "> 0", 0.5, Verdict.SUPPORTED),
    ],
)
def test_exact_figures_decide_at_once(values: list[float], text: str, ignore: float | None, verdict: Verdict) -> None:
    estimate = estimate_effect(values, Expectation.parse(text), PLAN, ignore=ignore, exact=True)
    assert estimate.is_exact and estimate.p == 0.0 and judge(estimate) == judge(estimate, 0.0) == verdict
    assert estimate.interval == estimate.repeated_interval == (estimate.effect, estimate.effect)


def test_values_that_differ_are_not_exact_even_if_declared_so() -> None:
    assert not estimate_effect(VALUES, ABOVE_0, PLAN, exact=True).is_exact


def test_equal_measured_values_take_the_sign_test() -> None:
    few, many = (estimate_effect([0.5] * n, ABOVE_0, PLAN) for n in (3, 8))
    assert (few.t_p, many.t_p) == (0.25, 2 / 256) and many.permutation_p == pytest.approx(2 / 256)
    assert (few.interval, few.repeated_interval, few.bootstrap_interval) == (None,) * 3
    assert (judge(few), judge(many)) == (Verdict.UNDECIDED, Verdict.SUPPORTED)
    assert estimate_effect([0.5] * 8, Expectation.parse("> 0.5"), PLAN).p == 1.0


def test_rounding_is_no_spread() -> None:
    values = [91.2 - 90.8, 70.8 - 70.4, 55.5 - 55.1]
    assert len(set(values)) > 1 and Sample.of(values).sd == 0.0


def test_four_values_have_a_bootstrap_interval_and_three_have_none() -> None:
    assert estimate_effect(VALUES[:3], ABOVE_0, PLAN).bootstrap_interval is None
    assert estimate_effect(VALUES[:4], ABOVE_0, PLAN).bootstrap_interval is not None
    assert estimate_effect([0.0, 0.0, 0.0, 1.0], ABOVE_0, PLAN).bootstrap_interval is not None


@pytest.mark.parametrize(("values", "ignore"), [([], None), ([1.0] * 9, None), ([1.0], 0.0), ([1.0], -1.0)])
def test_what_cannot_be_estimated_is_refused(values: list[float], ignore: float | None) -> None:
    with pytest.raises(ValueError, match="but got"):
        estimate_effect(values, ABOVE_0, PLAN, ignore=ignore)


# Seeds to decide


def power_by_simulation(n: int, effect_size: float, alpha: float) -> float:
    values: NDArray[np.float64] = np.random.default_rng(12).normal(effect_size, 1.0, (20_000, n))
    t_tests = stats.ttest_1samp(values, 0.0, axis=1)
    return float(np.mean((t_tests.pvalue <= alpha) & (t_tests.statistic > 0)))


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_seeds_to_decide_have_the_power_and_one_less_has_not(alpha: float) -> None:
    estimate = estimate_effect(VALUES, Expectation.parse("> 1"), PLAN)
    n = seeds_to_decide(estimate, Expectation.parse("> 1"), alpha)
    assert n is not None
    effect_size = (estimate.effect - 1) / estimate.sd
    assert power_by_simulation(n, effect_size, alpha) == pytest.approx(0.8, abs=0.03)
    assert power_by_simulation(n, effect_size, alpha) > 0.79 > power_by_simulation(n - 2, effect_size, alpha)


def test_the_textbook_example_of_power() -> None:
    """Cohen's d of 0.5, two-sided 5 %, power 80 %: 34 pairs; of 0.8: 15."""
    for size, pairs in ((0.5, 34), (0.8, 15)):
        spread = math.sqrt(7 / 8)
        values = [size + sign * spread for sign in (1, -1) * 4]
        estimate = estimate_effect(values, ABOVE_0, PLAN)
        assert estimate.effect / estimate.sd == pytest.approx(size)
        assert seeds_to_decide(estimate, ABOVE_0, 0.05) == pairs


def test_seeds_to_decide_equivalence() -> None:
    values = [0.01, -0.4, 0.5, -0.2, 0.3, -0.1]
    plain, small = estimate_effect(values, ABOVE_0, PLAN), estimate_effect(values, ABOVE_0, PLAN, ignore=0.5)
    assert seeds_to_decide(plain, ABOVE_0, 0.05) is None
    enough = seeds_to_decide(small, ABOVE_0, 0.05)
    assert enough is not None and 3 < enough < 30
    assert seeds_to_decide(plain, Expectation.parse("within 0.5"), 0.05) == pytest.approx(enough, abs=1)
    assert seeds_to_decide(estimate_effect(VALUES, ABOVE_0, PLAN), Expectation.parse("within 0.5"), 0.05) is not None


def test_where_nothing_is_known_of_the_spread_no_number_of_seeds_is_named() -> None:
    assert seeds_to_decide(estimate_effect([1.0], ABOVE_0, PLAN), ABOVE_0, 0.05) is None
    assert seeds_to_decide(estimate_effect([1.0, 1.0, 1.0], ABOVE_0, PLAN), ABOVE_0, 0.05) is None
    assert seeds_to_decide(estimate_effect([1.0], ABOVE_0, PLAN, exact=True), ABOVE_0, 0.05) == 1
    assert seeds_to_decide(estimate_effect([1.0, -1.0, 0.0], ABOVE_0, PLAN), ABOVE_0, 0.05) is None
    assert seeds_to_decide(estimate_effect([1e6, 1e6 + 1, 1e6 - 1], ABOVE_0, PLAN), ABOVE_0, 0.05) == 2


def test_pairing_removes_the_correlated_share_of_the_variance() -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.standard_normal(20_000), rng.standard_normal((2, 20_000))
    arms = list(np.sqrt(0.3) * shared + np.sqrt(0.7) * own)
    assert variance_removed([1, -1], arms) == pytest.approx(0.3, abs=0.03)
    assert variance_removed([1, 1], arms) == pytest.approx(-0.3, abs=0.03), "of a sum, pairing adds what is shared"
    assert variance_removed([1, -1], [list(shared)] * 2) == pytest.approx(1)
    assert variance_removed([1, -1], [[1.0, 2.0], [2.0, 1.0]]) is None
    assert variance_removed([1, -1], [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]) is None
