"""How much of an effect's error belongs to the images that it is judged on: pairs of networks x validation sets.

A pair is the two arms of a contrast with one seed. Every pair is judged on every validation set, and each cell of the
table is modeled as y[pair, set] = effect + pair + set + rest, with independent random terms. The part of a set is
common to all networks; the rest is what a set means for this pair alone. The components of variance are those of the
two-way analysis with one value per cell (Searle, Casella & McCulloch 1992, Variance Components, chapter 4).

For a study of n pairs, the variance of the estimated effect about the effect over all networks and images, and the
square of the standard error that its t interval has on average:

    scheme                             variance                      standard error squared
    one validation set for all pairs   set + (pair + rest) / n       (pair + rest) / n
    for every pair a set of its own    (pair + set + rest) / n       (pair + set + rest) / n

So a shared set leaves its own part out of the interval, however many pairs there are. For normal terms the t statistic
is sqrt(1 + n set / (pair + rest)) times Student's, which gives the coverage (`calibration.coverage`). Its interval is
a generalized confidence interval (Weerahandi 1993, JASA 88, 899-905): the three mean squares are independent multiples
of chi-squared variables.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.statistics.calibration import LEVEL, coverage

PIVOTS = 10_000
"""Draws of the mean squares for the interval of a coverage."""

Table = NDArray[np.float64]
"""Effects, (pairs, sets)."""


class Components(NamedTuple):
    """The variances of the terms of a table."""

    pair: float
    set: float
    rest: float

    def ratio(self, n: int) -> float:
        """By which a shared set makes the variance of an estimate from n pairs larger than its interval states."""
        stated = self.pair + self.rest
        return 1 + n * self.set / stated if stated > 0 else math.inf if self.set > 0 else 1.0


class Crossed(NamedTuple):
    """What a table of pairs x sets shows."""

    pairs: int
    sets: int
    effect: float
    components: Components
    """Estimates, 0 where they would be negative."""
    p: float
    """Of the F test that all sets have one effect."""
    squares: tuple[float, float, float]
    """The mean squares of pairs, sets and rest."""

    def error(self) -> float:
        """The standard error of `effect`, of the pairs and the sets together."""
        pair, of_set, rest = self.components
        return math.sqrt(pair / self.pairs + of_set / self.sets + rest / (self.pairs * self.sets))

    def sd_of_fixed(self, n: int) -> float:
        """The standard deviation over validation sets of the mean effect of n pairs that stay the same."""
        return math.sqrt(self.components.set + self.components.rest / n)


class Scheme(NamedTuple):
    """Studies of one size with their validation sets given in one way."""

    sd: float
    """Standard deviation of the estimates about the effect over all networks and images."""
    error: float
    """The standard error that such a study states: root mean square."""
    coverage: float
    """Of the nominal 95 % t interval, for the effect over all networks and images."""


class Studies(NamedTuple):
    """Studies of n pairs, with one validation set for all pairs and with a set of its own for every pair."""

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
    return Crossed(pairs, sets, effect, _components(squares, pairs, sets), p, squares)


def degrees(pairs: int, sets: int) -> tuple[int, int, int]:
    """Degrees of freedom of the mean squares of pairs, sets and rest."""
    return pairs - 1, sets - 1, (pairs - 1) * (sets - 1)


def _components(squares: tuple[float, float, float], pairs: int, sets: int) -> Components:
    of_pair, of_set, rest = squares
    return Components(max(0.0, (of_pair - rest) / sets), max(0.0, (of_set - rest) / pairs), rest)


def expected_studies(components: Components, n: int) -> Studies:
    """What follows from the components for studies of n pairs, for normal terms."""
    pair, of_set, rest = components
    stated, whole = (pair + rest) / n, (pair + of_set + rest) / n
    shared = Scheme(math.sqrt(of_set + stated), math.sqrt(stated), coverage(components.ratio(n), n))
    return Studies(n, shared, Scheme(math.sqrt(whole), math.sqrt(whole), LEVEL))


def shared_coverage_interval(crossed: Crossed, n: int, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the coverage of studies of n pairs on one shared set, given the table's mean squares."""
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
    """What comes out of studies of n pairs that are drawn from the cells of a table.

    The pairs of a study are drawn without replacement, and so are the sets where every pair has its own. The recorded
    pairs and sets are themselves a sample, so that estimates vary less about their mean than about the effect over all:
    that effect is drawn anew for every study, about the mean of the table with its standard error. Sums of variances
    are then those of the model. Their coverage is so on average over tables; where n is near the number of pairs, that
    of one table depends on its chance spread. Raises `ValueError` where n is above the pairs or the sets.
    """
    pairs, sets = table.shape
    if not 2 <= n <= min(pairs, sets):
        raise ValueError(f"studies must have from 2 pairs up to the {min(pairs, sets)} there are, but got {n}")
    rng, crossed = np.random.default_rng(seed), decompose(table)
    rows = rng.random((studies, pairs)).argsort(axis=1)[:, :n]
    own = rng.random((studies, sets)).argsort(axis=1)[:, :n]
    truth = crossed.effect + crossed.error() * rng.standard_normal(studies)
    return Studies(n, _scheme(table[rows, own[:, :1]], truth), _scheme(table[rows, own], truth))


def _scheme(values: Table, truth: NDArray[np.float64]) -> Scheme:
    """Of studies (studies, n), each with the effect that it should find."""
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
