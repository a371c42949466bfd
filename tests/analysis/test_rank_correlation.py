"""Rank correlations: by hand, against SciPy, and how often their intervals contain the true value."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.analysis.statistics.rank_correlation import (
    LEAST_CONFIGURATIONS,
    MOST_CONFIGURATIONS,
    RankCorrelation,
    difference_interval,
    rank_correlation,
)


def test_tau_by_hand() -> None:
    # of the six pairs, five are ordered alike, and one differently
    assert rank_correlation(([1, 2, 3, 4], [1, 2, 4, 3])).tau == pytest.approx(4 / 6)
    # one pair of x is tied: (4 alike - 1 not) / sqrt(5 * 6)
    assert rank_correlation(([1, 1, 3, 4], [1, 2, 4, 3])).tau == pytest.approx(3 / math.sqrt(5 * 6))


@pytest.mark.parametrize("levels", [3, 10, 10_000])
def test_tau_is_that_of_scipy_also_with_ties(levels: int) -> None:
    generator = np.random.default_rng(levels)
    for n in (2, 5, 17, 60):
        x, y = generator.integers(0, levels, (2, n))
        expected = stats.kendalltau(x, y, variant="b").statistic
        tau = rank_correlation((x, y)).tau
        assert (tau is None and math.isnan(expected)) or tau == pytest.approx(expected)


def test_the_mean_of_several_series_is_that_of_their_correlations() -> None:
    generator = np.random.default_rng(1)
    series = [tuple(generator.normal(size=(2, 12))) for _ in range(3)]
    single = [rank_correlation(pair).tau or 0.0 for pair in series]
    assert rank_correlation(*series).tau == pytest.approx(np.mean(single))


def test_equal_calls_have_equal_intervals_and_a_large_sample_is_cut() -> None:
    x, y = np.random.default_rng(2).normal(size=(2, MOST_CONFIGURATIONS + 40))
    first, second = rank_correlation((x, y)), rank_correlation((x, y))
    assert first == second and first.n == MOST_CONFIGURATIONS
    assert first.interval is not None and first.interval[0] < 0 < first.interval[1] and not first.is_positive


@pytest.mark.parametrize("n", [0, 1, 2, LEAST_CONFIGURATIONS - 1])
def test_no_statement_is_made_about_few_configurations(n: int) -> None:
    result = rank_correlation((range(n), range(n)))
    assert result == RankCorrelation(1.0 if n > 1 else None, None, n)
    assert not result.is_positive
    if n > 1:
        assert difference_interval([(range(n), range(n))], [(range(n), range(n))]) is None


def test_series_without_two_different_values_have_no_correlation() -> None:
    assert rank_correlation(([1.0] * 20, range(20))) == RankCorrelation(None, None, 20)


def test_where_all_pairs_agree_the_bound_is_exact() -> None:
    """The probability that n // 2 separate pairs all agree, if the true value were the bound, is 2.5 %."""
    for n in (10, 11, 40):
        agreed, reversed_ = rank_correlation((range(n), range(n))), rank_correlation((range(n), range(n, 0, -1)))
        assert agreed.interval is not None and reversed_.interval == (-1.0, -agreed.interval[0])
        assert ((1 + agreed.interval[0]) / 2) ** (n // 2) == pytest.approx(0.025) and agreed.interval[1] == 1.0
    assert not rank_correlation((range(10), range(10))).is_positive  # ten cannot exclude chance by this bound
    assert rank_correlation((range(12), range(12))).is_positive


@pytest.mark.parametrize(
    ("n", "correlation", "repetitions"),
    [
        (LEAST_CONFIGURATIONS, 0.5, 150),
        *(
            pytest.param(n, correlation, 400, marks=pytest.mark.long)
            for n in (LEAST_CONFIGURATIONS, 16, 40)
            for correlation in (0.0, 0.5, 0.95)
        ),
    ],
)
def test_at_least_93_of_100_intervals_contain_the_true_value(n: int, correlation: float, repetitions: int) -> None:
    true = 2 / math.pi * math.asin(correlation)
    generator = np.random.default_rng([n, int(100 * correlation)])
    held = 0
    for _ in range(repetitions):
        x, noise = generator.normal(size=(2, n))
        interval = rank_correlation((x, correlation * x + math.sqrt(1 - correlation**2) * noise)).interval
        assert interval is not None
        held += interval[0] <= true <= interval[1]
    assert held / repetitions > 0.93 - 2 * math.sqrt(0.95 * 0.05 / repetitions)


@pytest.mark.long
@pytest.mark.parametrize("n", [LEAST_CONFIGURATIONS, 20])
@pytest.mark.parametrize(("noise", "levels"), [(0.3, None), (1.0, None), (1.0, 6)])
def test_the_intervals_of_a_rung_and_below_its_ceiling_contain_the_true_values(
    n: int, noise: float, levels: int | None
) -> None:
    """As `trust_rungs` computes them: a seed against the mean of the others, averaged over three seeds.

    Early values have further noise of their own; with `levels`, accuracies are of so few images that many are equal.
    """
    generator = np.random.default_rng([n, int(10 * noise), levels or 0])

    def sample(size: int) -> tuple[Any, Any]:
        quality = generator.normal(size=(size, 1))
        final = quality + generator.normal(0, noise, (size, 3))
        early = 0.7 * final + generator.normal(0, 0.7, (size, 3))
        return (early, final) if levels is None else (np.round(early * levels / 4), np.round(final * levels / 4))

    def series(first: Any, last: Any) -> list[Any]:
        others = [[other for other in range(3) if other != seed] for seed in range(3)]
        return [(first[:, seed], last[:, rest].mean(axis=1)) for seed, rest in enumerate(others)]

    def taus(early: Any, final: Any) -> tuple[float, float]:
        def mean(first: Any) -> float:
            return float(np.mean([stats.kendalltau(*pair).statistic for pair in series(first, final)]))

        return mean(early), mean(final)

    true = np.mean([taus(*sample(400)) for _ in range(20)], axis=0)
    held, repetitions = np.zeros(3), 300
    for _ in range(repetitions):
        early, final = sample(n)
        rung, ceiling = series(early, final), series(final, final)
        intervals = [
            *(rank_correlation(*each).interval for each in (rung, ceiling)),
            difference_interval(ceiling, rung),
        ]
        for i, (value, interval) in enumerate(zip((*true, true[1] - true[0]), intervals, strict=True)):
            assert interval is not None
            held[i] += interval[0] <= value <= interval[1]
    assert (held / repetitions > 0.92 - 2 * math.sqrt(0.95 * 0.05 / repetitions)).all(), held / repetitions


def test_the_interval_of_a_difference_contains_the_true_difference() -> None:
    generator, held, repetitions = np.random.default_rng(3), 0, 120
    true = 2 / math.pi * (math.asin(0.9) - math.asin(0.5))
    for _ in range(repetitions):
        quality, a, b = generator.normal(size=(3, 25))
        strong, weak = ((quality, r * quality + math.sqrt(1 - r * r) * noise) for r, noise in ((0.9, a), (0.5, b)))
        interval = difference_interval([strong], [weak])
        assert interval is not None
        held += interval[0] <= true <= interval[1]
    assert held / repetitions > 0.93 - 2 * math.sqrt(0.95 * 0.05 / repetitions)
