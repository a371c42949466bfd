"""The gain that a further trial is expected to bring over the best so far, from noisy means of earlier trials.

The true values of the last trials are modelled as normal, N(mean, tau^2), and those of the next trial as another draw.
A trial's mean over n seeds has a noise of variance v = sigma^2 / n. Both facts matter:

- **The best of noisy means is biased**: the one that ranks first was lucky, too. Its true value is therefore estimated
  by its posterior distribution, with mean `mean + b (best - mean)`, b = tau^2 / (tau^2 + v), and variance b v (Efron &
  Morris 1973).
- **The spread of noisy means is too large** by v, which is subtracted.
- **Seeds are paired**: what a seed adds to all trials alike changes no difference between them, so sigma^2 is the
  residual variance after the means of trials and of seeds (two-way analysis of variance).

The gain is the expected improvement (Mockus 1975) of a draw over the best. It is an upper limit: with the upper limit
of the spread, and with the lower limit of the true value of the best, each at a confidence of 95 %, since a search that
is ended by it should rarely be one that would still have gained. `tests/analysis/test_expected_gain.py` has the rates.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.analysis.statistics.two_way import residual_variance

CONFIDENCE = 0.95
"""Confidence of the upper limit of the spread, and of the lower limit of the true value of the best."""


class ExpectedGain(NamedTuple):
    """Upper limit of the expected gain of a further trial, in units of the objective, with what it follows from."""

    gain: float
    best: float
    """The estimated true value of the best so far, without what it owes to chance."""
    spread: float
    """Upper limit of the standard deviation of the true values of the last trials."""
    noise: float
    """Standard deviation of a mean over seeds."""


def expected_gain(values: npt.NDArray[np.float64], best: float, *, share: float = 1.0) -> ExpectedGain:
    """The upper limit of the expected gain over the best, where larger values are better.

    `values` (trials, seeds) are those of the last trials, with the same seeds, two or more of each; `best` is the best
    mean over these seeds of any trial; `share` is the share of trials that end with a value.
    """
    from scipy.special import chdtri, ndtr, ndtri  # a tenth of the time of the distributions of scipy.stats

    trials, seeds = values.shape
    assert trials >= 2 and seeds >= 2, "two trials with two seeds"
    means = values.mean(axis=1)
    center = float(means.mean())
    noise = residual_variance(values) / seeds
    degrees = trials - 1
    total = float(means.var(ddof=1)) * degrees / float(chdtri(degrees, CONFIDENCE))
    spread = max(0.0, total - noise)
    if spread == 0:
        return ExpectedGain(0.0, center, 0.0, math.sqrt(noise))
    kept = spread / (spread + noise)
    estimate = center + kept * (best - center)
    low = estimate - float(ndtri(CONFIDENCE)) * math.sqrt(kept * noise)
    scale = math.sqrt(spread)
    z = (center - low) / scale
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    gain = share * scale * (density + z * float(ndtr(z)))
    return ExpectedGain(gain, estimate, math.sqrt(spread), math.sqrt(noise))
