"""The statistics of claims: against scipy, against the literature, against simulated studies, and at the edges."""

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from harness.claims import (
    Estimate,
    Evidence,
    Expectation,
    Kind,
    Plan,
    Verdict,
    estimate,
    holm,
    judge,
    seeds_to_decide,
)
from harness.claims.repeated_t import nominal_levels
from harness.claims.sample import Sample
from harness.claims.sequential import EXPONENT
from harness.claims.simulate import NOISES, decisions, false_positive_rate

VALUES = [1.9, 0.7, 2.4, 1.1, 3.0, 1.6, 0.4, 2.2]
ABOVE_0 = Expectation(Kind.ABOVE, 0.0)
PLAN = Plan(3, 8)
ONE_LOOK = Plan(8, 8)
PLANS = [Plan(3, 8), Plan(3, 5), Plan(5, 20), Plan(2, 6), Plan(8, 8), Plan(4, 12)]


def verdict_of(values: list[float], text: str, plan: Plan, ignore: float | None = None) -> Verdict:
    return judge(estimate(values, Expectation.parse(text), plan, ignore=ignore))


# Expectations


@pytest.mark.parametrize(
    ("text", "kind", "bound"),
    [
        ("> 0", Kind.ABOVE, 0.0),
        (">0.5", Kind.ABOVE, 0.5),
        ("  < -1.5 ", Kind.BELOW, -1.5),
        ("< 1e-3", Kind.BELOW, 0.001),
        ("> +.5", Kind.ABOVE, 0.5),
        ("within 0.5", Kind.WITHIN, 0.5),
        ("within 0", Kind.WITHIN, 0.0),
    ],
)
def test_an_expectation_is_read(text: str, kind: Kind, bound: float) -> None:
    assert Expectation.parse(text) == Expectation(kind, bound)
    assert Expectation.parse(str(Expectation.parse(text))) == Expectation(kind, bound)


@pytest.mark.parametrize(
    "text", ["", "0", ">", ">= 0", "= 0", "> x", "> 0 and < 1", "within", "within 0.5 of 1", "> nan", "> inf", "> 1 %"]
)
def test_what_is_no_expectation_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be `>`, `<` or `within` and a number, but got .* Write `> 0`"):
        Expectation.parse(text)


@pytest.mark.parametrize(("text", "words"), [("within -0.5", "must not be negative"), ("> 1e999", "must be finite")])
def test_an_impossible_bound_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Expectation.parse(text)


def test_an_expectation_knows_where_it_holds() -> None:
    within = Expectation.parse("within 0.5")
    assert [within.holds(effect) for effect in (-0.6, -0.5, 0.0, 0.5, 0.6)] == [False, True, True, True, False]
    assert (within.nearest(2.0), within.nearest(-0.1), ABOVE_0.nearest(2.0)) == (0.5, -0.5, 0.0)
    assert (ABOVE_0.holds(0.0), Expectation.parse("< 1").holds(0.0)) == (False, True)


# Levels of repeated looks


NODES, WEIGHTS = np.polynomial.legendre.leggauss(100)


def brownian_crossing(times: Sequence[float], bounds: Sequence[float]) -> float:
    """The chance that Brownian motion is beyond a bound at one of the times; Armitage, McPherson & Rowe 1969."""
    inside, states, before = np.ones(1), np.zeros(1), 0.0
    for time, bound in zip(times, bounds, strict=True):
        reach, spread = bound * math.sqrt(time), math.sqrt(time - before)
        moved = np.exp(-(((reach * NODES[:, None] - states) / spread) ** 2) / 2) / (spread * math.sqrt(2 * math.pi))
        inside, states, before = reach * WEIGHTS * (moved @ inside), reach * NODES, time
    return float(1 - inside.sum())


def brownian_levels(times: Sequence[float], spent: Sequence[float]) -> list[float]:
    """The nominal levels of the textbook, which hold for known spread."""
    bounds: list[float] = []
    for look, chance in enumerate(spent, start=1):
        bounds.append(brentq(lambda bound: brownian_crossing(times[:look], [*bounds, bound]) - chance, 0.5, 8))  # noqa: B023
    return [2 * float(stats.norm.sf(bound)) for bound in bounds]


