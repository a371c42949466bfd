"""Regret of a recommended network, judged by a table of curves, and the error of the table's own means.

The true mean of a network is taken to be its mean over the table's seeds at the last epoch. That mean has an error of
its own, and the best of many such means is too high (the winner's curse); both are estimated here. A search that has
seen the same values is judged too well by them, so its choice is judged on a seed that it has not seen, too.

Shapes: N networks, S seeds.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from harness.analysis.statistics.two_way import residual_variance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Quartiles(NamedTuple):
    """The median and the quartiles of some values."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        """The quartiles, interpolated between the values."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True, slots=True)
class Judge:
    """What a table states about each network."""

    values: "Array"
    """The objective at the last epoch, (N, S)."""
    is_maximized: bool

    @property
    def gains(self) -> "Array":
        """The values with a sign with which more is better."""
        return self.values if self.is_maximized else -self.values

    @property
    def best(self) -> int:
        """The network with the best mean."""
        return int(self.gains.mean(axis=1).argmax())

    def regret(self, network: int | None) -> float:
        """The best mean minus that of a network; for None, that of a network that is drawn at random."""
        means = self.gains.mean(axis=1)
        chosen = means.mean() if network is None else means[network]
        return float(means.max() - chosen)

    def held_out_regret(self, network: int, seed: int) -> float:
        """On this seed alone: the value of the network that is best on all other seeds, minus that of a network.

        Unbiased for the difference of the two, if neither was chosen with that seed; it may be negative.
        """
        others = [other for other in range(self.gains.shape[1]) if other != seed]
        reference = int(self.gains[:, others].mean(axis=1).argmax())
        return float(self.gains[reference, seed] - self.gains[network, seed])

    @property
    def noise(self) -> float | None:
        """Standard deviation of one value from seed to seed, without what a seed adds to all networks alike."""
        networks, seeds = self.values.shape
        if networks < 2 or seeds < 2:
            return None
        return math.sqrt(residual_variance(self.values))

    @property
    def standard_error(self) -> float | None:
        """Standard error of a network's mean; None with one seed."""
        noise = self.noise
        return None if noise is None else float(noise / self.values.shape[1] ** 0.5)

    @property
    def spread(self) -> float | None:
        """Standard deviation between the networks' true means: that of their means without the error of these."""
        error = self.standard_error
        if error is None:
            return None
        return float(max(0.0, self.values.mean(axis=1).var(ddof=1) - error**2) ** 0.5)

    @property
    def optimism(self) -> float | None:
        """By how much the best mean is too high, at most: what the best on all seeds but one loses on that one.

        Relative to the mean of all networks on each seed; averaged over the seed that is left out.
        """
        seeds = self.gains.shape[1]
        if self.gains.shape[0] < 2 or seeds < 2:
            return None
        centered = self.gains - self.gains.mean(axis=0, keepdims=True)
        lost = []
        for seed in range(seeds):
            means = centered[:, [other for other in range(seeds) if other != seed]].mean(axis=1)
            lost.append(float(means.max() - centered[means.argmax(), seed]))
        return statistics.fmean(lost)
