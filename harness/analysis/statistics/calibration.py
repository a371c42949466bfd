"""Calibration on real runs: the rate of false verdicts, and the coverage of the intervals.

An A/A test has two arms with the same network. Given the images, both draw initial weights and an order of the images
independently from the same distribution, so that the arms of each pair are exchangeable: the sign of the difference is
random. Studies are sampled from the recorded pairs as subsets in random order with random signs, and tested as a plan
specifies. Unpaired, the two arms of a seed change places as a whole, so that whatever they share by their seed is in
the drawn studies too.

This also holds if all seeds share a data set, which therefore cannot raise the rate of false verdicts. It affects the
coverage: the interval of a claim on one data set does not include the part of the effect that belongs to this set. With
m pairs of variance s^2 around an effect of the set, whose variance over sets is t^2, the t statistic around the effect
over all sets is sqrt(1 + m t^2 / s^2) times Student's, from which the true coverage follows.

The part of an effect's error that is due to the validation images follows from pairs of networks x validation sets.

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
is sqrt(1 + n set / (pair + rest)) times Student's, from which the coverage follows (`coverage`). Its
interval is a generalized confidence interval (Weerahandi 1993, JASA 88, 899-905): the three mean squares are
independent multiples of chi-squared variables.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.statistics.sample import Values, degrees_of_test, terms_of
from harness.analysis.statistics.sequential import Plan

LEVEL = 0.95
"""Confidence level of all intervals here."""
PIVOTS = 10_000
"""Number of samples of the mean squares for the interval of a coverage."""

Table = NDArray[np.float64]
"""Table of effects, (pairs, sets)."""


class ErrorRate(NamedTuple):
    """A share of studies, with its exact interval (Clopper & Pearson 1934), conditional on the recorded runs."""

    hits: int
    studies: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share, from 0 to 1."""
        return self.hits / self.studies

    @classmethod
    def of(cls, hits: int, studies: int) -> "ErrorRate":
        """The share of `hits` among `studies`."""
        from scipy.special import betaincinv

        tail = (1 - LEVEL) / 2
        low = float(betaincinv(hits, studies - hits + 1, tail)) if hits else 0.0
        high = float(betaincinv(hits + 1, studies - hits, 1 - tail)) if hits < studies else 1.0
        return cls(hits, studies, low, high)


def false_verdicts(values: Values, plan: Plan, *, studies: int, seed: int) -> ErrorRate:
    """The share of studies, sampled from two equal arms, that reach a verdict on `> 0`.

    `values` are the differences of the arms; or, unpaired, the first arm and minus the second. Raises `ValueError` for
    fewer of them than the plan may take.
    """
    if len(values) < plan.most:
        raise ValueError(f"a plan of up to {plan.most} pairs needs as many differences, but got {len(values)}")
    rng, recorded = np.random.default_rng(seed), np.array([terms_of(value) for value in values])
    order = rng.random((studies, len(recorded))).argsort(axis=1)[:, : plan.most]
    signs = rng.choice([-1.0, 1.0], order.shape)[..., None]
    drawn = recorded[order]
    verdicts, _ = simulate_verdicts(np.where(signs < 0, -drawn[..., ::-1], drawn), plan)
    return ErrorRate.of(int(np.count_nonzero(verdicts)), studies)