@pytest.mark.parametrize(("looks", "pocock", "fleming"), [(2, 2.178, 1.977), (3, 2.289, 2.004), (5, 2.413, 2.040)])
def test_the_reference_has_the_constants_of_the_literature(looks: int, pocock: float, fleming: float) -> None:
    """Jennison & Turnbull 1999, tables 2.1 and 2.3, alpha 0.05."""
    times = range(1, looks + 1)
    assert brownian_crossing(times, [pocock] * looks) == pytest.approx(0.05, abs=1e-4)
    falling = [fleming * math.sqrt(looks / time) for time in times]
    assert brownian_crossing(times, falling) == pytest.approx(0.05, abs=1e-4)


def test_with_many_values_the_levels_are_those_of_the_reference() -> None:
    spent = [0.02, 0.03, 0.04, 0.05]
    found = nominal_levels(200, np.array([spent]))[0]
    assert found == pytest.approx(brownian_levels(range(200, 204), spent), rel=0.02)


def test_with_few_values_the_levels_of_the_reference_would_err_too_often() -> None:
    levels = brownian_levels(PLAN.looks, [PLAN.alpha * (n / PLAN.most) ** EXPONENT for n in PLAN.looks])
    assert all(PLAN.level(n) < textbook for n, textbook in zip(PLAN.looks[1:], levels[1:], strict=True))
    values = np.random.default_rng(13).standard_normal((100_000, PLAN.most))
    crossed = np.zeros(len(values), dtype=bool)
    for n, level in zip(PLAN.looks, levels, strict=True):
        crossed |= stats.ttest_1samp(values[:, :n], 0.0, axis=1).pvalue <= level
    assert crossed.mean() > 0.055


def test_two_looks_at_two_and_three_values_are_areas_on_a_sphere() -> None:
    """Directions of three values, on a fine grid of the sphere."""
    levels = nominal_levels(2, np.array([[0.05, 0.2]]))[0]
    height, turn = np.meshgrid((np.arange(500) + 0.5) / 250 - 1, 2 * np.pi * (np.arange(1000) + 0.5) / 1000)
    flat = np.sqrt(1 - height**2)
    x = np.stack([flat * np.cos(turn), flat * np.sin(turn), height])
    first = stats.ttest_1samp(x[:2], 0.0, axis=0).pvalue <= levels[0]
    second = stats.ttest_1samp(x, 0.0, axis=0).pvalue <= levels[1]
    assert first.mean() == pytest.approx(0.05, abs=2e-3)
    assert (first | second).mean() == pytest.approx(0.2, abs=2e-3)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_levels_rise_with_alpha_and_stay_between_what_is_spent_now_and_in_all(plan: Plan) -> None:
    spent = np.outer([0.001, 0.01, plan.alpha, 0.3], [(n / plan.most) ** EXPONENT for n in plan.looks])
    levels = nominal_levels(plan.looks[0], spent)
    assert [plan.level(n) for n in plan.looks] == pytest.approx(levels[2].tolist(), rel=1e-9)
    assert (np.diff(levels, axis=0) > 0).all()
    assert (levels <= spent * (1 + 1e-9)).all()
    assert (levels >= np.diff(spent, axis=1, prepend=0) * (1 - 1e-9)).all()


def test_a_single_look_is_the_ordinary_test() -> None:
    assert ONE_LOOK.level(8) == pytest.approx(0.05, rel=1e-12)
    for p in (1e-9, 1e-4, 0.03, 0.05, 0.4, 1.0):
        assert ONE_LOOK.repeated_p(8, p) == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_repeated_p_is_at_most_alpha_just_where_the_look_rejects(plan: Plan) -> None:
    for n in plan.looks:
        level = plan.level(n)
        assert plan.repeated_p(n, level * 0.9999) <= plan.alpha < plan.repeated_p(n, level * 1.0001)
        ps = [plan.repeated_p(n, p) for p in np.geomspace(1e-12, 1, 200)]
        assert ps == sorted(ps) and ps[-1] == 1.0
        assert all(repeated >= p * (1 - 1e-9) for repeated, p in zip(ps, np.geomspace(1e-12, 1, 200), strict=True))


def test_repeated_p_between_the_tabulated_alphas_is_close_to_the_exact_one() -> None:
    for alpha in (0.0003, 0.007, 0.0125, 0.025, 0.13):
        for n in PLAN.looks:
            assert PLAN.repeated_p(n, Plan(3, 8, alpha).level(n)) == pytest.approx(alpha, rel=2e-3)


