"""A sample for the tests: number of values, mean, standard deviation, and the two-sided p against a bound."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

ROUNDING = 1e-9
"""Relative differences below this are rounding."""
LookP = Callable[["Sample", float], float]
"""Function of a look's sample and a bound: the smallest alpha at which the look rejects the bound."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Size, mean and standard deviation of a sample; one value and equal values have no spread."""

    n: int
    mean: float
    sd: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Create the sample of these values."""
        n = len(values)
        mean = math.fsum(values) / n
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else 0.0
        is_rounding = sd <= ROUNDING * max(abs(value) for value in values)
        return cls(n, mean, 0.0 if is_rounding else sd)

    def p(self, bound: float) -> float:
        """The two-sided p of the t test, or of the sign test if all values are equal.

        A measured metric has discrete steps, so that a few equal values are no certainty; the sign test, 2^(1 - n),
        only assumes a symmetric distribution.
        """
        if self.sd > 0:
            from scipy.special import stdtr

            return float(2 * stdtr(self.n - 1, -abs(self.mean - bound) * math.sqrt(self.n) / self.sd))
        is_equal = math.isclose(self.mean, bound, rel_tol=ROUNDING, abs_tol=1e-12)
        return 1.0 if is_equal else 2.0 ** (1 - self.n)

    def interval(self, level: float) -> tuple[float, float] | None:
        """The bounds that the t test at a two-sided level does not reject; None if the values have no spread."""
        if self.sd == 0:
            return None
        from scipy.special import stdtrit

        half = float(-stdtrit(self.n - 1, level / 2)) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half
