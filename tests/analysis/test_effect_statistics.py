"""Intervals of average effects hold for searches that are as biased as samplers are, and plain means do not."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from harness.analysis.statistics.effects import (
    Contrast,
    CrossFit,
    CrossFits,
    Draws,
    EffectEstimate,
    Observations,
    SpaceMeans,
    combine,
    cross_fit,
    estimate_effect,
    estimate_without_model,
)
from harness.analysis.statistics.response_surface import AxisCoding, Columns, Floats, Ints, encode, fit_response

SEARCHES = 240
LEVELS = (2, 3, 5, 4, 5)
"""Shortcut, small kernel, kernel of one stage, depth, kernel of another stage."""
AXES = tuple(AxisCoding(count, is_ordered=count > 3) for count in LEVELS)
SPACE: Ints = np.array(list(itertools.product(*map(range, LEVELS))), np.int64)
COLUMNS = encode(SPACE, AXES)
Truth = Callable[[Ints], Floats]

GROUPS: dict[str, list[dict[int, set[int]]]] = {
    "shortcut": [{0: {1}}, {0: {0}}],
    "small kernel": [{1: {1}}, {1: {0}}],
    "largest kernel": [{2: {4}}, {2: {0}}],
    "large kernels": [{2: {3, 4}}, {2: {0, 1}}],
    "depth": [{3: {2, 3}}, {3: {0, 1}}],
    "shortcut x kernel": [{0: {1}, 2: {3, 4}}, {0: {0}, 2: {3, 4}}, {0: {1}, 2: {0, 1}}, {0: {0}, 2: {0, 1}}],
}
SIGNS = {2: np.array([1.0, -1.0]), 4: np.array([1.0, -1.0, -1.0, 1.0])}


def in_cells(levels: Ints, name: str) -> Floats:
    cells = [
        np.all([np.isin(levels[:, axis], list(chosen)) for axis, chosen in cell.items()], axis=0)
        for cell in GROUPS[name]
    ]
    return np.stack(cells, axis=1).astype(float)


def whole_space(name: str) -> SpaceMeans:
    shares = in_cells(SPACE, name)
    return SpaceMeans(((shares / shares.sum(axis=0)).T @ COLUMNS.values)[None], np.ones(1), 1.0)


SPACE_MEANS = {name: whole_space(name) for name in GROUPS}


def make_truth(rng: np.random.Generator) -> Truth:
    """Main effects, an interaction of shortcut and kernel, weaker ones of all pairs, and a term of three axes."""
    main = [rng.normal(0, 1, count) for count in LEVELS]
    pairs = {(a, b): rng.normal(0, 0.5, (LEVELS[a], LEVELS[b])) for a, b in itertools.combinations(range(5), 2)}
    triple = rng.normal(0, 0.7, (LEVELS[0], LEVELS[2], LEVELS[3]))

    def truth(levels: Ints) -> Floats:
        values = 60.0 + sum(effect[levels[:, axis]] for axis, effect in enumerate(main))
        values = values + 0.5 * levels[:, 2] - 1.5 * levels[:, 2] * (levels[:, 0] == 0)
        for (a, b), table in pairs.items():
            values = values + table[levels[:, a], levels[:, b]]
        return np.asarray(values + triple[levels[:, 0], levels[:, 2], levels[:, 3]])

    return truth


def true_effect(truth: Truth, name: str) -> float:
    shares = in_cells(SPACE, name)
    return float(SIGNS[shares.shape[1]] @ (shares * truth(SPACE)[:, None]).sum(axis=0) / shares[:, 0].sum())


def search(truth: Truth, rng: np.random.Generator, *, trials: int, share: float) -> tuple[Ints, Floats, np.ndarray]:
    """An evolution that stays close to the best five so far, the uniform draws included."""
    chosen: list[Ints] = []
    values: list[float] = []
    uniform: list[bool] = []
    for n in range(trials):
        is_drawn = sum(uniform) + 1 <= share * (n + 1)
        levels = SPACE[rng.integers(len(SPACE))].copy()
        if not is_drawn and n >= 5:
            parent = chosen[rng.choice(np.argsort(values)[-5:])]
            kept = rng.random(len(LEVELS)) > 0.25
            levels[kept] = parent[kept]
        chosen.append(levels)
        values.append(float(truth(levels[None])[0] + rng.normal(0, 0.7)))
        uniform.append(is_drawn)
    return np.array(chosen), np.array(values), np.array(uniform)


def observe(levels: Ints, values: Floats, uniform: np.ndarray) -> tuple[Observations, Ints]:
    """One observation for each configuration, and the levels of those that were drawn."""
    distinct, index = np.unique(levels, axis=0, return_inverse=True)
    means = np.bincount(index, weights=values) / np.bincount(index)
    chosen = np.full(len(distinct), np.inf)
    np.minimum.at(chosen, index[~uniform], np.flatnonzero(~uniform))
    draws = Draws(index[uniform], np.flatnonzero(uniform), np.ones(uniform.sum()))
    return Observations(encode(distinct, AXES), means, chosen, draws), distinct[np.unique(index[uniform])]


def contrast_of(name: str, levels: Ints) -> Contrast:
    members = in_cells(levels, name)
    return Contrast(SIGNS[members.shape[1]], members, SPACE_MEANS[name])


def covers(estimate: EffectEstimate | None, value: float) -> float:
    """1 or 0; NaN without an interval."""
    if estimate is None:
        return float("nan")
    low, high = estimate.interval
    return float(low <= value <= high)


def plain(levels: Ints, values: Floats, name: str) -> EffectEstimate | None:
    """Welch's interval of what a search visited, as if it were a sample of the space."""
    count = len(values)
    none = np.zeros(count, np.int64)
    everything = CrossFit(values, np.ones(count), np.zeros(count), np.arange(count), none, [])
    return estimate_without_model(contrast_of(name, levels), everything)