@pytest.mark.parametrize(("first", "most", "alpha"), [(0, 3, 0.05), (4, 3, 0.05), (3, 8, 0.0), (3, 8, 1.0)])
def test_what_is_no_plan_is_refused(first: int, most: int, alpha: float) -> None:
    with pytest.raises(ValueError, match="but got"):
        Plan(first, most, alpha)


# Simulated studies


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_two_thousand_null_studies_are_decided_in_at_most_six_percent(plan: Plan) -> None:
    assert false_positive_rate(plan, 2000, seed=1) <= 0.06


@pytest.mark.parametrize("plan", [Plan(3, 8), Plan(2, 6), Plan(5, 20)], ids=str)
def test_the_error_rate_is_spent_in_full_and_no_more(plan: Plan) -> None:
    """100,000 studies: the standard error is 0.0007."""
    assert false_positive_rate(plan, 100_000, seed=2) == pytest.approx(0.05, abs=0.0025)


@pytest.mark.parametrize("noise", ["heavy", "skewed arms", "steps"])
def test_symmetric_differences_that_are_not_normal_do_not_raise_the_error_rate(noise: str) -> None:
    assert false_positive_rate(PLAN, 20_000, seed=3, noise=noise) <= 0.05


def test_skewed_differences_raise_it() -> None:
    """The known limit of any t test of few values: 10 % for one look at 8 exponential ones, and more for many looks."""
    alone, many = (false_positive_rate(plan, 20_000, seed=3, noise="skewed") for plan in (ONE_LOOK, PLAN))
    assert 0.08 < alone < 0.13 and alone < many < 0.18


def test_large_effects_are_found_with_few_seeds() -> None:
    found = decisions(PLAN, 4000, seed=4, effect=2.0)
    assert found.supported > 0.95 and found.contradicted < 0.001
    assert found.mean_pairs < 6
    assert decisions(PLAN, 4000, seed=4, effect=1.0).supported < found.supported
    assert decisions(PLAN, 4000, seed=4, effect=-2.0).contradicted > 0.95
    assert decisions(PLAN, 4000, seed=4, effect=2.0) == found


