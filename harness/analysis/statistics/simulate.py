"""Simulates how often a plan decides, wrongly for null studies and correctly for true effects, and with how many pairs.

The differences are random; the looks and levels are those that `estimate_effect` and `judge` use.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.statistics.sequential import Plan

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]

NOISES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy": lambda rng, shape: rng.standard_t(3, shape) / math.sqrt(3),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
    "skewed arms": lambda rng, shape: (rng.exponential(size=shape) - rng.exponential(size=shape)) / math.sqrt(2),
    "steps": lambda rng, shape: np.round(2 * rng.standard_normal(shape)) / 2,
}
"""Distributions of the differences between paired runs, with mean 0 and standard deviation 1 (`steps` 1.01).

`heavy` is Student's t with 3 degrees of freedom; `skewed` are exponential differences, `skewed arms` differences of two
exponential values, and `steps` normal ones that are rounded to steps of half a standard deviation.
"""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Shares of the studies with each verdict, and the mean number of pairs of a study."""

    supported: float
    contradicted: float
    mean_pairs: float


def simulate_decisions(plan: Plan, studies: int, seed: int, *, effect: float = 0.0, noise: str = "normal") -> Decisions:
    """Verdicts on `> 0` in studies with this true effect, in standard deviations; deterministic for a seed."""
    verdicts, pairs = simulate_verdicts(NOISES[noise](np.random.default_rng(seed), (studies, plan.most)) + effect, plan)
    return Decisions(float(np.mean(verdicts > 0)), float(np.mean(verdicts < 0)), float(pairs.mean()))


def simulate_verdicts(values: Array, plan: Plan) -> tuple[Array, Array]:
    """The sign of each study's verdict on `> 0`, 0 for none, and its number of pairs; values are (studies, pairs)."""
    verdicts, pairs = np.zeros(len(values)), np.full(len(values), float(plan.most))
    for n in plan.looks:
        mean, p = values[:, :n].mean(axis=1), _p(values[:, :n])
        is_decided_now = (p <= plan.level(n)) & (verdicts == 0)
        verdicts[is_decided_now], pairs[is_decided_now] = np.sign(mean[is_decided_now]), n
    return verdicts, pairs


def false_positive_rate(plan: Plan, studies: int, seed: int, *, noise: str = "normal") -> float:
    """The share of studies without an effect that reach any verdict on `> 0`."""
    decisions = simulate_decisions(plan, studies, seed, noise=noise)
    return decisions.supported + decisions.contradicted


def _p(values: Array) -> Array:
    """`Sample.p` against 0, a study per row."""
    from scipy.special import stdtr

    n = values.shape[1]
    mean, sd = values.mean(axis=1), values.std(axis=1, ddof=1)
    is_flat = sd < 1e-9
    t_p = 2 * stdtr(n - 1, -np.abs(mean) * math.sqrt(n) / np.where(is_flat, 1, sd))
    sign_p = np.where(mean == 0, 1.0, 2.0 ** (1 - n))
    p: Array = np.where(is_flat, sign_p, t_p)
    return p
