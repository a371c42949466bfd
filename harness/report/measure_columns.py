"""The metrics of measures as table columns, for the measures that a study uses."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.formatting import DASH, format_mean_and_spread, si
from harness.analysis.results import ConfigurationResult, StudyResults
from harness.models.spec.published import RANDOM_FIELDS_NOTE
from harness.training.run import RunState


@dataclass(frozen=True, slots=True)
class MetricColumn:
    """One metric of a measure as a column."""

    name: str
    """Name of the metric in runs."""
    heading: str
    show: Callable[[Sequence[float]], str]
    """Formats the cell from the values of the runs."""
    is_by_batch: bool = False
    """Whether runs append the batch size to the name."""
    disturbed: str | None = None
    """Name of the metric that marks a disturbed measurement; the cell then starts with `~`, as for a latency."""


def _mean(values: Sequence[float]) -> str:
    return format_mean_and_spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, "")


def _percent(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _largest_error(values: Sequence[float]) -> str:
    return f"{max(values):.0e}"


def _most_bytes(values: Sequence[float]) -> str:
    return f"{si(max(values))}B"


def _are_finite(values: Sequence[float]) -> str:
    n = round(sum(values))
    return "finite" if n == len(values) else "not finite" if n == 0 else f"finite in {n} of {len(values)}"


METRIC_COLUMNS: dict[str, tuple[MetricColumn, ...]] = {
    "throughput": (
        MetricColumn(
            "throughput_images_per_s_batch", "images/s", _mean, is_by_batch=True, disturbed="throughput_disturbed"
        ),
    ),
    "merge_error": (MetricColumn("merge_error_relative", "merge\nerror", _largest_error),),
    "train_step": (
        MetricColumn("train_step_s", "step\ns", _mean, disturbed="train_step_disturbed"),
        MetricColumn("train_step_peak_bytes", "step\nmemory", _most_bytes),
        MetricColumn("train_step_gradients_finite", "step\ngradients", _are_finite),
    ),
    "erf": (
        MetricColumn("erf_log_r20_pct", "ERF %\nt=20", _percent),
        MetricColumn("erf_log_r30_pct", "30", _percent),
        MetricColumn("erf_log_r50_pct", "50", _percent),
        MetricColumn("erf_log_r99_pct", "99", _percent),
    ),
    "shape_bias": (MetricColumn("shape_bias_pct", "shape\nbias %", _percent),),
    "masks": (MetricColumn("miou", "mIoU %", _percent),),
    "boxes": (MetricColumn("ap", "AP %", _percent),),
}
"""The metrics for comparing networks, by measure or by the labels of a transfer, in the order of the columns. All
others are in the JSON and in `harness show STUDY TRIAL`."""

TableColumn = tuple[str, list[str]]
"""A heading, and a cell for each row."""


def measured_columns(measure: str, configurations: Sequence[ConfigurationResult]) -> list[TableColumn]:
    """The columns of a measure; a cell is a dash if no complete run of the configuration has the metric."""
    return [
        (heading, [_cell(column, name, configuration) for configuration in configurations])
        for column in METRIC_COLUMNS[measure]
        for name, heading in _named(column, configurations)
    ]


def columns_note(results: StudyResults) -> Iterator[str]:
    """Notes that explain the columns."""
    if "erf" in results.measures:
        yield (
            "ERF: the area of the smallest centered square that contains more than t % of the map of the effective "
            "receptive field (log10, by the paper's equations), in percent of the image's area."
        )
        if not results.is_training:
            yield f"Nothing was trained, and {RANDOM_FIELDS_NOTE}."


def _named(column: MetricColumn, configurations: Sequence[ConfigurationResult]) -> list[tuple[str, str]]:
    """The names of the metric in runs, with their headings; without any, those of the column."""
    if not column.is_by_batch:
        return [(column.name, column.heading)]
    names = dict.fromkeys(
        name for configuration in configurations for facts in configuration.runs for name in facts.measures
    )
    batches = [name.removeprefix(column.name) for name in names if name.startswith(column.name)]
    return [(f"{column.name}{n}", f"{column.heading}\nbatch {n}") for n in batches] or [(column.name, column.heading)]


def _cell(column: MetricColumn, name: str, configuration: ConfigurationResult) -> str:
    done = [facts.measures for facts in configuration.runs if facts.row.state == RunState.COMPLETE]
    values = [measures[name] for measures in done if name in measures]
    mark = "~" * any(column.disturbed in measures for measures in done)
    return f"{mark}{column.show(values)}" if values else DASH
