"""The table of the measures that a recipe can request: their metrics, their columns in tables, and their cost.

The functions that measure are in `harness.measures.ON_DEMAND_MEASURES`, which needs torch; this table does not, so that
a study is checked, planned and shown without it. A test compares the two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from harness.config.recipes.proxy import ProxyRecipe

MEASURED_CALLS = 5
"""Estimated number of calls of a time measure: two for warm-up, and three or more."""
PASSES = 3
"""Cost of a training step in forward passes: the backward pass costs twice the forward pass."""

MeasureName = Literal["erf", "merge_error", "shape_bias", "throughput", "train_step"]
"""The keys of `MEASURES`, as a recipe's `measures` accepts them."""
CellFormat = Literal["mean", "percent", "largest_error", "most_bytes", "are_finite"]
"""How the values of a configuration's runs are written in a cell; see `harness.report.configurations`."""


@dataclass(frozen=True, slots=True)
class MetricColumn:
    """One metric of a measure as a column of tables."""

    name: str
    """Name of the metric in runs."""
    heading: str
    format: CellFormat
    is_by_batch: bool = False
    """Whether runs append the batch size to the name."""
    disturbed: str | None = None
    """Name of the metric that marks a disturbed measurement; the cell then starts with `~`, as for a latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRow:
    """What is known of a measure without taking it."""

    metrics: tuple[str, ...]
    """Names of all metrics that it can yield; `{class}` is a placeholder for the name of a class."""
    columns: tuple[MetricColumn, ...]
    """The metrics for comparing networks; all others are in the JSON and in `harness show STUDY TRIAL`."""
    images: Callable[["ProxyRecipe", int], int]
    """(recipe, number of validation images) -> images that it passes through the network on a CPU; a gradient counts
    as two more."""
    is_of_machine: bool = False
    """Whether it yields times, throughput or memory, which are measured again in another environment."""


def _enlarged_images(recipe: "ProxyRecipe", val: int) -> int:
    """Images of the receptive field count by their pixels: their side is four times as long, up to 1024."""
    side = recipe.resolution
    return round(min(32, val or 32) * (1 + 2 * 2) * (max(side, min(4 * side, 1024)) / side) ** 2)


MEASURES: dict[str, MeasureRow] = {
    "throughput": MeasureRow(
        metrics=("throughput_images_per_s_batch32", "throughput_images_per_s_batch128", "throughput_disturbed"),
        columns=(
            MetricColumn(
                "throughput_images_per_s_batch", "images/s", "mean", is_by_batch=True, disturbed="throughput_disturbed"
            ),
        ),
        images=lambda recipe, val: 32 * MEASURED_CALLS,  # noqa: ARG005 (the table's signature)
        is_of_machine=True,
    ),
    "merge_error": MeasureRow(
        metrics=("merge_error_max_abs", "merge_error_relative"),
        columns=(MetricColumn("merge_error_relative", "merge\nerror", "largest_error"),),
        images=lambda recipe, val: 4 * 3 * 2,  # noqa: ARG005 (4 images, 3 passes, each in float64)
    ),
    "train_step": MeasureRow(
        metrics=(
            "train_step_s",
            "train_step_images_per_s",
            "train_step_peak_bytes",
            "train_step_gradients_finite",
            "train_step_disturbed",
        ),
        columns=(
            MetricColumn("train_step_s", "step\ns", "mean", disturbed="train_step_disturbed"),
            MetricColumn("train_step_peak_bytes", "step\nmemory", "most_bytes"),
            MetricColumn("train_step_gradients_finite", "step\ngradients", "are_finite"),
        ),
        images=lambda recipe, val: recipe.batch_size * PASSES * (MEASURED_CALLS + 1),  # noqa: ARG005
        is_of_machine=True,
    ),
    "erf": MeasureRow(
        metrics=tuple(f"erf_{name}_r{t}_pct" for name in ("raw", "log") for t in (20, 30, 50, 99)),
        columns=(
            MetricColumn("erf_log_r20_pct", "ERF %\nt=20", "percent"),
            MetricColumn("erf_log_r30_pct", "30", "percent"),
            MetricColumn("erf_log_r50_pct", "50", "percent"),
            MetricColumn("erf_log_r99_pct", "99", "percent"),
        ),
        images=_enlarged_images,
    ),
    "shape_bias": MeasureRow(
        metrics=("shape_decisions", "cue_decisions", "shape_bias_pct", "shape_bias_pct_{class}"),
        columns=(MetricColumn("shape_bias_pct", "shape\nbias %", "percent"),),
        images=lambda recipe, val: val,  # noqa: ARG005
    ),
}
"""The measures that a recipe can name, in the order of their columns."""
