"""Racing: which configurations deserve another seed, and which of them is the best, from few noisy values of each.

A value of configuration i with seed s is modelled as `theta_i + b_s + noise`, where larger values are better:

- **Seeds are paired**: b_s, what a seed adds to all configurations alike, is estimated and subtracted. Values are as of
  the reference seed (the first column), whose b is 0.
- **The best of noisy values was lucky, too**: true values are shrunk towards the median (empirical Bayes), with the
  spread above the median alone, since a tail of bad networks does not describe the good ones. The shrinkage and its own
  error are Morris' (1983, JASA 78: 47-55).
- **Further seeds are given by outcome**: the first value of a raced configuration is too high on average. So the effect
  of a further seed, and the noise, are estimated from how its values differ from their predictions given the earlier
  values of the same configurations (generalized least squares; one-step prediction errors), not from differences.
- **The noise is unknown**: bounds have quantiles of Student's t, whose degrees of freedom are the number of further
  values less the number of further seeds.

A configuration is a rival while its optimistic bound is above the leader's pessimistic bound (as in successive
elimination, Even-Dar et al. 2006); the leader is the one with the largest pessimistic bound, and so is the winner.
Arrays of values have the shape (..., configurations, seeds), with NaN for what was not trained; leading axes are
independent tables. `tests/analysis/test_racing.py` has the rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FIRST = 4
"""Number of configurations that get a further seed while the noise is not known."""
LEAST_DEGREES = FIRST - 1
"""Degrees of freedom from which on the noise counts as known."""
ROUND_SHARE = 4
"""One in this many of the rivals gets a seed in a round, and two at least."""
_STEPS = 3
"""Steps of the fixed-point iteration of effects of seeds, noise and spread."""


@dataclass(frozen=True, slots=True)
class RaceRule:
    """The rule of a race."""

    most: int
    """Number of seeds that a configuration gets at most."""
    level: float = 0.95
    """Confidence of each bound of a configuration, one-sided."""


class RaceFit(NamedTuple):
    """The model, fitted to tables of values; the first two have the shape (..., configurations), the others (...)."""

    estimate: Floats
    """The estimated true value of each configuration, as of the reference seed."""
    error: Floats
    """Its standard error."""
    noise: Floats
    """Standard deviation of the noise of a value; NaN if no configuration has two."""
    spread: Floats
    """Standard deviation of the true values, as far as those above the median show it."""
    degrees: Floats
    """Degrees of freedom of the noise."""


class RaceBounds(NamedTuple):
    """The bounds of each configuration; NaN if the noise is not known."""

    low: Floats
    high: Floats


class RaceState(NamedTuple):
    """What follows from the values of one table."""

    leader: int
    """The configuration with the largest pessimistic bound, or with the best mean where the noise is not known."""
    rivals: tuple[int, ...]
    """The configurations that are not ruled out, most promising first."""
    due: tuple[int, ...]
    """The configurations that get another seed in the next round; empty at the end of the race."""


def fit_race(values: Floats) -> RaceFit:
    """Fit the model. Each configuration must have a value; the reference seed should be one that most of them have."""
    present = ~np.isnan(values)
    mask = present.astype(np.float64)
    count = mask.sum(-1)
    used = np.asarray(present.any(-2))
    degrees = np.maximum((count - 1).sum(-1) - (used.sum(-1) - 1), 0.0)
    center = np.median(np.where(present, values, 0.0).sum(-1) / count, axis=-1)
    ratio = np.full(center.shape, 1e6)
    first = np.argmax(present, axis=-1)[..., None]
    for _ in range(_STEPS):
        weight = ratio[..., None] / (1 + count * ratio[..., None])
        centered = np.where(present, values - center[..., None, None], 0.0)
        effects = _seed_effects(centered, mask, weight, used)
        rest = np.where(present, centered - effects[..., None, :], 0.0)
        total = rest.sum(-1)
        start = np.take_along_axis(rest, first, axis=-1)[..., 0]
        squares = (rest**2).sum(-1) - weight * total**2 - start**2 / (1 + ratio)[..., None]
        noise2 = np.maximum(squares.sum(-1), 0.0) / np.maximum(degrees, 1.0)
        means = center[..., None] + total / count
        center = np.median(means, axis=-1)
        variance = noise2[..., None] / count
        above = means >= center[..., None]
        size = above.sum(-1)
        spread2 = np.where(above, (means - center[..., None]) ** 2 - variance, 0.0).sum(-1) / size
        spread2 = np.maximum(spread2, 0.0)
        ratio = np.clip(spread2 / np.maximum(noise2, 1e-300), 1e-3, 1e9)
    keep = np.clip((size - 3) / np.maximum(size - 1, 1), 0.0, 1.0)[..., None]
    pull = keep * variance / np.maximum(variance + spread2[..., None], 1e-300)
    offset = means - center[..., None]
    own = 2 / np.maximum(size - 3, 1)[..., None] * (pull * offset) ** 2
    known = degrees > 0
    return RaceFit(
        means - pull * offset,
        np.sqrt(variance * (1 - pull) + own),
        np.where(known, np.sqrt(noise2), np.nan),
        np.sqrt(spread2),
        degrees,
    )


def _seed_effects(centered: Floats, mask: Floats, weight: Floats, used: npt.NDArray[np.bool_]) -> Floats:
    """The effects of the seeds, that of the first column being 0 (generalized least squares; shape (..., seeds))."""
    seeds = mask.shape[-1]
    diagonal = np.arange(seeds)
    matrix = -np.swapaxes(mask * weight[..., None], -1, -2) @ mask
    matrix[..., diagonal, diagonal] += mask.sum(-2) + ~used
    right = centered.sum(-2) - (mask * (weight * centered.sum(-1))[..., None]).sum(-2)
    matrix[..., 0, :] = matrix[..., :, 0] = 0.0
    matrix[..., 0, 0], right[..., 0] = 1.0, 0.0
    return np.where(used, np.linalg.solve(matrix, right[..., None])[..., 0], 0.0)


def race_bounds(fit: RaceFit, level: float) -> RaceBounds:
    """The one-sided bounds of each configuration."""
    from scipy.special import stdtrit

    quantile = np.where(fit.degrees > 0, stdtrit(np.maximum(fit.degrees, 1.0), level), np.nan)[..., None]
    return RaceBounds(fit.estimate - quantile * fit.error, fit.estimate + quantile * fit.error)


def race_state(values: Floats, rule: RaceRule, tried: Sequence[int] | None = None) -> RaceState:
    """The leader of a table (configurations, seeds), its rivals, and who gets another seed in the next round.

    `tried` is the number of seeds of each configuration, those that have no value included; by default, those that
    have one. The answer depends on nothing else, so any number of workers may train the seeds of a round.
    """
    count = (~np.isnan(values)).sum(-1)
    given = count if tried is None else np.asarray(tried)
    fit = fit_race(values)
    return _state(fit.estimate, race_bounds(fit, rule.level), float(fit.degrees), given, rule)


def _state(
    estimate: Floats, bounds: RaceBounds, degrees: float, given: npt.NDArray[np.int_], rule: RaceRule
) -> RaceState:
    free = given < rule.most
    if degrees < LEAST_DEGREES:
        order = [int(i) for i in np.argsort(-estimate, kind="stable")]
        due = tuple(i for i in order if free[i])[:FIRST] if len(order) > 1 else ()
        if due or degrees == 0:
            return RaceState(order[0], tuple(order[1:]), due)
    leader = int(np.argmax(bounds.low))
    rivals = [int(i) for i in np.argsort(-bounds.high, kind="stable") if bounds.high[i] > bounds.low[leader]]
    rivals = [i for i in rivals if i != leader]
    open_ones = [i for i in rivals if free[i]]
    if not open_ones:
        return RaceState(leader, tuple(rivals), (leader,) if rivals and free[leader] else ())
    size = max(2, math.ceil(len(open_ones) / ROUND_SHARE))
    first = [leader] if free[leader] and given[leader] <= given[open_ones[0]] else []
    return RaceState(leader, tuple(rivals), tuple([*first, *open_ones][:size]))


class RaceRates(NamedTuple):
    """Rates in simulated studies, all of which were raced, and also trained with all seeds of each configuration."""

    studies: int
    other_winner: float
    """Share of the studies in which racing has another winner than all seeds of each configuration."""
    standard_error: float
    """Monte Carlo standard error of that share."""
    runs: float
    """Share of the runs that racing used."""
    loss: float
    """Mean of the best true value less that of racing's winner."""
    loss_of_all: float
    """The same with all seeds of each configuration."""
    loss_of_first: float
    """The same with the first seeds of each configuration alone."""
    coverage: float
    """Share of the studies in which the true value of the winner is not below its pessimistic bound."""