def simulate_verdicts(values: NDArray[np.float64], plan: Plan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sign of each study's verdict on `> 0`, 0 for none, and its number of seeds.

    Values are contrasts (studies, seeds), or their independent terms (studies, seeds, terms).
    """
    terms = values[..., None] if values.ndim == 2 else values
    verdicts, seeds = np.zeros(len(values)), np.full(len(values), float(plan.most))
    for n in plan.looks:
        mean, p = terms[:, :n].mean(axis=1).sum(axis=1), _p(terms[:, :n])
        is_decided_now = (p <= plan.level(n)) & (verdicts == 0)
        verdicts[is_decided_now], seeds[is_decided_now] = np.sign(mean[is_decided_now]), n
    return verdicts, seeds


def _p(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """`Sample.p` against 0, a study per row; (studies, seeds, terms) -> (studies,)."""
    from scipy.special import stdtr

    n = terms.shape[1]
    mean, sds = terms.mean(axis=1).sum(axis=1), terms.std(axis=1, ddof=1).T
    sd = np.hypot.reduce(sds)
    is_flat = sd < 1e-9
    degrees = n - 1 if len(sds) == 1 else degrees_of_test(sds**2, n)
    t_p = 2 * stdtr(degrees, -np.abs(mean) * math.sqrt(n) / np.where(is_flat, 1, sd))
    sign_p = np.where(mean == 0, 1.0, 2.0 ** (1 - n))
    p: NDArray[np.float64] = np.where(is_flat, sign_p, t_p)
    return p


class VarianceParts(NamedTuple):
    """The variance of an effect between data sets, and between the seeds of one (analysis of variance)."""

    sets: int
    seeds: int
    """Number of seeds of each data set."""
    effect: float
    between: float
    """Variance of the effects of data sets, without the part of the seeds; 0 if the seeds explain all of it."""
    within: float
    """Variance of the differences of one data set."""
    p: float
    """The p of the F test that all data sets have the same effect."""
    coverage: float
    """Coverage of a t interval on one data set, for the effect over all, at the estimated variances."""
    coverage_low: float
    """Lower end of its interval, from that of the F statistic."""
    coverage_high: float
    held: ErrorRate
    """Share of the data sets' own intervals that contain the mean effect of the others."""


def variance_parts(differences: Mapping[object, Sequence[float]]) -> VarianceParts:
    """The variances of an effect, from the paired differences of each data set; uses the same number of each.

    Raises `ValueError` for fewer than two data sets, or fewer than two seeds each.
    """
    from scipy.special import fdtrc, fdtri

    sets, seeds = len(differences), min(map(len, differences.values()), default=0)
    if sets < 2 or seeds < 2:
        raise ValueError(f"2 data sets with 2 seeds each are needed, but got {sets} with {seeds}")
    values = np.array([list(paired)[:seeds] for paired in differences.values()])
    means, within = values.mean(axis=1), float(values.var(axis=1, ddof=1).mean())
    of_means = seeds * float(means.var(ddof=1))
    ratio = of_means / within if within > 0 else math.inf
    df = sets - 1, sets * (seeds - 1)
    ends = [ratio / float(fdtri(*df, tail)) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    return VarianceParts(
        sets,
        seeds,
        effect=float(means.mean()),
        between=max(0.0, (of_means - within) / seeds),
        within=within,
        p=float(fdtrc(*df, ratio)) if math.isfinite(ratio) else 0.0,
        coverage=coverage(max(1.0, ratio), seeds),
        coverage_low=coverage(max(1.0, ends[0]), seeds),
        coverage_high=coverage(max(1.0, ends[1]), seeds),
        held=_interval_coverage(values),
    )


def coverage(ratio: float, seeds: int) -> float:
    """Coverage of the t interval of `seeds` values whose mean has `ratio` times the variance that they imply."""
    from scipy.special import stdtr, stdtrit

    if not math.isfinite(ratio):
        return 0.0
    half = float(stdtrit(seeds - 1, (1 + LEVEL) / 2))
    return 1 - 2 * float(stdtr(seeds - 1, -half / math.sqrt(ratio)))


def _interval_coverage(values: NDArray[np.float64]) -> ErrorRate:
    """Each set's t interval against the mean of the other sets; the error of that mean adds to the misses."""
    from scipy.special import stdtrit

    sets, seeds = values.shape
    means, sds = values.mean(axis=1), values.std(axis=1, ddof=1)
    means_of_others = (means.sum() - means) / (sets - 1)
    half = float(stdtrit(seeds - 1, (1 + LEVEL) / 2)) * sds / math.sqrt(seeds)
    return ErrorRate.of(int(np.count_nonzero(np.abs(means - means_of_others) <= half)), sets)


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