@pytest.mark.long
def test_intervals_of_a_biased_search_cover_the_average_effect_and_plain_means_do_not() -> None:
    """240 searches of 100 trials, a quarter of them uniform; docs/effects.md has the table of 1,200."""
    names = list(GROUPS)
    coverage = np.full((SEARCHES, len(names), 3), np.nan)
    widths = np.full((SEARCHES, len(names), 2), np.nan)
    for number in range(len(coverage)):
        rng = np.random.default_rng(number)
        truth = make_truth(rng)
        levels, values, uniform = search(truth, rng, trials=100, share=0.25)
        observed, drawn = observe(levels, values, uniform)
        fitted = cross_fit(observed)
        for k, name in enumerate(names):
            value, contrast = true_effect(truth, name), contrast_of(name, drawn)
            estimates = estimate_effect(contrast, fitted), estimate_without_model(contrast, fitted.by_draw)
            coverage[number, k] = [covers(one, value) for one in (*estimates, plain(levels, values, name))]
            widths[number, k] = [np.nan if one is None else one.interval[1] - one.effect for one in estimates]
    of_effects, half = np.nanmean(coverage, axis=0), np.nanmedian(widths, axis=0)
    assert of_effects[:, 0].min() >= 0.93, of_effects
    assert of_effects[:, 0].mean() >= 0.945, of_effects
    assert of_effects[:, 2].mean() < 0.7 and of_effects[0, 2] < 0.5, of_effects
    assert (half[:, 0] < 0.85 * half[:, 1]).all(), half


def one_search(seed: int = 3) -> tuple[Observations, Ints, Truth]:
    rng = np.random.default_rng(seed)
    truth = make_truth(rng)
    return *observe(*search(truth, rng, trials=80, share=0.3)), truth


SMALL: Ints = np.array(list(itertools.product(range(2), range(3), range(2))), np.int64)


def same(fit: CrossFit) -> CrossFits:
    return CrossFits(fit, fit)


def test_estimates_are_deterministic() -> None:
    observed, drawn, _ = one_search()
    first, second = (estimate_effect(contrast_of("shortcut", drawn), cross_fit(observed)) for _ in range(2))
    assert first is not None and second is not None
    assert (first.effect, first.interval, first.df) == (second.effect, second.interval, second.df)


def test_a_models_predictions_do_not_depend_on_what_came_of_its_own_block() -> None:
    observed, _, _ = one_search()
    fitted = cross_fit(observed).by_draw
    draws = observed.draws
    block = np.unique(draws.configuration[fitted.blocks == 4])
    block = np.setdiff1d(block, draws.configuration[fitted.blocks != 4])
    later = ~observed.is_uniform & (observed.chosen > draws.order[fitted.blocks == 4].min())
    assert block.size and later.any()
    changed = observed.values.copy()
    changed[block] += 50.0
    changed[later] -= 30.0  # what the sampler chose with the block's results in view
    again = cross_fit(Observations(observed.columns, changed, observed.chosen, draws)).by_draw
    assert np.array_equal(fitted.predictions[fitted.blocks == 4], again.predictions[fitted.blocks == 4])
    assert not np.array_equal(fitted.predictions, again.predictions)


def test_a_model_that_is_exact_leaves_no_error_and_one_that_is_wrong_no_bias() -> None:
    _, drawn, _ = one_search()
    contrast = contrast_of("shortcut", drawn)
    exact = fit_response(
        Columns(COLUMNS.values, COLUMNS.is_product), 3.0 * SPACE[:, 0].astype(float), np.ones(len(SPACE), bool)
    )
    values = 3.0 * drawn[:, 0].astype(float)
    weights, zeros, units = np.ones(len(drawn)), np.zeros(len(drawn), np.int64), np.arange(len(drawn))
    predictions = exact.predict(encode(drawn, AXES).values)
    estimate = estimate_effect(contrast, same(CrossFit(values, weights, predictions, units, zeros, [exact])))
    assert estimate is not None and estimate.effect == pytest.approx(3.0, abs=1e-3) and estimate.error < 1e-2
    shifted = type(exact)(exact.intercept + 100.0, exact.coefficients, 1.0, 1.0)  # wrong by the same everywhere
    wrong = estimate_effect(contrast, same(CrossFit(values, weights, predictions + 100.0, units, zeros, [shifted])))
    assert wrong is not None and wrong.effect == pytest.approx(estimate.effect)


