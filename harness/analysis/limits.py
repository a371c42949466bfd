"""Detects configurations at chance or at the ceiling, from the records of their runs.

For accuracies and losses, the test uses the number of correct predictions of the last epoch; for mIoU, that of
predicting one class everywhere. Costs and times have no such limits.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from harness.analysis.statistics.limits import CorrectCounts, Limit, is_above, limit_of
from harness.config.metrics import CHANCE_TOP1, VAL_IMAGES
from harness.config.study import CURVES
from harness.training.run import Epoch, Run

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
    for name in names:
        values = [(run.measures[name], run.measures[CHANCE_METRICS[name]]) for run in runs if _has_level(name, run)]
        if values and not is_above([value - level for value, level in values], 0.0, tests=tests):
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


def _has_level(name: str, run: RunValues) -> bool:
    return name in CHANCE_METRICS and name in run.measures and CHANCE_METRICS[name] in run.measures


def _counts(run: RunValues) -> CorrectCounts | None:
    images = validation_image_count(run.run, run.measures)
    if not run.curve or images is None:
        return None
    return CorrectCounts.of(run.curve[-1].top1, images, run.measures.get(CHANCE_TOP1, 100 / run.run.spec.classes))
