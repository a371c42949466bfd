"""Average effects over a search space, from a search that visited some regions more often than others.

The estimate is that of prediction-powered inference (Angelopoulos et al. 2023, Science 382, 669-674) in its
cross-fitted form (Zrnic & Candes 2024, PNAS 121, e2322083121):

- **Cells.** An effect is a contrast of the means of cells: the configurations with a level and those with another, or
  the four combinations of two axes. Only the configurations whose counterparts in all other cells exist take part, so
  that the rest of the configuration has the same distribution in every cell; where this is a matter of degree, because
  a level adds axes of its own, they have the product of the other cells' shares as weights (overlap weights, Li, Morgan
  & Zaslavsky 2018, JASA 113, 390-400).
- **Adjustment.** A model that is fitted to all of the search predicts each uniform draw, and the mean of its cell over
  the space. The draw's value less the first, plus the second, has the cell's true mean as its expectation whatever the
  model is, since the draw is independent of the model; a good model makes it vary less.
- **Independence.** The draws are split into blocks in the order of the search. The model of a block is fitted to the
  other draws, and to those choices of the sampler that were made before the block: later ones depend on its results.
  With models fitted to all choices (ordinary cross-fitting), predictions are better close to the draws that turned out
  well, and the adjustment is no longer of expectation 0, though in simulations it mattered little.
- **Interval.** Welch's t interval of the adjusted values, its variance being that of the jackknife (HC3, MacKinnon &
  White 1985, Journal of Econometrics 29, 305-325) with the configuration as the unit: a small space has several draws
  of one, and the sampler may have chosen it, too. So for the variance alone, models are used that have seen no value of
  the configuration; the others would follow the noise of its runs, which is no part of the residuals then. The mean
  over the space is itself taken over a large sample; the variance of that is added.

With every configuration's own mean as the value, intervals contain the choice of configurations and what the runs
differ by otherwise; what all configurations share, such as the images of a seed, is not a part of them. Of effects that
are considered together, each interval is that of one: 1 in 20 misses its value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from harness.analysis.statistics.response_surface import Bools, Columns, Floats, Ints, Response, fit_response

BLOCKS = 10
"""Maximum number of blocks of uniform draws, each with a model of its own."""
MOST_FITTED = 300
"""Maximum number of uniform draws, and of the sampler's choices, that a model is fitted to; beyond, evenly spaced."""
LEAST_IN_CELL = 3
"""Smallest number of uniform configurations in a cell for an interval."""
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Draws:
    """The uniform draws of a search, in their order."""

    configuration: Ints
    """Index of the configuration that each is."""
    order: Ints
    """Number of the trial that drew it."""
    weights: Floats
    """1 for a draw; of a space that is trained as a whole, a multiple of the configuration's probability."""


@dataclass(frozen=True, slots=True)
class Observations:
    """The configurations of a search that have a value."""

    columns: Columns
    values: Floats
    chosen: Floats
    """Number of the trial by which the sampler chose each first; infinite if it never did."""
    draws: Draws

    @property
    def is_uniform(self) -> Bools:
        """Whether each was drawn uniformly."""
        return np.isin(np.arange(len(self.values)), self.draws.configuration)


@dataclass(frozen=True, slots=True)
class SpaceMeans:
    """The cells of a contrast in the whole space, in batches of configurations with all of their counterparts."""

    sums: Floats
    """(batches, cells, columns) or (batches, cells): sums of the model's columns, or of values that need no model."""
    counts: Floats
    """(batches,): total weight of each batch."""
    share: float
    """Share of the configurations with one of the levels that have all of their counterparts."""

    @property
    def means(self) -> Floats:
        """The mean of each cell."""
        return np.asarray(self.sums.sum(axis=0) / max(self.counts.sum(), 1e-300))

    def variance(self, signs: Floats, coefficients: Floats | None = None) -> float:
        """The variance of a contrast's mean due to the size of the sample; 0 for a single batch, which is the space."""
        batches = len(self.counts)
        if batches < 2 or self.counts.sum() == 0:
            return 0.0
        sums = self.sums if coefficients is None else self.sums @ coefficients
        contrasts = sums @ signs
        apart = contrasts - self.counts * contrasts.sum() / self.counts.sum()
        return float(batches / (batches - 1) * (apart**2).sum() / self.counts.sum() ** 2)


