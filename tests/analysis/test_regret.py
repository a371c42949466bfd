"""Regret, and the errors of a table's means, on tables whose true means are known."""

import numpy as np
import pytest

from harness.analysis.regret import Judge, Quartiles
from harness.analysis.statistics.sample import Sample
from harness.search.rehearsal import LEVEL


def test_regret_is_the_distance_to_the_best_mean() -> None:
    judge = Judge(np.array([[70.0, 72.0], [80.0, 74.0], [60.0, 70.0]]), is_maximized=True)
    assert judge.best == 1
    assert [judge.regret(network) for network in (0, 1, 2)] == [6, 0, 12]
    assert judge.regret(None) == 6  # the mean of all is 71


def test_a_loss_is_better_the_lower_it_is() -> None:
    judge = Judge(np.array([[1.0, 1.2], [0.5, 0.9]]), is_maximized=False)
    assert judge.best == 1 and judge.regret(0) == pytest.approx(0.4)
    assert judge.held_out_regret(0, 1) == pytest.approx(0.3)


def test_noise_leaves_out_what_a_seed_adds_to_all_networks() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(70, 5, (400, 1)) + np.array([[0.0, 30.0, -30.0]]) + rng.normal(0, 2, (400, 3))
    judge = Judge(values, is_maximized=True)
    assert judge.noise == pytest.approx(2, abs=0.15)
    assert judge.standard_error == pytest.approx(2 / 3**0.5, abs=0.1)
    assert judge.spread == pytest.approx(5, abs=0.5)


def test_one_seed_leaves_the_errors_unknown() -> None:
    judge = Judge(np.array([[1.0], [2.0]]), is_maximized=True)
    assert judge.noise is None and judge.standard_error is None and judge.spread is None and judge.optimism is None


@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0])
def test_the_optimism_is_an_upper_bound_of_what_the_best_mean_is_too_high_by(spread: float) -> None:
    rng = np.random.default_rng(1)
    stated, real = [], []
    for _ in range(400):
        true = rng.normal(0, spread, (100, 1))
        judge = Judge(true + rng.normal(0, 1, (100, 3)), is_maximized=True)
        best = judge.best
        real.append(float(judge.values[best].mean() - true[best, 0]))
        stated.append(judge.optimism or 0.0)
    assert np.mean(real) <= np.mean(stated) <= 2 * np.mean(real) + 0.1


def test_the_regret_on_a_held_out_seed_is_unbiased_for_choices_on_the_others() -> None:
    rng = np.random.default_rng(2)
    stated, real, biased = [], [], []
    for _ in range(3000):
        true = rng.normal(0, 1, 30)
        judge = Judge(true[:, None] + rng.normal(0, 1, (30, 3)), is_maximized=True)
        choice = int(judge.values[:10, 0].argmax())  # a search of ten networks that has seen the first seed
        reference = int(judge.values[:, :2].mean(axis=1).argmax())
        stated.append(judge.held_out_regret(choice, 2))
        real.append(true[reference] - true[choice])
        biased.append(judge.regret(choice))
    error = np.std(np.subtract(stated, real)) / 3000**0.5
    assert np.mean(stated) == pytest.approx(np.mean(real), abs=4 * error)
    assert abs(np.mean(biased) - np.mean(real)) > 4 * error


def test_quartiles_of_few_values() -> None:
    assert Quartiles.of([3.0]) == (3, 3, 3)
    assert Quartiles.of([1.0, 2.0, 3.0, 4.0, 5.0]) == (2, 3, 4)


def test_intervals_of_equal_policies_exclude_zero_in_five_percent_of_rehearsals() -> None:
    # Regrets have few distinct values and a long tail: most searches find the best network or the next one.
    rng = np.random.default_rng(3)
    regrets = rng.choice([0.0, 0.0, 0.0, 0.4, 0.9, 3.5], size=(4000, 50, 2))
    intervals = [Sample.of(list(pairs[:, 1] - pairs[:, 0])).interval(LEVEL) for pairs in regrets]
    wrong = np.mean([interval is not None and not interval[0] <= 0 <= interval[1] for interval in intervals])
    assert wrong == pytest.approx(0.05, abs=0.012)
