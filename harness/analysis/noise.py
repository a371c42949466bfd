"""The sources of noise that spreads and intervals of a study's results include, and those that they leave out."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.storage import RunRow

TRAINING_SOURCES = "initial weights, order of the images and augmentation"
PER_SEED_SOURCES = {
    ("split", True): "training and validation images (each seed has its own)",
    ("split", False): "the split of the images into training and validation (each seed has its own)",
    ("bootstrap", False): "the choice of training and validation images (a bootstrap for each seed)",
}
SHARED_DATA_NOTE = "one data set only: all seeds share its training and validation images, which are not part of them"


def resampling_ways(rows: Iterable["RunRow"]) -> tuple[tuple[str, bool], ...]:
    """How the images of these runs were sampled, and whether they were generated; all distinct combinations.

    Runs of earlier recipe revisions, before images were sampled for each seed, shared one data set.
    """
    trained = (row for row in rows if row.run.recipe.epochs > 0)
    ways = {
        (row.run.recipe.resample if row.id == row.run.id else "none", row.run.recipe.dataset == "shapes")
        for row in trained
    }
    return tuple(sorted(ways))


def noise_line(ways: Iterable[tuple[str, bool]]) -> str | None:
    """The sources of noise in spreads and intervals over seeds, as a sentence; None if nothing was trained."""
    lines = [_line(*way) for way in ways]
    if len(lines) > 1:
        return f"Mixed: {'; some runs: '.join(lines)}."
    return f"{lines[0][0].upper()}{lines[0][1:]}." if lines else None


def _line(resample: str, is_generated: bool) -> str:
    per_seed = PER_SEED_SOURCES.get((resample, is_generated))
    return f"intervals hold {TRAINING_SOURCES}" + (f", of {SHARED_DATA_NOTE}" if per_seed is None else f", {per_seed}")
