"""Tests whether configurations are at chance or at the ceiling, where they cannot be compared.

For accuracies and losses, the test uses the number of correct predictions of the last epoch; for mIoU, that of
predicting one class everywhere. Costs and times have no such limits.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from harness.analysis.formatting import plural
from harness.analysis.statistics.sample import Sample
from harness.config.measures import CHANCE_TOP1, VAL_IMAGES
from harness.config.study import CURVES
from harness.training.run import Epoch, Run

ALPHA = 0.05
"""Error rate of both tests, divided by the number of configurations that are tested together (Bonferroni)."""


class Limit(StrEnum):
    """The limit from which a configuration cannot be distinguished."""

    CHANCE = "chance"
    CEILING = "ceiling"


AT = {Limit.CHANCE: "at chance", Limit.CEILING: "at the ceiling"}
"""Text that marks a configuration at a limit in every view."""


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
    sample = Sample.of(values)
    if sample.sd == 0 or sample.mean <= level:
        return sample.mean > level
    return sample.p(level) / 2 <= ALPHA / tests


def sampling_error(accuracy: float, images: int) -> float:
    """The standard error of an accuracy due to the number of images; both in percent."""
    share = min(1.0, max(0.0, accuracy / 100))
    return 100 * math.sqrt(share * (1 - share) / images)


DEFAULT_VAL_IMAGES = 1000
"""Validation images of `shapes` in runs that did not record their number, if the recipe does not set it."""
CHANCE_METRICS = {"miou": "chance_miou"}
"""Metrics that have a chance level, and the name of that level."""


class RunValues(NamedTuple):
    """A complete run with its learning curve and metrics."""

    run: Run
    curve: Sequence[Epoch]
    measures: Mapping[str, float]


def validation_image_count(run: Run, measures: Mapping[str, float]) -> int | None:
    """Number of validation images of the last epoch; None if unknown."""
    if VAL_IMAGES in measures:
        return round(measures[VAL_IMAGES])
    return run.recipe.val_size or (DEFAULT_VAL_IMAGES if run.recipe.dataset == "shapes" else None)


def configuration_limit(names: Collection[str], runs: Sequence[RunValues], *, tests: int = 1) -> Limit | None:
    """The limit that a configuration is at in the metrics with these names; None if no test shows one."""
    if any(name in CURVES for name in names):
        return limit_of([counts for run in runs if (counts := _counts(run)) is not None], tests=tests)
    for name in (name for name in names if name in CHANCE_METRICS):
        level = CHANCE_METRICS[name]
        measured = [run.measures for run in runs if name in run.measures and level in run.measures]
        if measured and not is_above([values[name] - values[level] for values in measured], 0.0, tests=tests):
            return Limit.CHANCE
    return None


def limits_of(metric: str, groups: Sequence[Sequence[RunValues]]) -> list[Limit | None]:
    """The limit that each of several configurations is at in a metric; `groups` has the complete runs of each."""
    tests = max(1, sum(map(bool, groups)))
    return [configuration_limit((metric,), runs, tests=tests) for runs in groups]


def common_limit(limits: Iterable[Limit | None]) -> Limit | None:
    """The limit that all configurations are at, if any: they cannot be distinguished then."""
    different = set(limits)
    return different.pop() if len(different) == 1 else None


def fewest_images(runs: Iterable[RunValues]) -> int | None:
    """The smallest number of validation images among the runs; None if no number is known."""
    return min(
        (images for run in runs if (images := validation_image_count(run.run, run.measures)) is not None), default=None
    )


def _counts(run: RunValues) -> CorrectCounts | None:
    images = validation_image_count(run.run, run.measures)
    if not run.curve or images is None:
        return None
    return CorrectCounts.of(run.curve[-1].top1, images, run.measures.get(CHANCE_TOP1, 100 / run.run.spec.classes))


def limit_sentence(limit: Limit, seeds: Sequence[int], images: int | None) -> str:
    """Sentence that nothing can be told apart, and why; `seeds` has the number of complete runs per configuration."""
    several = "Both" if len(seeds) == 2 else f"All {len(seeds)}"
    all_of = "The configuration is" if len(seeds) == 1 else f"{several} configurations are"
    n = f"{plural(sum(seeds), 'run')}{'' if images is None else f' of {images:,} validation images'}"
    why, remedy = "next to no error", "Take harder images."
    if limit == Limit.CHANCE:
        why, remedy = "no better than a constant answer", "Train longer, or on easier images."
    return f"{all_of} {AT[limit]} ({why}, {n}): nothing can be told apart here. {remedy}"
