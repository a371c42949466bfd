"""Tests whether accuracies are at chance or at the ceiling; at such a limit, networks cannot be compared."""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

ALPHA = 0.05
"""Error rate of both tests, divided by the number of configurations that are tested together (Bonferroni)."""


class Limit(StrEnum):
    """The limit from which a configuration cannot be distinguished."""

    CHANCE = "chance"
    CEILING = "ceiling"


class CorrectCounts(NamedTuple):
    """The number of correct predictions of one run."""

    correct: int
    images: int
    chance: float
    """The share of images for which the best constant prediction is correct."""

    @classmethod
    def of(cls, accuracy: float, images: int, chance: float) -> "CorrectCounts":
        """Create from an accuracy and a chance level in percent."""
        return cls(min(images, max(0, round(accuracy / 100 * images))), images, chance / 100)


def limit_of(runs: Sequence[CorrectCounts], *, tests: int = 1) -> Limit | None:
    """The limit of a configuration, from its runs, one for each seed; `tests` configurations are tested together.

    At chance: the one-sided binomial test does not find more correct predictions than the best constant prediction has.
    At the ceiling: the sign test does not find the number of errors to be larger than zero.
    """
    images, correct = sum(run.images for run in runs), sum(run.correct for run in runs)
    if not images:
        return None
    chance = sum(run.chance * run.images for run in runs) / images
    if at_least(correct, images, chance) > ALPHA / tests:
        return Limit.CHANCE
    return Limit.CEILING if 2.0 ** (1 - (images - correct)) > ALPHA / tests else None


def at_least(correct: int, images: int, chance: float) -> float:
    """The probability of at least `correct` correct predictions at chance."""
    if correct <= 0 or chance >= 1:
        return 1.0
    from scipy.special import bdtrc

    return float(bdtrc(correct - 1, images, chance))


def is_above(values: Sequence[float], level: float, *, tests: int = 1) -> bool:
    """Whether values, one for each seed, are above a level: by a one-sided t test if they have a spread."""
    n, mean = len(values), math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else 0.0
    if sd == 0 or mean <= level:
        return mean > level
    from scipy.special import stdtr

    return bool(stdtr(n - 1, -(mean - level) * math.sqrt(n) / sd) <= ALPHA / tests)


def sampling_error(accuracy: float, images: int) -> float:
    """The standard error of an accuracy due to the number of images; both in percent."""
    share = min(1.0, max(0.0, accuracy / 100))
    return 100 * math.sqrt(share * (1 - share) / images)
