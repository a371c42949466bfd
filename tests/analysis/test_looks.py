"""Repeated looks: the levels against the literature, the error rate in simulated studies."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from claim_plans import ONE_LOOK, PLAN, PLANS, verdict_of
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from harness.analysis.statistics import Plan, Verdict
from harness.analysis.statistics.calibration import simulate_verdicts
from harness.analysis.statistics.repeated_t import nominal_levels
from harness.analysis.statistics.sequential import EXPONENT

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
    levels = nominal_levels(200, np.array([spent]))[0]
    assert levels == pytest.approx(brownian_levels(range(200, 204), spent), rel=0.02)


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

Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]

NOISES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy": lambda rng, shape: rng.standard_t(3, shape) / math.sqrt(3),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
    "skewed arms": lambda rng, shape: (rng.exponential(size=shape) - rng.exponential(size=shape)) / math.sqrt(2),
    "steps": lambda rng, shape: np.round(2 * rng.standard_normal(shape)) / 2,
}
"""Distributions of the differences between paired runs, with mean 0 and standard deviation 1 (`steps` 1.01).

`heavy` is Student's t with 3 degrees of freedom; `skewed` are exponential differences, `skewed arms` differences of two
exponential values, and `steps` normal ones that are rounded to steps of half a standard deviation.
"""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Shares of the studies with each verdict, and the mean number of pairs of a study."""

    supported: float
    contradicted: float
    mean_pairs: float


def simulate_decisions(plan: Plan, studies: int, seed: int, *, effect: float = 0.0, noise: str = "normal") -> Decisions:
    """Verdicts on `> 0` in studies with this true effect, in standard deviations; deterministic for a seed."""
    verdicts, pairs = simulate_verdicts(NOISES[noise](np.random.default_rng(seed), (studies, plan.most)) + effect, plan)
    return Decisions(float(np.mean(verdicts > 0)), float(np.mean(verdicts < 0)), float(pairs.mean()))


def false_positive_rate(plan: Plan, studies: int, seed: int, *, noise: str = "normal") -> float:
    """The share of studies without an effect that reach any verdict on `> 0`."""
    decisions = simulate_decisions(plan, studies, seed, noise=noise)
    return decisions.supported + decisions.contradicted


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
    decisions = simulate_decisions(PLAN, 4000, seed=4, effect=2.0)
    assert decisions.supported > 0.95 and decisions.contradicted < 0.001
    assert decisions.mean_pairs < 6
    assert simulate_decisions(PLAN, 4000, seed=4, effect=1.0).supported < decisions.supported
    assert simulate_decisions(PLAN, 4000, seed=4, effect=-2.0).contradicted > 0.95
    assert simulate_decisions(PLAN, 4000, seed=4, effect=2.0) == decisions


@pytest.mark.parametrize("noise", NOISES)
def test_simulated_differences_have_no_mean_and_unit_spread(noise: str) -> None:
    values = NOISES[noise](np.random.default_rng(5), (1000, 400))
    assert float(values.mean()) == pytest.approx(0, abs=0.01)
    assert float(values.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("noise", ["normal", "steps"])
def test_simulated_studies_are_judged_as_real_ones(noise: str) -> None:
    values = NOISES[noise](np.random.default_rng(6), (60, 8)) + 0.8
    verdicts = [verdict_of(row.tolist(), "> 0", PLAN) for row in values]
    decisions = simulate_decisions(PLAN, 60, seed=6, effect=0.8, noise=noise)
    assert verdicts.count(Verdict.SUPPORTED) == round(60 * decisions.supported) > 10
    assert verdicts.count(Verdict.CONTRADICTED) == round(60 * decisions.contradicted)
