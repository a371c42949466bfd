"""A model of a metric over a search space: ridge regression on main effects and products of two axes.

It is fitted to whatever a search visited, so it may be wrong anywhere; `effects` corrects its predictions by values of
configurations that were drawn uniformly, and only the width of the intervals depends on how good the model is.

A configuration is a row of level indices, one for each axis, and -1 where an axis is inactive. An ordered axis has
columns for its slope, its curvature and, if it is short, each of its levels; an unordered one a column for each level.
Products have one column for every two columns of different axes, with slopes and curvatures alone of ordered axes. All
columns have a mean of 0 over the levels, and are 0 where an axis is inactive.

The penalty and the share of it that products bear are chosen by the error of leaving one configuration out (PRESS,
Allen 1974, Technometrics 16, 125-127), counted on the uniform draws alone, since the average is over the whole space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
SHORT = 6
"""Number of levels up to which an ordered axis has a column for each."""
PRODUCT_WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Variance of a product's coefficient in units of that of a main effect; 0 for a model without products."""
PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 9))
MOST_PLACED = 1_000
"""Maximum number of levels over which the mean of a slope is taken; of a longer axis, evenly spaced ones."""
INACTIVE = -1


@dataclass(frozen=True, slots=True)
class AxisCoding:
    """How an axis enters the model."""

    levels: int
    is_ordered: bool
    is_log: bool = False
    """Whether distances are those of the logarithm of index + 1."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a model: for each configuration its main effects, then its products."""

    values: Floats
    """(configurations, columns)."""
    is_product: Bools

    def take(self, rows: Any) -> "Columns":
        """The same columns of some configurations."""
        return Columns(self.values[rows], self.is_product)


@dataclass(frozen=True, slots=True)
class Response:
    """A fitted model."""

    intercept: float
    coefficients: Floats
    penalty: float
    product_weight: float

    def predict(self, columns: Floats) -> Floats:
        """The predictions for rows of columns, or for their means."""
        return np.asarray(self.intercept + columns @ self.coefficients)


def encode(levels: Ints, axes: Sequence[AxisCoding]) -> Columns:
    """The columns of configurations, given as level indices."""
    mains, owners, smooth = [], [], []
    for j, axis in enumerate(axes):
        for column, is_smooth in _main_columns(levels[:, j], axis):
            mains.append(np.where(levels[:, j] == INACTIVE, 0.0, column))
            owners.append(j)
            smooth.append(is_smooth)
    table = np.stack(mains, axis=1) if mains else np.zeros((len(levels), 0))
    crossed = np.flatnonzero(smooth)
    owner = np.asarray(owners)[crossed] if len(crossed) else np.zeros(0, np.int64)
    first, second = np.triu_indices(len(crossed), k=1)
    of_two = owner[first] != owner[second]
    first, second = crossed[first[of_two]], crossed[second[of_two]]
    products = table[:, first] * table[:, second]
    is_product = np.arange(table.shape[1] + products.shape[1]) >= table.shape[1]
    return Columns(np.concatenate([table, products], axis=1), is_product)


def _main_columns(levels: Ints, axis: AxisCoding) -> list[tuple[Floats, bool]]:
    """The columns of one axis, and whether each takes part in products."""
    is_listed = not axis.is_ordered or axis.levels <= SHORT
    each = [(levels == k) - 1 / axis.levels for k in range(axis.levels if is_listed else 0)]
    if not axis.is_ordered:
        return [(column * np.sqrt(axis.levels), True) for column in each]
    grid = _positions(np.linspace(0, axis.levels - 1, min(axis.levels, MOST_PLACED)).round().astype(np.int64), axis)
    place = _positions(np.maximum(levels, 0), axis)
    slope, curve = place - grid.mean(), (place - grid.mean()) ** 2 - ((grid - grid.mean()) ** 2).mean()
    smooth = [(1.7 * slope, True), (5.0 * curve, True)]
    return [*smooth, *((column, False) for column in each)]


def _positions(levels: Ints, axis: AxisCoding) -> Floats:
    """Places from 0 to 1."""
    if axis.is_log:
        return np.asarray(np.log1p(levels) / np.log(axis.levels))
    return levels / max(1, axis.levels - 1)


def fit_response(columns: Columns, values: Floats, is_target: Bools) -> Response:
    """Fit the model; penalty and product weight have the least error of the configurations in `is_target`.

    Constant values, and fewer than three, are fitted by their mean.
    """
    n = len(values)
    if n < 3 or np.ptp(values) == 0:
        mean = float(values.mean()) if n else 0.0
        return Response(mean, np.zeros(columns.values.shape[1]), np.inf, 0.0)
    judged = is_target if is_target.any() else np.ones(n, bool)
    means, centered = columns.values.mean(axis=0), values - values.mean()
    best: tuple[float, float, float, Floats] | None = None
    penalties = np.array(PENALTIES)
    for weight in PRODUCT_WEIGHTS:
        scale = np.where(columns.is_product, np.sqrt(weight), 1.0)
        table = (columns.values - means) * scale
        eigenvalues, basis = _decompose(table)
        shrunk = eigenvalues[:, None] / (eigenvalues[:, None] + penalties)  # a column per penalty, as below
        leverage = np.minimum(basis**2 @ shrunk + 1 / n, 1 - 1e-6)
        residuals = centered[:, None] - basis @ (shrunk * (basis.T @ centered)[:, None])
        errors = ((residuals / (1 - leverage))[judged] ** 2).mean(axis=0)
        least = int(errors.argmin())
        if best is None or errors[least] < best[0]:
            penalty = float(penalties[least])
            best = float(errors[least]), penalty, weight, scale * (table.T @ (residuals[:, least] / penalty))
    assert best is not None
    _, penalty, weight, coefficients = best
    return Response(float(values.mean() - means @ coefficients), coefficients, penalty, weight)


def _decompose(table: Floats) -> tuple[Floats, Floats]:
    """The eigenvalues of the table's Gram matrix that are above 0, and the eigenvectors in the space of rows."""
    rows, columns = table.shape
    if columns == 0:
        return np.zeros(0), np.zeros((rows, 0))
    if rows <= columns:
        eigenvalues, basis = np.linalg.eigh(table @ table.T)
        kept = eigenvalues > 1e-9 * max(eigenvalues[-1], 1e-30)
        return eigenvalues[kept], basis[:, kept]
    eigenvalues, basis = np.linalg.eigh(table.T @ table)
    kept = eigenvalues > 1e-9 * max(eigenvalues[-1], 1e-30)
    return eigenvalues[kept], (table @ basis[:, kept]) / np.sqrt(eigenvalues[kept])