@dataclass(frozen=True, slots=True)
class Contrast:
    """An effect as cells, in the space and among the uniform draws."""

    signs: Floats
    """(cells,): the weights of their means."""
    members: Floats
    """(drawn configurations, cells): weight of each in its cell, 0 in all others; in the order of their indices."""
    space: SpaceMeans

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of drawn configurations in each cell."""
        return tuple(int(n) for n in (self.members > 0).sum(axis=0))


@dataclass(frozen=True, slots=True)
class EffectEstimate:
    """An effect with its interval."""

    effect: float
    error: float
    """Standard error."""
    df: float
    influence: Floats
    """Contribution of each drawn configuration to the error."""
    space_error: float
    """The part of the error due to the sample of the space."""
    counts: tuple[int, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        from scipy.special import stdtrit

        half = float(stdtrit(max(1.0, self.df), 1 - ALPHA / 2)) * self.error
        return self.effect - half, self.effect + half


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Predictions for the uniform draws, each by a model that is independent of it."""

    values: Floats
    """The value of each draw."""
    weights: Floats
    predictions: Floats
    units: Ints
    """Row of each draw's configuration in `Contrast.members`."""
    blocks: Ints
    models: Sequence[Response]
    """By block."""

    @property
    def explained(self) -> float:
        """The share of the values' variance that the predictions explain; below 0 if they are worse than the mean."""
        mean = np.average(self.values, weights=self.weights)
        total = float(self.weights @ (self.values - mean) ** 2)
        return 1 - float(self.weights @ (self.values - self.predictions) ** 2) / total if total > 0 else 0.0

    @property
    def coefficients(self) -> Floats:
        """The mean of the models' coefficients over the draws."""
        return np.asarray(np.mean([self.models[block].coefficients for block in self.blocks], axis=0))


class CrossFits(NamedTuple):
    """The models of the draws, twice."""

    by_draw: CrossFit
    """With blocks of draws: where a configuration was drawn several times, or chosen before it was drawn, its model may
    have seen its value."""
    by_configuration: CrossFit
    """With blocks of configurations, in the order in which each was first trained: no model has seen them."""


def cross_fit(observed: Observations, *, blocks: int = BLOCKS) -> CrossFits:
    """Fit a model for each block, to what is independent of it; see the module's docstring."""
    draws = observed.draws
    drawn, units = np.unique(draws.configuration, return_inverse=True)
    trained = observed.chosen[drawn].copy()
    np.minimum.at(trained, units, draws.order)
    of_draws = np.array_split(np.argsort(draws.order, kind="stable"), min(blocks, len(draws.order)))
    of_units = np.array_split(np.argsort(trained, kind="stable"), min(blocks, len(drawn)))
    of_configurations = [np.flatnonzero(np.isin(units, block)) for block in of_units]
    return CrossFits(_fit(observed, of_draws), _fit(observed, of_configurations, hides=True))


def _fit(observed: Observations, blocks: Sequence[Ints], *, hides: bool = False) -> CrossFit:
    """Fit a model for each block of draws; with `hides`, to no configuration of the block."""
    draws, models = observed.draws, []
    predictions, block_of = np.zeros(len(draws.order)), np.zeros(len(draws.order), np.int64)
    for number, block in enumerate(blocks):
        own = np.unique(draws.configuration[block])
        others = np.setdiff1d(np.delete(draws.configuration, block), own if hides else [])
        before = min(draws.order[block].min(), observed.chosen[own].min() if hides else np.inf)
        earlier = np.setdiff1d(np.flatnonzero(observed.chosen < before), others)
        rows = np.concatenate([_evenly(others), _evenly(earlier[np.argsort(observed.chosen[earlier])])])
        is_drawn = np.arange(len(rows)) < len(_evenly(others))
        models.append(fit_response(observed.columns.take(rows), observed.values[rows], is_drawn))
        predictions[block] = models[-1].predict(observed.columns.values[draws.configuration[block]])
        block_of[block] = number
    units = np.unique(draws.configuration, return_inverse=True)[1]
    return CrossFit(observed.values[draws.configuration], draws.weights, predictions, units, block_of, models)


