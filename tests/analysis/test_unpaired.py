"""Claims without pairing: Welch's test of the contrast's independent terms, its error rate, and what it gains."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from claim_plans import ABOVE_0, ONE_LOOK, PLAN, VALUES
from numpy.typing import NDArray
from scipy import stats

from harness.analysis.statistics import Plan, Verdict, calibration, estimate_effect, judge, seeds_to_decide
from harness.analysis.statistics.calibration import false_verdicts, simulate_verdicts
from harness.analysis.statistics.decision_pairs import effect_size, expected_pairs, pairs_to_decision
from harness.analysis.statistics.power import decision_chances, pairs_for_power, predicted_chances
from harness.analysis.statistics.sample import Sample, degrees_of_test, satterthwaite_degrees
from harness.config.expectation import Expectation

LARGE = [94.6, 95.1, 93.9, 95.4, 94.2, 94.8, 95.0, 93.7]
SMALL = [91.3, 92.9, 88.8, 93.1, 91.0, 92.2, 89.9, 90.5]
INTERACTION = (1.0, -1.0, -1.0, 1.0)


def terms(*arms: Sequence[float]) -> list[tuple[float, ...]]:
    """The values of the first arm minus the second, or of one arm."""
    return [tuple((1 - 2 * i) * value for i, value in enumerate(seed)) for seed in zip(*arms, strict=True)]


# One look


def test_the_standard_error_is_that_of_welch() -> None:
    sample, test = Sample.of(terms(LARGE, SMALL)), stats.ttest_ind(LARGE, SMALL, equal_var=False)
    assert sample.mean == pytest.approx(np.mean(LARGE) - np.mean(SMALL))
    assert sample.mean * math.sqrt(8) / sample.sd == pytest.approx(test.statistic)
    assert satterthwaite_degrees(np.array(sample.shares), 8) == pytest.approx(test.df)
    assert 7 < sample.degrees < test.df
    assert test.pvalue < sample.p(0.0) < 2 * stats.t.sf(test.statistic, 7)


def test_degrees_of_freedom_are_those_of_the_larger_variance_to_those_of_all() -> None:
    for n in (2, 3, 8, 30):
        assert degrees_of_test(np.array([1.0, 1.0, 1.0, 1.0]), n) == pytest.approx(4 * (n - 1))
        assert degrees_of_test(np.array([1.0, 1e-9]), n) == pytest.approx(n - 1)
        of_test, plain = (degrees(np.array([3.0, 1.0]), n) for degrees in (degrees_of_test, satterthwaite_degrees))
        assert n - 1 < of_test < plain < 2 * (n - 1)
    assert degrees_of_test(np.array([3.0, 1.0]), 1000) == pytest.approx(plain / 29 * 999, rel=0.01)


def test_a_single_arm_is_tested_as_pairs_are() -> None:
    one, paired = (estimate_effect(values, ABOVE_0, PLAN) for values in (terms(VALUES), VALUES))
    assert (one.sd, one.interval, one.repeated_interval, one.evidence) == (
        paired.sd,
        paired.interval,
        paired.repeated_interval,
        paired.evidence,
    )


def test_an_arm_without_a_spread_leaves_the_test_of_the_other() -> None:
    flat = estimate_effect(terms(VALUES, [0.5] * 8), ABOVE_0, PLAN)
    paired = estimate_effect([value - 0.5 for value in VALUES], ABOVE_0, PLAN)
    assert (flat.effect, flat.sd, flat.p) == pytest.approx((paired.effect, paired.sd, paired.p))
    assert flat.repeated_interval == pytest.approx(paired.repeated_interval)


def test_arms_that_are_all_equal_take_the_sign_test_unless_exact() -> None:
    flat = terms([12.0] * 4, [10.0] * 4)
    estimate = estimate_effect(flat, ABOVE_0, Plan(4, 4))
    assert estimate.sd == 0 and estimate.repeated_interval is None and estimate.t_p == 2.0**-3
    assert judge(estimate) == Verdict.UNDECIDED and seeds_to_decide(estimate, ABOVE_0, 0.05) is None
    exact = estimate_effect(flat, ABOVE_0, Plan(4, 4), exact=True)
    assert exact.is_exact and judge(exact) == Verdict.SUPPORTED
    equal = estimate_effect(terms([0.1 + 0.2] * 4, [0.3] * 4), ABOVE_0, Plan(4, 4))
    assert equal.p == 1.0 and equal.sd == 0, "rounding is neither a spread nor a difference"


def test_seeds_that_make_the_same_difference_are_no_certainty_without_pairing() -> None:
    shared = [90.0, 92.0, 91.0, 95.0]
    paired = estimate_effect([1.0] * 4, ABOVE_0, Plan(4, 4))
    unpaired = estimate_effect(terms([value + 1 for value in shared], shared), ABOVE_0, Plan(4, 4))
    assert paired.sd == 0 and unpaired.sd == pytest.approx(math.sqrt(2) * np.std(shared, ddof=1))
    assert unpaired.p > 0.2


def test_one_seed_is_no_evidence() -> None:
    estimate = estimate_effect([(95.0, -91.0)], ABOVE_0, Plan(1, 1))
    assert (estimate.effect, estimate.sd, estimate.p, estimate.interval) == (4.0, 0.0, 1.0, None)


def test_the_order_in_which_arms_have_their_seeds_does_not_matter() -> None:
    one, other = (estimate_effect(terms(LARGE, small), ABOVE_0, ONE_LOOK) for small in (SMALL, SMALL[::-1]))
    assert one.p == pytest.approx(other.p, rel=1e-9) and one.interval == pytest.approx(other.interval)


def test_the_bootstrap_resamples_each_arm_and_no_signs_are_flipped() -> None:
    estimate = estimate_effect(terms(LARGE, SMALL), ABOVE_0, ONE_LOOK)
    expected = stats.bootstrap(
        (LARGE, SMALL),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        method="BCa",
        rng=np.random.default_rng(0),
    )
    assert estimate.bootstrap_interval == pytest.approx(tuple(expected.confidence_interval))
    assert estimate.permutation_p is None


def test_intervals_leave_out_what_is_rejected_and_decided_claims_stay_decided() -> None:
    rng, decided = np.random.default_rng(4), 0
    for _ in range(40):
        values = [tuple(seed) for seed in (rng.standard_normal((8, 2)) + np.array([1.2, 0.0])).tolist()]
        estimates = [estimate_effect(values[:n], ABOVE_0, PLAN) for n in range(3, 9)]
        assert all(before.p >= after.p for before, after in pairwise(estimates))
        last = estimate_effect(values, ABOVE_0, ONE_LOOK)
        assert last.low is not None and (last.p <= 0.05) == (last.low > 0 or (last.high or 0) < 0)
        decided += judge(estimates[-1]) != Verdict.UNDECIDED
    assert decided > 10


# Error rates

SPREADS: dict[str, tuple[float, ...]] = {
    "equal": (1, 1),
    "measured": (1.75, 0.97),
    "5 to 1": (5, 1),
    "10 to 1": (10, 1),
    "one without": (1, 0),
    "four equal": (1, 1, 1, 1),
    "four unequal": (2, 1, 1, 3),
    "one of four 6 to 1": (6, 1, 1, 1),
    "one of four 10 to 1": (10, 1, 1, 1),
}
"""Standard deviations of the arms."""


def draw(sds: Sequence[float], plan: Plan, studies: int, seed: int, *, correlation: float = 0.0) -> NDArray[np.float64]:
    """Terms of contrasts without an effect; (studies, seeds, arms)."""
    arms = len(sds)
    correlations = np.full((arms, arms), correlation) + (1 - correlation) * np.eye(arms)
    normal = np.random.default_rng(seed).standard_normal((studies, plan.most, arms))
    signs = np.array(INTERACTION[:arms] if arms == 4 else (1.0, -1.0))
    return np.asarray(normal @ np.linalg.cholesky(correlations).T * np.array(sds) * signs)


def error_rate(plan: Plan, sds: Sequence[float], studies: int, *, correlation: float = 0.0) -> float:
    verdicts, _ = simulate_verdicts(draw(sds, plan, studies, 5, correlation=correlation), plan)
    return float(np.mean(verdicts != 0))


def at_most(alpha: float, studies: int) -> float:
    return alpha + 2.5 * math.sqrt(alpha * (1 - alpha) / studies)


@pytest.mark.parametrize("name", SPREADS)
def test_the_error_rate_is_kept_whatever_the_spreads_of_the_arms(name: str) -> None:
    assert error_rate(PLAN, SPREADS[name], 20_000) <= at_most(0.05, 20_000)


@pytest.mark.long
@pytest.mark.parametrize("plan", [Plan(2, 2), Plan(3, 3), Plan(2, 6), Plan(3, 8), Plan(5, 20)], ids=str)
@pytest.mark.parametrize("alpha", [0.05, 0.025])
def test_the_error_rate_of_other_plans_is_kept_too(plan: Plan, alpha: float) -> None:
    share, studies = Plan(plan.first, plan.most, alpha), 20_000 if plan.most <= 8 else 10_000
    rates = {name: error_rate(share, sds, studies) for name, sds in SPREADS.items()}
    assert max(rates.values()) <= at_most(alpha, studies), rates


def test_with_the_degrees_of_freedom_of_satterthwaite_it_would_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "degrees_of_test", satterthwaite_degrees)
    assert error_rate(PLAN, SPREADS["5 to 1"], 40_000) > 0.054
    assert error_rate(PLAN, SPREADS["one of four 6 to 1"], 40_000) > 0.058


def test_what_arms_share_by_their_seeds_lowers_the_error_rate_and_the_opposite_raises_it() -> None:
    """The variance of the difference is then smaller, or larger, than the sum of both."""
    rates = [error_rate(PLAN, (1, 1), 20_000, correlation=shared) for shared in (0.4, 0.2, 0.0, -0.2)]
    assert rates == sorted(rates) and rates[0] < 0.02 and rates[2] < 0.045 and 0.05 < rates[3] < 0.07


def test_simulated_studies_are_judged_as_real_ones() -> None:
    values = draw((2, 1), PLAN, 60, 6) + np.array([2.0, 0.0])
    verdicts, _ = simulate_verdicts(values, PLAN)
    real = [judge(estimate_effect(study, ABOVE_0, PLAN)) for study in values.tolist()]
    assert real.count(Verdict.SUPPORTED) == np.count_nonzero(verdicts > 0) > 10
    assert real.count(Verdict.CONTRADICTED) == np.count_nonzero(verdicts < 0)


@pytest.mark.parametrize(("name", "gain"), [("equal", 0.25), ("measured", 0.15), ("four equal", 0.6)])
def test_independent_arms_are_decided_by_fewer_seeds_than_pairs(name: str, gain: float) -> None:
    sds = SPREADS[name]
    values = draw(sds, PLAN, 20_000, 7)
    values[..., 0] += 1.85 * math.hypot(*sds)
    (unpaired, seeds), (paired, pairs) = simulate_verdicts(values, PLAN), simulate_verdicts(values.sum(axis=2), PLAN)
    assert seeds.mean() < pairs.mean() - gain
    assert np.mean(unpaired > 0) > np.mean(paired > 0) > 0.95


# Predictions


def test_chances_are_the_shares_of_studies_that_come_to_a_verdict() -> None:
    sds, rng = np.array([1.75, 0.97]), np.random.default_rng(8)
    shares = tuple((sds**2 / (sds**2).sum()).tolist())
    values = draw(sds.tolist(), PLAN, 20_000, 9)
    values[..., 0] += 1.2 * math.hypot(*sds)
    verdicts, seeds = simulate_verdicts(values, PLAN)
    chances = decision_chances(PLAN, ABOVE_0, 1.2, 1.0, shares=shares)
    assert chances.chance == pytest.approx(np.mean(verdicts != 0), abs=0.02)
    assert chances.expected_pairs() == pytest.approx(seeds.mean(), abs=0.1)
    assert chances.expected_pairs() < decision_chances(PLAN, ABOVE_0, 1.2, 1.0).expected_pairs()
    found = pairs_for_power(3, ABOVE_0, 1.2, 1.0, alpha=0.05, power=0.8, most=40, shares=shares)
    paired = pairs_for_power(3, ABOVE_0, 1.2, 1.0, alpha=0.05, power=0.8, most=40)
    assert found is not None and paired is not None and found[0] <= paired[0] and found[1].chance >= 0.8
    null = decision_chances(PLAN, ABOVE_0, 0.0, float(rng.uniform(1, 2)), shares=shares)
    assert null.chance == pytest.approx(0.043, abs=0.012)


def test_predictions_agree_with_what_then_happens() -> None:
    rng, stated, decided = np.random.default_rng(3), [], []
    for _ in range(250):
        sds, effect = np.exp(rng.uniform(-1, 1, 2)), rng.uniform(-3, 3)
        values = [tuple(seed) for seed in (rng.standard_normal((8, 2)) * sds + np.array([effect, 0.0])).tolist()]
        if judge(estimate_effect(values[:4], ABOVE_0, PLAN)) != Verdict.UNDECIDED:
            continue
        stated.append(predicted_chances(PLAN, ABOVE_0, values[:4]).chance)
        decided.append(judge(estimate_effect(values, ABOVE_0, PLAN)) != Verdict.UNDECIDED)
    assert len(stated) > 100
    assert np.mean(stated) == pytest.approx(np.mean(decided), abs=0.08)


def test_a_prediction_of_one_arm_is_that_of_pairs() -> None:
    values = VALUES[:4]
    assert predicted_chances(PLAN, ABOVE_0, terms(values)) == predicted_chances(PLAN, ABOVE_0, values)
    assert decision_chances(PLAN, ABOVE_0, 1.0, 1.0, shares=(1.0,)) == decision_chances(PLAN, ABOVE_0, 1.0, 1.0)


def test_seeds_to_decide_have_the_power_and_are_fewer_than_pairs() -> None:
    estimate = estimate_effect(terms(LARGE, SMALL), Expectation.parse("> 2.5"), Plan(8, 8))
    paired = estimate_effect([sum(seed) for seed in terms(LARGE, SMALL)], Expectation.parse("> 2.5"), Plan(8, 8))
    n = seeds_to_decide(estimate, Expectation.parse("> 2.5"), 0.05)
    assert n is not None and n > 8
    sds = [np.std(arm, ddof=1) for arm in (LARGE, SMALL)]
    values = draw([float(sd) for sd in sds], Plan(n, n), 20_000, 10)
    values[..., 0] += estimate.effect - 2.5
    power = np.mean(simulate_verdicts(values, Plan(n, n))[0] > 0)
    assert power == pytest.approx(0.8, abs=0.04)
    assert estimate.sd == pytest.approx(math.hypot(*sds)) and estimate.effect == pytest.approx(paired.effect)


def test_intervals_of_the_effect_size_contain_the_true_one() -> None:
    rng, draws, true = np.random.default_rng(11), 1000, 1.5
    for sds in ((1.0, 1.0), (1.75, 0.97)):
        samples = [rng.standard_normal((4, 2)) * sds for _ in range(draws)]
        shift = np.array([true * math.hypot(*sds), 0.0])
        sizes = [effect_size(Sample.of((sample + shift).tolist()), 0.0) for sample in samples]
        inside = sum(size is not None and size.low <= true <= size.high for size in sizes)
        above = sum(size is not None and size.value > true for size in sizes)
        assert 0.92 <= inside / draws <= 0.98 and 0.43 <= above / draws <= 0.57


def test_fewer_pairs_are_expected_where_arms_share_the_variance() -> None:
    assert expected_pairs(1.85, PLAN, (0.5, 0.5)) < expected_pairs(1.85, PLAN, (0.9, 0.1)) < expected_pairs(1.85, PLAN)
    sample = Sample.of(terms(LARGE, SMALL))
    size = effect_size(sample, 0.0)
    assert size is not None
    needed = pairs_to_decision(size, PLAN, sample.shares)
    assert needed.low <= needed.value <= needed.high


# A/A


def recorded(correlation: float) -> list[tuple[float, float]]:
    """80 seeds of two equal arms."""
    rng = np.random.default_rng(12)
    both = rng.multivariate_normal([94.0, 94.0], [[1, correlation], [correlation, 1]], 80)
    return [(a, -b) for a, b in both.tolist()]


def test_equal_arms_come_to_no_more_false_verdicts_than_allowed() -> None:
    assert false_verdicts(recorded(0.0), PLAN, studies=4000, seed=0).share <= 0.05
    assert false_verdicts(recorded(0.5), PLAN, studies=4000, seed=0).share < 0.02


def test_arms_that_are_not_independent_are_found_out() -> None:
    """What raises one arm lowers the other: the arms of a seed stay together in the drawn studies."""
    assert false_verdicts(recorded(-0.6), PLAN, studies=4000, seed=0).low > PLAN.alpha