@pytest.mark.parametrize("noise", NOISES)
def test_simulated_differences_have_no_mean_and_unit_spread(noise: str) -> None:
    values = NOISES[noise](np.random.default_rng(5), (1000, 400))
    assert float(values.mean()) == pytest.approx(0, abs=0.01)
    assert float(values.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("noise", ["normal", "steps"])
def test_simulated_studies_are_judged_as_real_ones(noise: str) -> None:
    values = NOISES[noise](np.random.default_rng(6), (60, 8)) + 0.8
    verdicts = [verdict_of(row.tolist(), "> 0", PLAN) for row in values]
    found = decisions(PLAN, 60, seed=6, effect=0.8, noise=noise)
    assert verdicts.count(Verdict.SUPPORTED) == round(60 * found.supported) > 10
    assert verdicts.count(Verdict.CONTRADICTED) == round(60 * found.contradicted)


# Estimates


def test_an_estimate_of_one_look_is_that_of_scipy() -> None:
    found = estimate(VALUES, Expectation.parse("> 0.5"), ONE_LOOK)
    test = stats.ttest_1samp(VALUES, 0.5)
    assert found.n == 8
    assert [found.effect, found.sd] == pytest.approx([np.mean(VALUES), np.std(VALUES, ddof=1)])
    assert found.interval == found.repeated_interval == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found.p == pytest.approx(found.t_p) == pytest.approx(test.pvalue)
    assert found.standardised == pytest.approx(np.mean(VALUES) / np.std(VALUES, ddof=1))
    rng = np.random.default_rng(0)
    boot = stats.bootstrap((VALUES,), np.mean, method="BCa", rng=rng).confidence_interval
    assert found.bootstrap_interval == pytest.approx(tuple(boot))
    assert not found.is_exact


def test_sign_flips_are_counted_in_full() -> None:
    values = np.array(VALUES)
    signs = 1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    means = (signs * (values - 0.9)).mean(axis=1)
    expected = min(1.0, 2 * float(np.mean(means >= (values - 0.9).mean() - 1e-12)))
    assert estimate(VALUES, Expectation.parse("> 0.9"), PLAN).permutation_p == pytest.approx(expected)
    assert estimate(VALUES, ABOVE_0, PLAN).permutation_p == pytest.approx(2 / 256)


def test_repeated_looks_widen_the_interval() -> None:
    found = estimate(VALUES, ABOVE_0, PLAN)
    assert found.interval is not None and found.low is not None and found.high is not None
    assert found.low < found.interval[0] < found.interval[1] < found.high
    assert found.repeated_interval == pytest.approx(stats.ttest_1samp(VALUES, 0).confidence_interval(1 - PLAN.level(8)))


@pytest.mark.parametrize(("text", "ignore"), [("> 0", None), ("< 1.5", 0.8), ("> 1.2", 0.9), ("within 2.5", None)])
def test_the_interval_of_the_only_look_and_the_verdict_agree(text: str, ignore: float | None) -> None:
    """Over many samples: a verdict on a side where the interval lies on it, and so forth."""
    seen, expectation = set(), Expectation.parse(text)
    for row in np.random.default_rng(7).normal(1.2, 1.0, (150, 8)).tolist():
        found = estimate(row, expectation, ONE_LOOK, ignore=ignore)
        low, high, verdict = found.low, found.high, judge(found)
        assert low is not None and high is not None
        if text == "within 2.5":
            inside, outside = low > -2.5 and high < 2.5, low > 2.5 or high < -2.5
            expected = Verdict.SUPPORTED if inside else Verdict.CONTRADICTED if outside else Verdict.UNDECIDED
        else:
            bound, is_above = expectation.bound, expectation.kind == Kind.ABOVE
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
        estimates = [estimate(row[:n], ABOVE_0, PLAN) for n in range(1, 9)]
        assert all(before.p >= after.p for before, after in pairwise(estimates))
        verdicts = [judge(found) for found in estimates]
        assert verdicts[:2] == [Verdict.UNDECIDED] * 2
        assert all(after == before for before, after in pairwise(verdicts) if before != Verdict.UNDECIDED)
        decided += verdicts[-1] != Verdict.UNDECIDED
    assert decided > 20


def test_a_later_fall_does_not_turn_a_verdict_round() -> None:
    rising = [2.0, 2.1, 1.9, 2.05]
    assert verdict_of(rising, "> 0", PLAN) == Verdict.SUPPORTED
    found = estimate([*rising, -6.0, -7.0, -6.5, -7.5], ABOVE_0, PLAN)
    assert found.effect < 0 and judge(found) == Verdict.SUPPORTED


def test_the_same_values_give_the_same_estimate() -> None:
    assert estimate(VALUES, ABOVE_0, PLAN) == estimate(list(VALUES), Expectation.parse("> 0"), Plan(3, 8))
    long = np.random.default_rng(9).normal(0, 1, 20).tolist()
    assert estimate(long, ABOVE_0, Plan(5, 20)) == estimate(long, ABOVE_0, Plan(5, 20))


@pytest.mark.parametrize("ignore", [None, 0.5])
def test_mirrored_values_give_the_mirrored_verdict(ignore: float | None) -> None:
    for text, mirrored in (("> 0.3", "< -0.3"), ("within 2", "within 2")):
        one = estimate(VALUES, Expectation.parse(text), PLAN, ignore=ignore)
        other = estimate([-value for value in VALUES], Expectation.parse(mirrored), PLAN, ignore=ignore)
        assert one.evidence == other.evidence


# Edges


def test_one_measured_value_says_nothing() -> None:
    found = estimate([5.0], ABOVE_0, Plan(1, 1))
    assert (found.interval, found.repeated_interval, found.bootstrap_interval, found.permutation_p) == (None,) * 4
    assert found.p == 1.0 and judge(found) == Verdict.UNDECIDED
    assert (found.low, found.high, found.standardised) == (None, None, None)


def test_before_the_first_look_nothing_is_decided() -> None:
    found = estimate([5.0, 5.1], ABOVE_0, PLAN)
    assert found.interval is not None and found.repeated_interval is None
    assert found.p == 1.0 and judge(found) == Verdict.UNDECIDED


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
    found = estimate(values, Expectation.parse(text), PLAN, ignore=ignore, exact=True)
    assert found.is_exact and found.p == 0.0 and judge(found) == judge(found, 0.0) == verdict
    assert found.interval == found.repeated_interval == (found.effect, found.effect)


def test_values_that_differ_are_not_exact_whoever_says_so() -> None:
    assert not estimate(VALUES, ABOVE_0, PLAN, exact=True).is_exact


def test_equal_measured_values_take_the_sign_test() -> None:
    few, many = (estimate([0.5] * n, ABOVE_0, PLAN) for n in (3, 8))
    assert (few.t_p, many.t_p) == (0.25, 2 / 256) and many.permutation_p == pytest.approx(2 / 256)
    assert (few.interval, few.repeated_interval, few.bootstrap_interval) == (None,) * 3
    assert (judge(few), judge(many)) == (Verdict.UNDECIDED, Verdict.SUPPORTED)
    assert estimate([0.5] * 8, Expectation.parse("> 0.5"), PLAN).p == 1.0


def test_rounding_is_no_spread() -> None:
    values = [91.2 - 90.8, 70.8 - 70.4, 55.5 - 55.1]
    assert len(set(values)) > 1 and Sample.of(values).sd == 0.0


def test_four_values_have_a_bootstrap_interval_and_three_have_none() -> None:
    assert estimate(VALUES[:3], ABOVE_0, PLAN).bootstrap_interval is None
    assert estimate(VALUES[:4], ABOVE_0, PLAN).bootstrap_interval is not None
    assert estimate([0.0, 0.0, 0.0, 1.0], ABOVE_0, PLAN).bootstrap_interval is not None


@pytest.mark.parametrize(("values", "ignore"), [([], None), ([1.0] * 9, None), ([1.0], 0.0), ([1.0], -1.0)])
def test_what_cannot_be_estimated_is_refused(values: list[float], ignore: float | None) -> None:
    with pytest.raises(ValueError, match="but got"):
        estimate(values, ABOVE_0, PLAN, ignore=ignore)


# Verdicts over a file


def test_holm_is_holm() -> None:
    """The example of R's p.adjust by hand: (0.01, 0.02, 0.03) times (3, 2, 1), never falling."""
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9, 0.0]) == [1.0, 1.0, 0.0]
    assert holm([]) == []
    assert holm([0.04]) == [0.04]