def _evenly(rows: Ints) -> Ints:
    """At most `MOST_FITTED` of the rows, evenly spaced, so that no result decides which."""
    if len(rows) <= MOST_FITTED:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MOST_FITTED).round().astype(np.int64)]


def estimate_effect(contrast: Contrast, fits: CrossFits) -> EffectEstimate | None:
    """The effect from the draws and the model, with the error from models that have not seen the configurations.

    None if a cell has fewer than `LEAST_IN_CELL` configurations.
    """
    effect, error = (_adjusted(contrast, fit) for fit in fits)
    return None if effect is None or error is None else replace(error, effect=effect.effect)


def _adjusted(contrast: Contrast, fitted: CrossFit) -> EffectEstimate | None:
    of_cells = np.stack([model.predict(contrast.space.means) for model in fitted.models])  # (blocks, cells)
    adjusted = (fitted.values - fitted.predictions)[:, None] + of_cells[fitted.blocks]
    return _welch(contrast, fitted, adjusted, contrast.space.variance(contrast.signs, fitted.coefficients))


def estimate_without_model(contrast: Contrast, fitted: CrossFit) -> EffectEstimate | None:
    """The effect from the draws alone; None as for `estimate_effect`."""
    values = np.repeat(fitted.values[:, None], len(contrast.signs), axis=1)
    return _welch(contrast, fitted, values, 0.0)


def _welch(contrast: Contrast, fitted: CrossFit, values: Floats, space_variance: float) -> EffectEstimate | None:
    """The contrast of weighted means of `values`, (draws, cells)."""
    if min(contrast.counts) < LEAST_IN_CELL:
        return None
    shares = contrast.members[fitted.units] * fitted.weights[:, None]
    shares = shares / shares.sum(axis=0)
    means = (shares * values).sum(axis=0)
    apart, shares = _by_unit(shares * (values - means), contrast, fitted), _by_unit(shares, contrast, fitted)
    influence = contrast.signs * apart / (1 - shares)
    variances, dfs = (influence**2).sum(axis=0), 1 / (shares**2).sum(axis=0) - 1
    variance = float(variances.sum())
    df = variance**2 / float((variances**2 / dfs).sum()) if variance > 0 else float(dfs.min())
    return EffectEstimate(
        effect=float(contrast.signs @ means),
        error=float(np.sqrt(variance + space_variance)),
        df=df,
        influence=influence.sum(axis=1),
        space_error=float(np.sqrt(space_variance)),
        counts=contrast.counts,
    )


def _by_unit(values: Floats, contrast: Contrast, fitted: CrossFit) -> Floats:
    """The sums of the draws' values, (draws, cells), over each configuration."""
    sums = np.zeros(contrast.members.shape)
    np.add.at(sums, fitted.units, values)
    return sums


def combine(estimates: Sequence[EffectEstimate], weights: Sequence[float]) -> EffectEstimate:
    """A weighted sum of effects that were estimated from the same draws, with their common error."""
    factors = np.asarray(weights, float)
    influence = factors @ np.stack([estimate.influence for estimate in estimates])
    space_error = float(np.abs(factors) @ np.array([estimate.space_error for estimate in estimates]))
    return EffectEstimate(
        effect=float(factors @ np.array([estimate.effect for estimate in estimates])),
        error=float(np.sqrt((influence**2).sum() + space_error**2)),
        df=min(estimate.df for estimate in estimates),
        influence=influence,
        space_error=space_error,
        counts=tuple(min(counts) for counts in zip(*(estimate.counts for estimate in estimates), strict=True)),
    )
