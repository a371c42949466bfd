"""The metrics of measures as table columns, for the measures that a study uses."""

import statistics
from collections.abc import Callable, Iterator, Sequence

from harness.analysis.formatting import DASH, format_mean_and_spread, si
from harness.analysis.results import ConfigurationResult, StudyResults
from harness.config.measures import MEASURES, CellFormat, MetricColumn
from harness.models.spec.published import RANDOM_FIELDS_NOTE
from harness.training.run import RunState


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


FORMATTERS: dict[CellFormat, Callable[[Sequence[float]], str]] = {
    "mean": _mean,
    "percent": _percent,
    "largest_error": _largest_error,
    "most_bytes": _most_bytes,
    "are_finite": _are_finite,
}
"""Functions that format a cell from the values of the runs, by `MetricColumn.format`."""
METRIC_COLUMNS: dict[str, tuple[MetricColumn, ...]] = {
    **{name: row.columns for name, row in MEASURES.items()},
    "masks": (MetricColumn("miou", "mIoU %", "percent"),),
    "boxes": (MetricColumn("ap", "AP %", "percent"),),
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
    return f"{mark}{FORMATTERS[column.format](values)}" if values else DASH