def test_holm_decides_as_its_steps_do() -> None:
    rng = random.Random(10)
    for _ in range(200):
        ps = [rng.random() ** 4 for _ in range(rng.randrange(1, 8))]
        rejected, order = set[int](), sorted(range(len(ps)), key=ps.__getitem__)
        for step, i in enumerate(order):
            if ps[i] > 0.05 / (len(ps) - step):
                break
            rejected.add(i)
        assert {i for i, p in enumerate(holm(ps)) if p <= 0.05} == rejected


def with_evidence(supported: float, contradicted: float, equivalent: float) -> Estimate:
    return Estimate(
        values=(0.0, 1.0, 2.0),
        effect=1.0,
        sd=1.0,
        is_exact=False,
        alpha=0.05,
        ignore=0.5,
        nearest=0.0,
        interval=None,
        repeated_interval=None,
        t_p=0.0,
        evidence=Evidence(supported, contradicted, equivalent),
    )


@pytest.mark.parametrize(
    ("evidence", "corrected", "verdict"),
    [
        ((0.01, 1.0, 1.0), 0.05, Verdict.SUPPORTED),
        ((0.01, 1.0, 1.0), 0.0501, Verdict.UNDECIDED),
        ((1.0, 0.01, 1.0), 0.02, Verdict.CONTRADICTED),
        ((1.0, 1.0, 0.01), 0.05, Verdict.EQUIVALENT),
        ((0.001, 1.0, 0.04), 0.001, Verdict.EQUIVALENT),  # both are so, and the size comes before the sign
        ((0.001, 1.0, 0.04), 0.002, Verdict.SUPPORTED),  # here the size misses the level 0.025
        ((0.04, 0.01, 1.0), 0.01, Verdict.CONTRADICTED),
    ],
)
def test_evidence_becomes_a_verdict(evidence: tuple[float, float, float], corrected: float, verdict: Verdict) -> None:
    assert judge(with_evidence(*evidence), corrected) == verdict


