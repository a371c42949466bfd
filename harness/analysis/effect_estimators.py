"""Estimates the effects of a search: on what its runs have measured, or on costs, which follow from the networks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.effect_cells import SpaceCells
from harness.analysis.effect_observations import Configuration
from harness.analysis.effect_terms import CellContrast, Term, cell_text
from harness.analysis.statistics.effects import (
    LEAST_IN_CELL,
    Contrast,
    Draws,
    EffectEstimate,
    Observations,
    SpaceMeans,
    combine,
    cross_fit,
    estimate_effect,
    estimate_without_model,
)
from harness.analysis.statistics.response_surface import Floats, fit_response
from harness.analysis.statistics.sample import ROUNDING
from harness.config.formula import Formula

NO_COUNTERPARTS = "no two networks within rules and budgets differ in this alone"


@dataclass(frozen=True, slots=True)
class CellCount:
    """How many space-filling configurations of a cell have all of their counterparts."""

    values: int
    """Those with a value."""
    lost: int
    """Those that ended without one."""

    @property
    def text(self) -> str:
        """Text such as `12`, or `12 of 14` if some are lost."""
        return f"{self.values} of {self.values + self.lost}" if self.lost else str(self.values)


@dataclass(frozen=True, slots=True)
class EffectResult:
    """An effect with its estimates."""

    term: Term
    estimate: EffectEstimate | None
    """From the space-filling trials and the model, or from the networks if it is on a cost; None if a level has too few
    trials."""
    alone: EffectEstimate | None
    """From the space-filling trials alone."""
    model: float | None
    """What the model predicts without correction: it has no error rate."""
    visited: float | None
    """The difference between the means of all configurations that the search visited: biased by the sampler."""
    share: float
    """Share of the networks with one of the levels whose counterparts are within rules and budgets."""
    counts: tuple[CellCount, ...]
    """By cell; of an effect that is a mean of several, the smallest of each cell."""
    reason: str | None = None
    """Why there is no estimate."""
    short: tuple[str, ...] = ()
    """The cells with fewer space-filling trials than an interval needs, as `K[0]=13 (1 of 3)`."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What is known of one contrast of cells."""

    estimate: EffectEstimate | None
    share: float
    alone: EffectEstimate | None = None
    model: float | None = None
    visited: float | None = None
    counts: tuple[CellCount, ...] = ()
    short: tuple[str, ...] = ()


class EffectEstimator(ABC):
    """Estimates contrasts of cells, each once: effects may share them."""

    explained: float | None = None

    def __init__(self, cells: SpaceCells) -> None:
        self._cells = cells
        self._known: list[tuple[CellContrast, _Part]] = []

    def part(self, contrast: CellContrast) -> _Part:
        """The estimates of one contrast."""
        part = next((part for other, part in self._known if other == contrast), None)
        if part is None:
            part = self._estimate(contrast)
            self._known.append((contrast, part))
        return part

    @abstractmethod
    def _estimate(self, contrast: CellContrast) -> _Part: ...


class RunEstimator(EffectEstimator):
    """Estimates effects on what runs have measured; `is_whole` if the draws are all networks, as of a grid."""

    def __init__(self, cells: SpaceCells, configurations: Sequence[Configuration], *, is_whole: bool) -> None:
        super().__init__(cells)
        self._is_whole = is_whole
        self._valued = [one for one in configurations if one.value is not None]
        self._drawn = [one.params for one in self._valued if one.draws]
        self._lost = [one.params for one in configurations if one.draws and one.is_lost]
        observed = _observations(cells, self._valued)
        self._values = observed.values
        self._fits = cross_fit(observed)
        self._model = fit_response(observed.columns, observed.values, observed.is_uniform)
        self.explained = self._fits.by_configuration.explained

    def _estimate(self, contrast: CellContrast) -> _Part:
        space, signs = self._cells.column_means(contrast), np.array(contrast.signs, float)
        if space.share == 0:
            return _Part(None, 0.0)
        is_free = space.share == 1  # no counterpart is infeasible
        cells = Contrast(signs, self._cells.memberships(contrast, self._drawn, is_free=is_free), space)
        lost = (self._cells.memberships(contrast, self._lost, is_free=is_free) > 0).sum(axis=0)
        counts = tuple(CellCount(n, int(gone)) for n, gone in zip(cells.counts, lost, strict=True))
        estimate, alone = estimate_effect(cells, self._fits), estimate_without_model(cells, self._fits.by_draw)
        if alone is not None and alone.error <= ROUNDING * np.abs(self._values).max():  # equal values have no spread
            return _Part(None, space.share, visited=self._visited(contrast), counts=counts)
        if self._is_whole and estimate is not None and alone is not None:
            estimate = replace(estimate, effect=alone.effect)  # of all networks, of which nothing is predicted
        return _Part(
            estimate,
            space.share,
            alone,
            float(signs @ self._model.predict(space.means)),
            self._visited(contrast),
            counts,
            self._short(contrast, counts),
        )

    def _visited(self, contrast: CellContrast) -> float | None:
        """The contrast of the plain means of all configurations."""
        own = [self._cells.cell_of(contrast, one.params) for one in self._valued]
        total = 0.0
        for k, sign in enumerate(contrast.signs):
            values = [value for value, cell in zip(self._values, own, strict=True) if cell == k]
            if not values:
                return None
            total += sign * float(np.mean(values))
        return total

    def _short(self, contrast: CellContrast, counts: Sequence[CellCount]) -> tuple[str, ...]:
        return tuple(
            f"{cell_text(cell, self._cells.space)} ({count.text})"
            for cell, count in zip(contrast.cells, counts, strict=True)
            if count.values < LEAST_IN_CELL
        )


