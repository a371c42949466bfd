"""Kendall's rank correlation with a bootstrap interval over configurations.

Tau-b (Kendall 1945, Biometrika 33, 239-251): over all pairs of configurations, those that two series order alike less
those that they order differently, divided by the geometric mean of the numbers of pairs that each series orders.

The interval is the percentile interval (Efron and Tibshirani 1993, chapter 13) of configurations drawn with
replacement; a configuration that is drawn twice makes no pair with itself. It contains what another choice of
configurations would change, and nothing else. In 800 simulated samples each of normal pairs with correlations of 0 to
0.95, it contained the true tau in 94 to 98 % for 10 to 40 configurations and in 81 % for 6 with a correlation of 0.95:
hence `LEAST_CONFIGURATIONS`.

Shapes: n configurations, B resamples.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_CONFIGURATIONS = 10
"""Number of configurations below which no statement is made: there, too few intervals contain the true value."""
MOST_CONFIGURATIONS = 500
"""Number of configurations that a correlation is computed from; of more, the first ones count."""
RESAMPLES = 1_000
MISSES = 0.05
"""Share of intervals that may miss the true value."""
SEED = 20_450

Counts = NDArray[np.float32]
"""How often a resample contains each configuration: (B, n), whole numbers."""
Series = tuple[ArrayLike, ArrayLike]
"""Two numbers for each of the same n configurations."""


class RankCorrelation(NamedTuple):
    """A rank correlation, its interval, and the number of configurations that it rests on."""

    tau: float | None
    """From -1 to 1; None where a series has no two different values, and below two configurations."""
    interval: tuple[float, float] | None
    """Of 95 %; None below `LEAST_CONFIGURATIONS`."""
    n: int

    @property
    def is_positive(self) -> bool:
        """Whether the interval lies above 0: only then, one of the series is shown to order as the other does."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def is_negative(self) -> bool:
        """Whether the interval lies below 0: the series are shown to have opposite orders."""
        return self.interval is not None and self.interval[1] < 0


def rank_correlation(*series: Series) -> RankCorrelation:
    """The mean of the correlations of these pairs of series, which are all of the same n configurations."""
    tables = [_PairTable(*pair) for pair in series]
    n = tables[0].n
    tau = _mean(tables, np.ones((1, n), np.float32))[0]
    if np.isnan(tau):
        return RankCorrelation(None, None, n)
    return RankCorrelation(float(tau), _interval(float(tau), _mean(tables, _resamples(n)), n), n)


def difference_interval(first: Sequence[Series], second: Sequence[Series]) -> tuple[float, float] | None:
    """The interval of the first mean correlation less the second, of the same configurations, as in each resample."""
    ours, theirs = ([_PairTable(*pair) for pair in pairs] for pairs in (first, second))
    n = ours[0].n
    counts = _resamples(n)
    differences = _mean(ours, counts) - _mean(theirs, counts)
    return _quantiles(differences) if n >= LEAST_CONFIGURATIONS else None


class _PairTable:
    """Which pairs of configurations two series order, and whether alike."""

    def __init__(self, x: ArrayLike, y: ArrayLike) -> None:
        first, second = (np.asarray(values, np.float64)[:MOST_CONFIGURATIONS] for values in (x, y))
        signs = [np.sign(values[:, None] - values[None, :]).astype(np.float32) for values in (first, second)]
        self.n = len(first)
        self._alike = signs[0] * signs[1]
        self._ordered = [np.abs(sign) for sign in signs]

    def tau(self, counts: Counts) -> NDArray[np.float64]:
        """Tau-b of each resample, (B,); NaN where a series has no two different values."""
        alike, *ordered = (
            np.einsum("bn,bn->b", counts @ pairs, counts, dtype=np.float64) for pairs in (self._alike, *self._ordered)
        )
        product = ordered[0] * ordered[1]
        taus: NDArray[np.float64] = np.full(len(counts), np.nan)
        np.divide(alike, np.sqrt(product), out=taus, where=product > 0)
        return taus


def _mean(tables: Sequence[_PairTable], counts: Counts) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.mean([table.tau(counts) for table in tables], axis=0)
    return means


@functools.lru_cache(maxsize=8)
def _resamples(n: int) -> Counts:
    """The resamples of n configurations; always the same ones, so that a table can be repeated."""
    generator = np.random.default_rng([SEED, n])
    shares = np.full(n, 1 / n) if n else np.ones(0)
    return generator.multinomial(n, shares, size=RESAMPLES).astype(np.float32)


def _interval(tau: float, resampled: NDArray[np.float64], n: int) -> tuple[float, float] | None:
    """The interval; where all pairs are ordered alike, every resample repeats that, and the bound is another one.

    The configurations make n // 2 pairs that have none in common: if the true value were tau, all of them would be
    ordered alike with a probability of ((1 + tau) / 2) ** (n // 2).
    """
    if n < LEAST_CONFIGURATIONS:
        return None
    if abs(tau) > 1 - 1e-9:
        bound = 2 * (MISSES / 2) ** (1 / (n // 2)) - 1
        return (bound, 1.0) if tau > 0 else (-1.0, -bound)
    return _quantiles(resampled)


def _quantiles(resampled: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.nanquantile(resampled, [MISSES / 2, 1 - MISSES / 2])
    return float(low), float(high)