@pytest.mark.parametrize(
    ("values", "text", "ignore", "verdict"),
    [
        ([2.0, 2.2, 1.8, 2.1], "> 0", None, Verdict.SUPPORTED),
        ([2.0, 2.2, 1.8, 2.1], "< 0", None, Verdict.CONTRADICTED),
        ([2.0, 2.2, 1.8, 2.1], "> 2", None, Verdict.UNDECIDED),
        ([2.0, 2.2, 1.8, 2.1], "> 2", 1.5, Verdict.EQUIVALENT),
        ([2.0, 2.2, 1.8, 2.1], "> 1", 3.0, Verdict.EQUIVALENT),
        ([0.02, -0.03, 0.01, 0.0], "within 0.5", None, Verdict.SUPPORTED),
        ([2.0, 2.2, 1.8, 2.1], "within 0.5", None, Verdict.CONTRADICTED),
        ([-2.0, -2.2, -1.8, -2.1], "within 0.5", None, Verdict.CONTRADICTED),
        ([0.4, 0.6, 0.5, 0.45], "within 0.5", None, Verdict.UNDECIDED),
        ([0.02, -0.03, 0.01, 0.0], "within 0", None, Verdict.UNDECIDED),
    ],
)
def test_values_become_a_verdict(values: list[float], text: str, ignore: float | None, verdict: Verdict) -> None:
    assert verdict_of(values, text, PLAN, ignore) == verdict


def test_no_difference_at_the_edge_of_interest_is_rarely_called_equivalent() -> None:
    """With a true effect of just the smallest of interest, `equivalent` is wrong, and given in 2.5 % at most."""
    rows = np.random.default_rng(11).normal(1.0, 0.25, (400, 8)).tolist()
    looks = [[Sample.of(row[:n]) for n in PLAN.looks] for row in rows]
    wrong = [any(max(s.p(-1), s.p(1)) <= PLAN.level(s.n) and abs(s.mean) < 1 for s in row) for row in looks]
    assert 0.0 < np.mean(wrong) <= 0.045


# Seeds to decide


def power_by_simulation(n: int, standardised: float, alpha: float) -> float:
    values: NDArray[np.float64] = np.random.default_rng(12).normal(standardised, 1.0, (20_000, n))
    found = stats.ttest_1samp(values, 0.0, axis=1)
    return float(np.mean((found.pvalue <= alpha) & (found.statistic > 0)))


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_seeds_to_decide_have_the_power_and_one_less_has_not(alpha: float) -> None:
    found = estimate(VALUES, Expectation.parse("> 1"), PLAN)
    n = seeds_to_decide(found, Expectation.parse("> 1"), alpha)
    assert n is not None
    standardised = (found.effect - 1) / found.sd
    assert power_by_simulation(n, standardised, alpha) == pytest.approx(0.8, abs=0.03)
    assert power_by_simulation(n, standardised, alpha) > 0.79 > power_by_simulation(n - 2, standardised, alpha)


def test_the_textbook_example_of_power() -> None:
    """Cohen's d of 0.5, two-sided 5 %, power 80 %: 34 pairs; of 0.8: 15."""
    for size, pairs in ((0.5, 34), (0.8, 15)):
        spread = math.sqrt(7 / 8)
        values = [size + sign * spread for sign in (1, -1) * 4]
        found = estimate(values, ABOVE_0, PLAN)
        assert found.standardised == pytest.approx(size)
        assert seeds_to_decide(found, ABOVE_0, 0.05) == pairs


def test_seeds_to_decide_equivalence() -> None:
    values = [0.01, -0.4, 0.5, -0.2, 0.3, -0.1]
    plain, small = estimate(values, ABOVE_0, PLAN), estimate(values, ABOVE_0, PLAN, ignore=0.5)
    assert seeds_to_decide(plain, ABOVE_0, 0.05) is None
    enough = seeds_to_decide(small, ABOVE_0, 0.05)
    assert enough is not None and 3 < enough < 30
    assert seeds_to_decide(plain, Expectation.parse("within 0.5"), 0.05) == pytest.approx(enough, abs=1)
    assert seeds_to_decide(estimate(VALUES, ABOVE_0, PLAN), Expectation.parse("within 0.5"), 0.05) is not None


def test_where_nothing_is_known_of_the_spread_no_number_of_seeds_is_named() -> None:
    assert seeds_to_decide(estimate([1.0], ABOVE_0, PLAN), ABOVE_0, 0.05) is None
    assert seeds_to_decide(estimate([1.0, 1.0, 1.0], ABOVE_0, PLAN), ABOVE_0, 0.05) is None
    assert seeds_to_decide(estimate([1.0], ABOVE_0, PLAN, exact=True), ABOVE_0, 0.05) == 1
    assert seeds_to_decide(estimate([1.0, -1.0, 0.0], ABOVE_0, PLAN), ABOVE_0, 0.05) is None
    assert seeds_to_decide(estimate([1e6, 1e6 + 1, 1e6 - 1], ABOVE_0, PLAN), ABOVE_0, 0.05) == 2
