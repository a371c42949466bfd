"""Pairs of networks x validation sets: components of variance, and what a shared validation set does to coverage."""

import math

import numpy as np
import pytest

from harness.analysis.statistics.calibration import (
    Components,
    Table,
    decompose,
    drawn_studies,
    expected_studies,
    shared_coverage_interval,
)

KNOWN = [Components(1.0, 0.0, 0.5), Components(1.0, 1.0, 0.5), Components(0.0, 2.0, 1.0), Components(4.0, 0.2, 0.0)]


def simulated(rng: np.random.Generator, components: Components, pairs: int, sets: int, effect: float = 3.0) -> Table:
    pair, of_set, rest = (math.sqrt(component) for component in components)
    return (
        effect
        + pair * rng.standard_normal((pairs, 1))
        + of_set * rng.standard_normal((1, sets))
        + rest * rng.standard_normal((pairs, sets))
    )


@pytest.mark.parametrize("components", KNOWN)
def test_the_components_of_a_table_are_found(components: Components) -> None:
    crossed = decompose(simulated(np.random.default_rng(0), components, 300, 300))
    assert crossed.components == pytest.approx(components, rel=0.2, abs=0.02)
    assert crossed.effect == pytest.approx(3, abs=4 * crossed.error())
    assert (crossed.p < 0.001) == (components.set > 0)


@pytest.mark.parametrize("components", KNOWN)
def test_the_error_of_the_mean_effect_is_that_of_many_tables(components: Components) -> None:
    rng = np.random.default_rng(1)
    tables = [decompose(simulated(rng, components, 8, 12)) for _ in range(2000)]
    assert np.std([table.effect for table in tables]) == pytest.approx(
        math.sqrt(components.pair / 8 + components.set / 12 + components.rest / 96), rel=0.06
    )
    assert np.mean([table.error() ** 2 for table in tables]) == pytest.approx(
        components.pair / 8 + components.set / 12 + components.rest / 96, rel=0.1
    )


def test_sets_without_an_effect_are_called_significant_as_often_as_allowed() -> None:
    rng = np.random.default_rng(2)
    ps = [decompose(simulated(rng, Components(1.0, 0.0, 0.5), 6, 10)).p for _ in range(2000)]
    assert np.mean(np.array(ps) < 0.05) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("components", KNOWN)
@pytest.mark.parametrize("n", [3, 8])
def test_the_coverage_expected_is_the_coverage_of_simulated_studies(components: Components, n: int) -> None:
    """Repeated studies with newly drawn networks and images, in both schemes, against the effect over all."""
    rng, predicted = np.random.default_rng(3), expected_studies(components, n)
    tables = [simulated(rng, components, n, n) for _ in range(8000)]
    for scheme, values in (
        (predicted.shared, np.array([table[:, 0] for table in tables])),
        (predicted.own, np.array([np.diagonal(table) for table in tables])),
    ):
        errors = values.std(axis=1, ddof=1) / math.sqrt(n)
        half = {3: 4.302653, 8: 2.364624}[n] * errors
        assert scheme.coverage == pytest.approx(np.mean(np.abs(values.mean(axis=1) - 3) <= half), abs=0.012)
        assert scheme.sd == pytest.approx(values.mean(axis=1).std(), rel=0.04)
        assert scheme.error == pytest.approx(math.sqrt((errors**2).mean()), rel=0.04)
    assert (predicted.shared.coverage < 0.945) == (components.set > 0)


@pytest.mark.parametrize("components", KNOWN)
def test_studies_drawn_from_small_tables_are_not_biased(components: Components) -> None:
    """8 pairs and 20 sets are a sample; variances about the effect over all must not shrink with it."""
    rng, predicted = np.random.default_rng(4), expected_studies(components, 4)
    drawn = [drawn_studies(simulated(rng, components, 8, 20), 4, studies=100, seed=i) for i in range(1500)]
    for name in ("shared", "own"):
        expected, schemes = getattr(predicted, name), [getattr(studies, name) for studies in drawn]
        assert np.mean([scheme.sd**2 for scheme in schemes]) == pytest.approx(expected.sd**2, rel=0.08)
        assert np.mean([scheme.error**2 for scheme in schemes]) == pytest.approx(expected.error**2, rel=0.08)
        assert np.mean([scheme.coverage for scheme in schemes]) == pytest.approx(expected.coverage, abs=0.02)


@pytest.mark.parametrize("components", [Components(1.0, 0.3, 0.5), Components(1.0, 0.0, 0.5)])
def test_the_interval_of_a_coverage_holds_it(components: Components) -> None:
    rng, true = np.random.default_rng(5), expected_studies(components, 8).shared.coverage
    intervals = [shared_coverage_interval(decompose(simulated(rng, components, 12, 30)), 8) for _ in range(400)]
    held = np.mean([low - 1e-9 <= true <= high + 1e-9 for low, high in intervals])
    assert held >= 0.92


def test_a_table_without_a_spread_is_no_error() -> None:
    flat = decompose(np.ones((3, 4)))
    assert flat.components == (0, 0, 0) and flat.p == 1
    assert expected_studies(flat.components, 3).shared.coverage == pytest.approx(0.95)
    by_set = decompose(np.tile(np.arange(4.0), (3, 1)))
    assert by_set.components.set > 0 and by_set.p == 0
    assert expected_studies(by_set.components, 3).shared.coverage == 0
    assert shared_coverage_interval(by_set, 3) == (0, 0)
    assert shared_coverage_interval(flat, 3) == pytest.approx((0.95, 0.95))


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_too_small_a_table_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="2 pairs on 2 validation sets are needed"):
        decompose(np.zeros(shape))


@pytest.mark.parametrize("n", [1, 5])
def test_larger_studies_than_there_are_pairs_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="from 2 pairs up to the 4 there are"):
        drawn_studies(np.zeros((4, 9)), n, studies=10, seed=0)
