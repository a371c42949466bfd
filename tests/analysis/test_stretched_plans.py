"""A plan that is stretched after a look keeps its error rate: exact where it can be computed, simulated where not."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import stdtr

from harness.analysis.statistics import Plan, Values, estimate_effect
from harness.analysis.statistics.conditional import Boundary, conditional_error
from harness.analysis.statistics.sample import Sample
from harness.analysis.statistics.sequential import rising_levels
from harness.analysis.statistics.stretched import ExtendedPlan, plan_after
from harness.config.expectation import Expectation

STUDIES = 2000
ABOVE = Expectation.parse("> 0")
Stretch = Callable[[float, int], int | None]
"""From the p so far and the pairs so far, the pairs to which the plan is stretched now; None to leave it."""


def boundary(plan: Plan) -> Boundary:
    levels = rising_levels(plan)[1]
    return Boundary({n: np.array(look) for n, look in zip(plan.looks, levels, strict=True)})


@pytest.mark.parametrize("plan", [Plan(3, 8), Plan(2, 6), Plan(5, 20), Plan(4, 4)], ids=str)
def test_the_conditional_error_of_one_value_is_that_of_the_plan(plan: Plan) -> None:
    errors = conditional_error(boundary(plan), 1).of_state(1.0)
    alphas = np.array(rising_levels(plan)[0])
    near = alphas > 0.002
    assert errors[near] == pytest.approx(alphas[near], rel=0.02)
    assert errors[list(alphas).index(0.05)] == pytest.approx(0.05, rel=0.005)


def test_the_conditional_error_is_the_share_of_continuations_that_reject() -> None:
    plan, seen = Plan(3, 6), np.array([1.1, 0.2, 0.7])
    state = seen.sum() / math.sqrt((seen**2).sum())
    rng = np.random.default_rng(0)
    length = np.sqrt(rng.chisquare(3, 200_000))  # given the t statistic alone, the spread is not known
    rest = rng.standard_normal((200_000, 3))
    values = np.concatenate([length[:, None] * seen / np.linalg.norm(seen), rest], axis=1)
    crossed = np.zeros(len(values), bool)
    for n in (4, 5, 6):
        first = values[:, :n]
        t = first.mean(axis=1) / first.std(axis=1, ddof=1) * math.sqrt(n)
        crossed |= 2 * stdtr(n - 1, -np.abs(t)) <= plan.level(n)
    alphas = rising_levels(plan)[0]
    assert conditional_error(boundary(plan), 3).of_state(state)[alphas.index(0.05)] == pytest.approx(
        crossed.mean(), abs=0.003
    )


def test_stretching_to_the_same_plan_changes_nothing() -> None:
    values = [1.2, -0.3, 0.8, 1.9, 0.4, 1.1]
    plain = estimate_effect(values, ABOVE, Plan(3, 8))
    same = estimate_effect(values, ABOVE, ExtendedPlan((Plan(3, 8), Plan(3, 8)), (4,)))
    assert same.evidence.supported == pytest.approx(plain.evidence.supported, rel=1e-6)
    assert same.repeated_interval == pytest.approx(plain.repeated_interval, rel=1e-4)


def test_the_interval_leaves_out_what_the_look_rejects() -> None:
    values = [2.2, 0.3, 1.8, 1.9, 0.4, 2.1, 1.7, 0.9, 1.2, 2.0]
    plan = ExtendedPlan((Plan(3, 8), Plan(3, 12)), (5,))
    estimate = estimate_effect(values, ABOVE, plan)
    assert estimate.low is not None
    at_low = estimate_effect(values, Expectation.parse(f"> {estimate.low}"), plan)
    only_this_look = ExtendedPlan((Plan(3, 8), Plan(10, 12)), (5,))
    assert at_low.p <= 0.05 + 1e-4  # the p over all looks is at most that of this one
    assert only_this_look.looks == (3, 4, 5, 10, 11, 12)


def test_what_was_decided_before_the_change_stays_decided() -> None:
    values = [2.0, 2.1, 1.9, 2.05]
    before = estimate_effect(values, ABOVE, Plan(3, 4))
    after = estimate_effect([*values, -9.0, -9.0], ABOVE, ExtendedPlan((Plan(3, 4), Plan(3, 8)), (4,)))
    assert before.p <= 0.05 and after.evidence.supported == before.evidence.supported


def test_a_plan_after_its_last_look_has_nothing_left() -> None:
    values = [0.5, -0.4, 0.6, 5.0, 5.1, 5.2, 4.9, 5.0]
    plan = plan_after((Plan(3, 3), Plan(3, 8)), (3,))
    assert isinstance(plan, ExtendedPlan) and plan.exhausted_at == 3
    assert estimate_effect(values, ABOVE, plan).p == estimate_effect(values[:3], ABOVE, Plan(3, 3)).p


def test_plans_that_no_look_used_leave_no_trace() -> None:
    assert plan_after((Plan(1, 1), Plan(3, 8)), (1,)) == Plan(3, 8)  # no look at one value
    assert plan_after((Plan(3, 3), Plan(3, 8)), (0,)) == Plan(3, 8)
    assert plan_after((Plan(3, 8), Plan(3, 8)), (4,)) == Plan(3, 8)
    assert plan_after((Plan(3, 6), Plan(3, 8), Plan(3, 12)), (1, 5)) == ExtendedPlan((Plan(3, 8), Plan(3, 12)), (5,))


def promising(p: float, n: int) -> int | None:
    """Stretch a plan of 8 at 6 pairs where the claim is nearly decided."""
    return 16 if n == 6 and p < 0.4 else None


def whenever_undecided(p: float, n: int) -> int | None:
    """Stretch a plan of 8 to twice as many just before its last look."""
    return 16 if n == 7 and p > 0.05 else None


def again_and_again(_: float, n: int) -> int | None:
    """Four more pairs, one pair before each plan ends."""
    return n + 5 if n in (7, 11, 15) else None


def after_the_end(p: float, n: int) -> int | None:
    """Stretch a plan that has had its last look."""
    return 16 if n == 8 and p > 0.05 else None


def outcome(values: Values, stretch: Stretch) -> bool:
    """Whether a study with these values comes to a verdict on `> 0`, its plan stretched as its data suggest."""
    plans = [Plan(3, 8)]
    changes: list[int] = []
    n, p = 3, 1.0
    while n <= plans[-1].most:
        p = min(p, plan_after(plans, changes).p_of(values)(Sample.of(values[:n]), 0.0))
        if p <= 0.05:
            return True
        most = stretch(p, n)
        if most is not None:
            plans.append(Plan(3, most))
            changes.append(n)
        n += 1
    return False


@pytest.mark.long
@pytest.mark.parametrize("stretch", [promising, whenever_undecided, again_and_again, after_the_end])
def test_stretched_null_studies_err_no_more_than_planned(stretch: Stretch) -> None:
    rng = np.random.default_rng(20)
    rate = sum(outcome(rng.standard_normal(20).tolist(), stretch) for _ in range(STUDIES)) / STUDIES
    assert rate <= 0.05 + 1.96 * math.sqrt(0.05 * 0.95 / STUDIES)
    assert rate >= 0.03  # and they do not err less because nothing is ever decided


@pytest.mark.long
@pytest.mark.parametrize("stretch", [promising, whenever_undecided])
@pytest.mark.parametrize("sds", [(1.0, 1.0), (10.0, 1.0)])
def test_stretched_null_studies_of_independent_arms_do_not_either(sds: tuple[float, float], stretch: Stretch) -> None:
    rng = np.random.default_rng(21)
    rate = sum(outcome((rng.standard_normal((20, 2)) * sds).tolist(), stretch) for _ in range(STUDIES)) / STUDIES
    assert 0.02 <= rate <= 0.05 + 1.96 * math.sqrt(0.05 * 0.95 / STUDIES)


def test_a_stretched_plan_of_one_arm_is_that_of_pairs() -> None:
    values = [2.2, 0.3, 1.8, 1.9, 0.4, 2.1, 1.7, 0.9, 1.2, 2.0]
    plan = ExtendedPlan((Plan(3, 8), Plan(3, 12)), (5,))
    paired, flat = (estimate_effect(each, ABOVE, plan) for each in (values, [(value, 0.0) for value in values]))
    assert flat.evidence.supported == pytest.approx(paired.evidence.supported, rel=1e-6)
    assert flat.repeated_interval == pytest.approx(paired.repeated_interval, rel=1e-4)


@pytest.mark.parametrize("far", [0.0, 1e9])
def test_independent_arms_have_a_conditional_error_wherever_the_bound_is(far: float) -> None:
    values = [(95.0, -91.0), (94.2, -92.5), (95.3, -90.1), (94.9, -91.9), (94.4, -91.2), (94.8, -90.8)]
    plan = ExtendedPlan((Plan(3, 8), Plan(3, 12)), (4,))
    p = plan.p_of(values)(Sample.of(values), far)
    assert 0 < p < 0.05


def test_a_stretch_without_the_correction_errs_more() -> None:
    """The test above can fail: read as if the longer plan had been there from the start."""
    rng = np.random.default_rng(20)
    wrong = 0
    for _ in range(STUDIES):
        values = rng.standard_normal(16).tolist()
        looks = [Sample.of(values[:n]) for n in range(3, 17)]
        short, long = Plan(3, 8).p_of(values), Plan(3, 16).p_of(values)
        wrong += any(short(look, 0.0) <= 0.05 for look in looks[:6]) or any(long(look, 0.0) <= 0.05 for look in looks)
    assert wrong / STUDIES > 0.07
