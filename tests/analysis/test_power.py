"""The chance that a plan decides: the share of simulated studies with a verdict, before the first pair and later."""

import numpy as np
import pytest
from scipy.special import stdtrit

from harness.analysis.prospects import FUTILE
from harness.analysis.statistics import Plan, Verdict, estimate_effect, judge, seeds_to_decide
from harness.analysis.statistics.power import decision_chances, draw_predictive, pairs_for_power, predicted_chances
from harness.config.expectation import Expectation

ABOVE = Expectation.parse("> 0")


def decided_by(
    plan: Plan, expectation: Expectation, effect: float, n: int, ignore: float | None, studies: int
) -> float:
    """The share of simulated studies with a verdict after n pairs, judged as claims are."""
    rng = np.random.default_rng(7)
    verdicts = [
        judge(estimate_effect(list(rng.normal(effect, 1, n)), expectation, plan, ignore=ignore)) for _ in range(studies)
    ]
    return sum(verdict != Verdict.UNDECIDED for verdict in verdicts) / studies


@pytest.mark.parametrize(
    ("text", "effect", "ignore"),
    [("> 0", 1.2, None), ("> 0", 0.0, None), ("< -1", -2.0, None), ("> 0", 0.1, 1.5), ("within 1", 0.2, None)],
)
def test_chances_are_the_shares_of_studies_that_come_to_a_verdict(
    text: str, effect: float, ignore: float | None
) -> None:
    plan, expectation = Plan(3, 8), Expectation.parse(text)
    chances = decision_chances(plan, expectation, effect, 1.0, ignore=ignore)
    assert chances.pairs == tuple(plan.looks)
    for n in (4, 8):
        share = decided_by(plan, expectation, effect, n, ignore, 1500)
        assert chances.chances[n - 3] == pytest.approx(share, abs=0.04)


def test_without_an_effect_the_chance_is_the_error_rate() -> None:
    assert decision_chances(Plan(3, 8), ABOVE, 0.0, 2.0).chance == pytest.approx(0.05, abs=0.012)


def test_predictions_agree_with_what_then_happens() -> None:
    """Of many studies whose chance is stated after four pairs, as many are decided as was stated on average."""
    rng, plan, stated, decided = np.random.default_rng(3), Plan(3, 8), [], []
    for _ in range(250):
        sd = float(np.exp(rng.uniform(-1, 1)))
        values = list(rng.normal(rng.uniform(-3, 3), sd, 8))
        if judge(estimate_effect(values[:4], ABOVE, plan)) != Verdict.UNDECIDED:
            continue
        stated.append(predicted_chances(plan, ABOVE, values[:4]).chance)
        decided.append(judge(estimate_effect(values, ABOVE, plan)) != Verdict.UNDECIDED)
    assert len(stated) > 100
    assert np.mean(stated) == pytest.approx(np.mean(decided), abs=0.08)


def test_a_prediction_does_not_depend_on_where_zero_is() -> None:
    """Sums of squares are taken about the mean, so that values far from zero lose no digits."""
    values = [0.4, -0.3, 1.1, 0.9]
    near = predicted_chances(Plan(3, 8), ABOVE, values)
    far = predicted_chances(Plan(3, 8), Expectation.parse("> 10000000"), [1e7 + value for value in values])
    assert far.chances == pytest.approx(near.chances, abs=0.01)


def test_predicted_values_are_as_spread_as_students_distribution() -> None:
    values = [1.0, 2.0, 4.0, 5.0]
    drawn = draw_predictive(values, 1)[:, 0]
    scale = np.std(values, ddof=1) * np.sqrt(1 + 1 / 4)
    assert np.median(drawn) == pytest.approx(3.0, abs=0.15)
    assert np.quantile(drawn, 0.75) - np.quantile(drawn, 0.25) == pytest.approx(2 * 0.765 * scale, rel=0.1)


def test_the_pairs_for_a_power_have_it_and_one_fewer_has_not() -> None:
    pairs = pairs_for_power(3, ABOVE, 1.0, 1.0, alpha=0.05, power=0.8, most=40)
    assert pairs is not None
    n, chances = pairs
    assert chances.chance >= 0.8 > decision_chances(Plan(3, n - 1), ABOVE, 1.0, 1.0).chance
    estimate = estimate_effect([0.0, 1.0, 2.0], ABOVE, Plan(3, 3))  # of effect 1 and spread 1
    single = seeds_to_decide(estimate, ABOVE, 0.05)
    assert single is not None and single <= n <= single + 3  # looking earlier costs a little
    assert 3 <= chances.expected_pairs() < n


@pytest.mark.long
def test_longer_plans_and_larger_effects_have_more_chance_without_the_noise_of_the_simulation() -> None:
    """All plans and effects are simulated with the same random numbers, so that the fewest pairs can be searched."""
    by_pairs = [decision_chances(Plan(3, most), ABOVE, 0.3, 1.0).chance for most in range(8, 60)]
    by_effect = [decision_chances(Plan(3, 8), ABOVE, effect, 1.0).chance for effect in np.arange(0.3, 2, 0.02)]
    assert by_pairs == sorted(by_pairs) and by_effect == sorted(by_effect)


def test_more_pairs_than_allowed_are_none() -> None:
    assert pairs_for_power(3, ABOVE, 0.01, 1.0, alpha=0.05, power=0.8, most=20) is None


def test_after_the_last_look_there_is_no_chance() -> None:
    chances = predicted_chances(Plan(2, 3), ABOVE, [1.0, 2.0, 0.5])
    assert chances.chance == 0 and chances.expected_pairs(3) == 0


def first_verdict(values: np.ndarray, plan: Plan, bounds: dict[int, float], futile: float) -> tuple[bool, int]:
    """Whether a study with these pairs comes to a verdict, and after how many it ends, by a verdict or as futile."""
    for n in plan.looks:
        seen = values[:n]
        if abs(seen.mean()) * np.sqrt(n) / seen.std(ddof=1) > bounds[n]:
            return True, n
        if n < plan.most and futile and predicted_chances(plan, ABOVE, list(seen)).chance < futile:
            return False, n
    return False, plan.most


@pytest.mark.long
@pytest.mark.parametrize(("effect", "saved"), [(0.0, 3.0), (1.0, 0.5), (1.7, 0.0)])
def test_to_give_up_what_is_unlikely_costs_no_power(effect: float, saved: float) -> None:
    """Simulated studies with and without the rule of `analysis.prospects`; `saved` pairs at least on average."""
    plan, rng = Plan(3, 8), np.random.default_rng(5)
    bounds = {n: float(-stdtrit(n - 1, plan.level(n) / 2)) for n in plan.looks}
    studies = [rng.normal(effect, 1, plan.most) for _ in range(200)]
    ends = {futile: [first_verdict(values, plan, bounds, futile) for values in studies] for futile in (0.0, FUTILE)}
    power = {futile: np.mean([is_decided for is_decided, _ in end]) for futile, end in ends.items()}
    pairs = {futile: np.mean([n for _, n in end]) for futile, end in ends.items()}
    assert power[FUTILE] >= power[0.0] - 0.01
    assert pairs[FUTILE] <= pairs[0.0] - saved
