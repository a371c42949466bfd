"""Racing finds the winner of the full study with fewer runs, and its bounds and simulated rates are what they state."""

import numpy as np
import pytest

from harness.analysis.statistics.racing import (
    RaceRule,
    simulate_races,
)

RULE = RaceRule(3)


def truths(kind: str, studies: int, configurations: int) -> np.ndarray:
    """True values with a standard deviation of about 1 where it matters."""
    generator = np.random.default_rng(1)
    normal = generator.standard_normal((studies, configurations))
    if kind == "tail below":
        return normal - generator.exponential(1.0, normal.shape)
    if kind == "many bad":
        return np.where(generator.random(normal.shape) < 0.4, -5 - generator.exponential(8.0, normal.shape), normal)
    return normal


@pytest.mark.parametrize(
    ("kind", "noise", "other", "runs"),
    [
        ("normal", 0.3, 0.05, 0.42),
        ("tail below", 0.5, 0.06, 0.46),
        ("many bad", 0.5, 0.06, 0.48),
        ("normal", 1.0, 0.1, 0.7),
    ],
)
def test_racing_has_the_winner_of_all_seeds_for_fewer_runs(kind: str, noise: float, other: float, runs: float) -> None:
    rates = simulate_races(truths(kind, 100, 60), noise, RULE, seeds=1)
    print(kind, noise, rates)
    assert rates.other_winner <= other
    assert 1 / 3 < rates.runs <= runs
    assert rates.loss <= rates.loss_of_all + 0.05 and rates.loss < rates.loss_of_first
    assert rates.coverage >= 0.8