def simulate_races(truth: Floats, noise: float, rule: RaceRule, *, seeds: int, seed: int = 0) -> RaceRates:
    """Race studies with these true values (studies, configurations), with `seeds` seeds of each at the start.

    Values have normal noise; what a seed adds to all configurations changes no decision, and is left out.
    """
    studies, configurations = truth.shape
    generator = np.random.default_rng(seed)
    full = truth[..., None] + noise * generator.standard_normal((studies, configurations, rule.most))
    values = np.full_like(full, np.nan)
    values[..., :seeds] = full[..., :seeds]
    active = np.arange(studies)
    winners, lows = np.zeros(studies, dtype=int), np.zeros(studies)
    while len(active):
        table = values[active]
        given = (~np.isnan(table)).sum(-1)
        fit = fit_race(table)
        bounds = race_bounds(fit, rule.level)
        going = np.zeros(len(active), dtype=bool)
        for j, i in enumerate(active):
            of_one = RaceBounds(bounds.low[j], bounds.high[j])
            state = _state(fit.estimate[j], of_one, float(fit.degrees[j]), given[j], rule)
            going[j] = bool(state.due)
            winners[i], lows[i] = state.leader, of_one.low[state.leader]
            for k in state.due:
                values[i, k, given[j, k]] = full[i, k, given[j, k]]
        active = active[going]
    each = np.arange(studies)
    of_all, of_first = full.mean(-1).argmax(-1), full[..., :seeds].mean(-1).argmax(-1)
    other = float((winners != of_all).mean())
    adjusted = (other * studies + 1) / (studies + 2)  # 0 of n is not known to be 0
    best = truth.max(-1)
    losses = [float((best - truth[each, chosen]).mean()) for chosen in (winners, of_all, of_first)]
    return RaceRates(
        studies=studies,
        other_winner=other,
        standard_error=math.sqrt(adjusted * (1 - adjusted) / studies),
        runs=float((~np.isnan(values)).sum() / full.size),
        loss=losses[0],
        loss_of_all=losses[1],
        loss_of_first=losses[2],
        coverage=float((truth[each, winners] >= lows).mean()),
    )