def _observations(cells: SpaceCells, valued: Sequence[Configuration]) -> Observations:
    draws = [(i, number, one.weight) for i, one in enumerate(valued) for number in one.draws]
    configuration, order, weights = zip(*draws, strict=True)
    return Observations(
        cells.encode([one.params for one in valued]),
        np.array([one.value for one in valued], float),
        np.array([one.chosen for one in valued], float),
        Draws(np.array(configuration, np.int64), np.array(order, np.int64), np.array(weights, float)),
    )


class CostEstimator(EffectEstimator):
    """Effects on a cost, which follows from the networks: only the sample of the space has an error."""

    def __init__(self, cells: SpaceCells, formula: Formula) -> None:
        super().__init__(cells)
        self._formula = formula

    def _estimate(self, contrast: CellContrast) -> _Part:
        space = self._cells.value_means(contrast, lambda cost: self._formula.value(lambda name: getattr(cost, name)))
        if space.share == 0:
            return _Part(None, 0.0)
        return _Part(_cost_effect(space, np.array(contrast.signs, float)), space.share)


def _cost_effect(space: SpaceMeans, signs: Floats) -> EffectEstimate:
    error = float(np.sqrt(space.variance(signs)))
    df = max(1.0, len(space.counts) - 1.0)
    return EffectEstimate(float(signs @ space.means), error, df, np.zeros(1), error, ())


def effect_result(term: Term, estimator: EffectEstimator) -> EffectResult:
    """The estimates of an effect: the weighted sums of those of its parts."""
    parts = [(weight, estimator.part(contrast)) for weight, contrast in term.parts]
    share = min(part.share for _, part in parts)
    short = tuple(dict.fromkeys(cell for _, part in parts for cell in part.short))
    columns = zip(*(part.counts for _, part in parts), strict=True)
    estimate = _combined([(weight, part.estimate) for weight, part in parts])
    return EffectResult(
        term,
        estimate=estimate,
        alone=_combined([(weight, part.alone) for weight, part in parts]),
        model=_sum([(weight, part.model) for weight, part in parts]),
        visited=_sum([(weight, part.visited) for weight, part in parts]),
        share=share,
        counts=tuple(min(column, key=lambda count: count.values) for column in columns),
        reason=_reason(share, short) if estimate is None else None,
        short=short,
    )


def _reason(share: float, short: Sequence[str]) -> str:
    if share == 0:
        return NO_COUNTERPARTS
    if not short:
        return "all space-filling trials of a level have the same value, so that their spread is not known"
    return f"fewer than {LEAST_IN_CELL} space-filling trials have a value with {'; '.join(short)}"


def _combined(parts: Sequence[tuple[float, EffectEstimate | None]]) -> EffectEstimate | None:
    known = [(weight, estimate) for weight, estimate in parts if estimate is not None]
    if len(known) < len(parts):
        return None
    if len(known) == 1 and known[0][0] == 1:
        return known[0][1]
    return combine([estimate for _, estimate in known], [weight for weight, _ in known])


def _sum(parts: Sequence[tuple[float, float | None]]) -> float | None:
    values = [weight * value for weight, value in parts if value is not None]
    return sum(values) if len(values) == len(parts) else None