def test_equal_groups_have_welchs_interval_with_the_variance_of_the_jackknife() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0, 3.0, 5.0, 9.0])
    members = np.zeros((7, 2))
    members[:4, 0] = members[4:, 1] = 1
    contrast = Contrast(np.array([1.0, -1.0]), members, SpaceMeans(np.zeros((1, 2, 1)), np.ones(1), 1.0))
    fitted = CrossFit(values, np.ones(7), np.zeros(7), np.arange(7), np.zeros(7, np.int64), [])
    estimate = estimate_without_model(contrast, fitted)
    assert estimate is not None
    first, second = values[:4].var(ddof=1) / 3, values[4:].var(ddof=1) / 2
    assert estimate.effect == pytest.approx(3.5 - 17 / 3)
    assert estimate.error**2 == pytest.approx(first + second)
    assert estimate.df == pytest.approx((first + second) ** 2 / (first**2 / 3 + second**2 / 2))


def test_draws_of_one_configuration_are_one_unit() -> None:
    """As often as all are drawn again, they tell no more of the space."""
    observed, drawn, _ = one_search()
    once = cross_fit(observed).by_configuration
    twice = CrossFit(
        np.repeat(once.values, 2),
        np.repeat(once.weights, 2),
        np.repeat(once.predictions, 2),
        np.repeat(once.units, 2),
        np.repeat(once.blocks, 2),
        once.models,
    )
    first, second = (estimate_effect(contrast_of("depth", drawn), same(fitted)) for fitted in (once, twice))
    assert first is not None and second is not None and first.interval == pytest.approx(second.interval)


def small_space(values: Floats, seed: int) -> EffectEstimate:
    """The effect of the first axis from 30 draws of 12 networks; the sampler chose some before and after."""
    rng = np.random.default_rng(seed)
    index, chosen = rng.integers(len(SMALL), size=30), rng.choice([-1.0, 15.5, np.inf], size=len(SMALL))
    members = np.stack([SMALL[:, 0] == 1, SMALL[:, 0] == 0], axis=1).astype(float)
    columns = encode(SMALL, [AxisCoding(count, is_ordered=False) for count in (2, 3, 2)])
    space = SpaceMeans((members.T @ columns.values / 6)[None], np.ones(1), 1.0)
    observed = Observations(columns, values, chosen, Draws(index, np.arange(30), np.ones(30)))
    contrast = Contrast(np.array([1.0, -1.0]), members[np.unique(index)], space)
    estimate = estimate_effect(contrast, cross_fit(observed))
    assert estimate is not None
    return estimate


@pytest.mark.long
def test_a_space_that_is_drawn_several_times_over_has_no_bias_of_the_models() -> None:
    """Exact values of 12 networks: a model that has not seen a network shrinks its effects more than others'."""
    values = (5 * SMALL[:, 0] + SMALL[:, 1]).astype(float)
    errors = [small_space(values, seed).effect - 5.0 for seed in range(200)]
    assert abs(np.mean(errors)) < 3 * np.std(errors) / 200**0.5


@pytest.mark.long
def test_intervals_of_such_a_space_contain_what_the_runs_differ_by() -> None:
    """Models that have seen a network follow the noise of its runs: with them alone, 156 of these intervals cover."""
    noise, covered = np.random.default_rng(0), 0
    for seed in range(200):
        low, high = small_space(5 * SMALL[:, 0] + SMALL[:, 1] + noise.normal(size=len(SMALL)), seed).interval
        covered += low <= 5.0 <= high
    assert covered >= 186, covered


def test_a_sum_of_effects_has_their_common_error() -> None:
    observed, drawn, _ = one_search()
    one = estimate_effect(contrast_of("shortcut", drawn), cross_fit(observed))
    assert one is not None
    same = combine([one, one], [0.5, 0.5])
    none = combine([one, one], [1.0, -1.0])
    assert same.effect == pytest.approx(one.effect) and same.error == pytest.approx(one.error, rel=0.05)
    assert none.effect == 0 and none.error == 0


def test_a_cell_with_two_configurations_has_no_interval() -> None:
    observed, drawn, _ = one_search()
    contrast = contrast_of("shortcut", drawn)
    few = Contrast(contrast.signs, contrast.members * (np.cumsum(contrast.members[:, :1], axis=0) <= 2), contrast.space)
    assert few.counts[0] == 2 and estimate_effect(few, cross_fit(observed)) is None


def test_a_sample_of_the_space_adds_its_own_error() -> None:
    observed, drawn, _ = one_search()
    fitted, contrast = cross_fit(observed), contrast_of("large kernels", drawn)
    rng = np.random.default_rng(0)
    sums = np.repeat(contrast.space.sums, 10, axis=0) / 10 + rng.normal(0, 0.01, (10, *contrast.space.sums.shape[1:]))
    sampled = Contrast(contrast.signs, contrast.members, SpaceMeans(sums, np.full(10, 0.1), 1.0))
    whole, part = estimate_effect(contrast, fitted), estimate_effect(sampled, fitted)
    assert whole is not None and part is not None
    assert whole.space_error == 0 and part.space_error > 0 and part.error > whole.error
