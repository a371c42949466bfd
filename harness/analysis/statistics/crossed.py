"""The part of an effect's error that is due to the validation images: pairs of networks x validation sets.

A pair is the two arms of a contrast with one seed. Every pair is evaluated on every validation set, and each cell of
the table is modeled as y[pair, set] = effect + pair + set + rest, with independent random terms. The term of a set is
common to all networks; the rest is the effect of a set on this pair alone. The components of variance are those of the
two-way analysis with one value per cell (Searle, Casella & McCulloch 1992, Variance Components, chapter 4).

For a study of n pairs, the variance of the estimated effect around the effect over all networks and images, and the
mean square of the standard error in its t interval:

    scheme                             variance                      standard error squared
    one validation set for all pairs   set + (pair + rest) / n       (pair + rest) / n
    a separate set for every pair      (pair + set + rest) / n       (pair + set + rest) / n

So the interval never includes the part of a shared set, whatever the number of pairs. For normal terms the t statistic
is sqrt(1 + n set / (pair + rest)) times Student's, from which the coverage follows (`calibration.coverage`). Its
interval is a generalized confidence interval (Weerahandi 1993, JASA 88, 899-905): the three mean squares are
independent multiples of chi-squared variables.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.statistics.calibration import LEVEL, coverage

PIVOTS = 10_000
"""Number of samples of the mean squares for the interval of a coverage."""

Table = NDArray[np.float64]
"""Table of effects, (pairs, sets)."""


class Components(NamedTuple):
    """The variances of the terms of a table."""

    pair: float
    set: float
    rest: float

    def ratio(self, n: int) -> float:
        """Variance of an estimate from n pairs on a shared set, divided by the variance that its interval implies."""
        stated = self.pair + self.rest
        return 1 + n * self.set / stated if stated > 0 else math.inf if self.set > 0 else 1.0


class Crossed(NamedTuple):
    """The analysis of variance of a table of pairs x sets."""

    pairs: int
    sets: int
    effect: float
    components: Components
    """Estimated components; 0 instead of negative estimates."""
    p: float
    """The p of the F test that all sets have the same effect."""
    squares: tuple[float, float, float]
    """The mean squares of pairs, sets and rest."""

    def error(self) -> float:
        """The standard error of `effect`, from both pairs and sets."""
        pair, of_set, rest = self.components
        return math.sqrt(pair / self.pairs + of_set / self.sets + rest / (self.pairs * self.sets))

    def sd_of_fixed(self, n: int) -> float:
        """The standard deviation over validation sets of the mean effect of n fixed pairs."""
        return math.sqrt(self.components.set + self.components.rest / n)


class Scheme(NamedTuple):
    """Errors of studies of one size, with one assignment of validation sets to pairs."""

    sd: float
    """Standard deviation of the estimates around the effect over all networks and images."""
    error: float
    """Root mean square of the standard errors that such studies compute."""
    coverage: float
    """Coverage of the nominal 95 % t interval, for the effect over all networks and images."""


class Studies(NamedTuple):
    """Studies of n pairs, with one validation set for all pairs, and with a separate set for every pair."""

    n: int
    shared: Scheme
    own: Scheme


def decompose(table: Table) -> Crossed:
    """The components of variance of a table of effects. Raises `ValueError` for fewer than 2 pairs or 2 sets."""
    from scipy.special import fdtrc

    pairs, sets = table.shape
    if pairs < 2 or sets < 2:
        raise ValueError(f"2 pairs on 2 validation sets are needed, but got {pairs} on {sets}")
    of_pairs, of_sets, effect = table.mean(axis=1), table.mean(axis=0), float(table.mean())
    rest = table - of_pairs[:, None] - of_sets + effect
    df = degrees(pairs, sets)
    squares = (
        sets * float(of_pairs.var(ddof=1)),
        pairs * float(of_sets.var(ddof=1)),
        float((rest**2).sum()) / df[2],
    )
    p = float(fdtrc(df[1], df[2], squares[1] / squares[2])) if squares[2] > 0 else float(squares[1] == 0)
    of_pair, of_set = (max(0.0, square - squares[2]) for square in squares[:2])
    components = Components(of_pair / sets, of_set / pairs, squares[2])
    return Crossed(pairs, sets, effect, components, p, squares)


def degrees(pairs: int, sets: int) -> tuple[int, int, int]:
    """Degrees of freedom of the mean squares of pairs, sets and rest."""
    return pairs - 1, sets - 1, (pairs - 1) * (sets - 1)


def expected_studies(components: Components, n: int) -> Studies:
    """The errors of studies of n pairs that follow from the components, for normal terms."""
    pair, of_set, rest = components
    stated, whole = (pair + rest) / n, (pair + of_set + rest) / n
    shared = Scheme(math.sqrt(of_set + stated), math.sqrt(stated), coverage(components.ratio(n), n))
    return Studies(n, shared, Scheme(math.sqrt(whole), math.sqrt(whole), LEVEL))


def shared_coverage_interval(crossed: Crossed, n: int, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the coverage of studies of n pairs on a shared set, from the table's mean squares."""
    rng, df = np.random.default_rng(seed), degrees(crossed.pairs, crossed.sets)
    of_pair, of_set, rest = (
        square * d / rng.chisquare(d, PIVOTS) for square, d in zip(crossed.squares, df, strict=True)
    )
    stated = np.maximum(0, of_pair - rest) / crossed.sets + rest
    shared = np.maximum(0, of_set - rest) / crossed.pairs
    ratios = 1 + n * np.divide(shared, stated, out=np.where(shared > 0, math.inf, 0.0), where=stated > 0)
    high, low = np.quantile(ratios, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), method="nearest")
    return coverage(float(low), n), coverage(float(high), n)


def drawn_studies(table: Table, n: int, *, studies: int, seed: int) -> Studies:
    """The errors of studies of n pairs that are sampled from the cells of a table.

    The pairs of a study are sampled without replacement, and so are the sets if every pair has its own. The recorded
    pairs and sets are themselves a sample, so that estimates vary less around their mean than around the effect over
    all: that effect is sampled again for every study, around the mean of the table with its standard error. Sums of
    variances are then those of the model. The coverage is that of the model on average over tables; if n is near the
    number of pairs, that of one table depends on its random spread. Raises `ValueError` if n is larger than the number
    of pairs or sets.
    """
    pairs, sets = table.shape
    if not 2 <= n <= min(pairs, sets):
        raise ValueError(f"studies must have from 2 pairs up to the {min(pairs, sets)} there are, but got {n}")
    rng, crossed = np.random.default_rng(seed), decompose(table)
    rows = rng.random((studies, pairs)).argsort(axis=1)[:, :n]
    own_sets = rng.random((studies, sets)).argsort(axis=1)[:, :n]
    truth = crossed.effect + crossed.error() * rng.standard_normal(studies)
    return Studies(n, _scheme(table[rows, own_sets[:, :1]], truth), _scheme(table[rows, own_sets], truth))


def _scheme(values: Table, truth: NDArray[np.float64]) -> Scheme:
    """The errors of studies (studies, n), given the true effect of each."""
    from scipy.special import stdtrit

    n = values.shape[1]
    off = values.mean(axis=1) - truth
    errors = values.std(axis=1, ddof=1) / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * errors
    return Scheme(
        sd=math.sqrt(float((off**2).mean())),
        error=math.sqrt(float((errors**2).mean())),
        coverage=float((np.abs(off) <= half).mean()),
    )
