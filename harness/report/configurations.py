"""The configurations of a study as a table: one row each, best first, with all metrics that the study measures."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.analysis.configuration_result import ConfigurationResult, seeds_text
from harness.analysis.formatting import DASH, format_mean_and_spread, format_metric, format_value, si
from harness.analysis.objective import LATENCY, spread_of
from harness.analysis.results import StudyResults
from harness.config.measures import MEASURES, CellFormat, MetricColumn
from harness.models.spec.published import RANDOM_FIELDS_NOTE
from harness.report.console import plain_table
from harness.training.run import RunState

FRONT_MARK = "●"
PERCENTAGES = ("top1",)
WIDER_THAN_ANY = 10_000
"""Terminal width at which no table is cut."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and a cell for each row."""

    heading: str
    cells: Sequence[str | Text]
    is_left: bool = False


def _mean(values: Sequence[float]) -> str:
    return format_mean_and_spread(statistics.fmean(values), spread_of(values), "")


def _percent(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _are_finite(values: Sequence[float]) -> str:
    n = round(sum(values))
    return "finite" if n == len(values) else "not finite" if n == 0 else f"finite in {n} of {len(values)}"


FORMATTERS: dict[CellFormat, Callable[[Sequence[float]], str]] = {
    "mean": _mean,
    "percent": _percent,
    "largest_error": lambda values: f"{max(values):.0e}",
    "most_bytes": lambda values: f"{si(max(values))}B",
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


class ConfigurationTables:
    """One table if it fits the terminal; otherwise the measures follow in separate tables."""

    def __init__(self, results: StudyResults, *, most: int | None = None) -> None:
        self._results = results
        self._rows = results.rows[:most]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first, *blocks = self._blocks()
        columns, wide = first, options.update(width=WIDER_THAN_ANY)
        for block in blocks:
            if Measurement.get(console, wide, self._table([*columns, *block])).maximum > options.max_width:
                yield self._table(columns)
                yield Text()
                columns = _name_columns(self._results, self._rows)
            columns = [*columns, *block]
        yield self._table(columns)
        if left := len(self._results.rows) - len(self._rows):
            yield Text(f"and {left} more", style="dim")
        yield from (Text(line, style="dim") for line in (*_sampling_note(self._rows), *_columns_note(self._results)))

    def _blocks(self) -> Iterator[list[Column]]:
        """The groups of columns that must not be separated, in the order in which they are shown."""
        yield [*_name_columns(self._results, self._rows), *_status_columns(self._results, self._rows)]
        for measure in (name for name in METRIC_COLUMNS if name in self._results.measures):
            yield list(_measured_columns(measure, self._rows))

    def _table(self, columns: Sequence[Column]) -> Table:
        table = plain_table()
        for column in columns:
            justify: JustifyMethod = "left" if column.is_left else "right"
            table.add_column(Text(column.heading), justify=justify, vertical="bottom", no_wrap=True)
        for row, cells in zip(self._rows, zip(*(column.cells for column in columns), strict=True), strict=True):
            style = "bold" if row is self._results.best else "" if row.state == "complete" else "dim"
            table.add_row(*cells, style=style)
        return table


def _name_columns(results: StudyResults, rows: Sequence[ConfigurationResult]) -> list[Column]:
    """The columns that identify a configuration: on the front or not, its first trial, its choices."""
    shown = [row.derived | row.params for row in rows]
    choices = {
        name: [Text(format_value(values[name])) if name in values else DASH for values in shown]
        for name in results.axes
    }
    return [
        Column("", [FRONT_MARK if row.is_on_front else "" for row in rows], is_left=True),
        Column("#", [str(row.trials[0]) for row in rows]),
        *(Column(name, cells, is_left=True) for name, cells in choices.items()),
    ]


def _status_columns(results: StudyResults, rows: Sequence[ConfigurationResult]) -> Iterator[Column]:
    """The columns of the objective, the costs, and the state if any configuration is not complete."""
    unit = " %" if results.metric in PERCENTAGES else ""
    yield Column(f"{results.metric}{unit}", [format_objective(row, results) for row in rows])
    for name in results.further_columns:
        yield Column(name, [_further(row, name) for row in rows])
    if any(row.bound is not None for row in rows):
        bounds = [DASH if row.bound is None else format_metric(row.bound, results.metric) for row in rows]
        yield Column("at least" if results.direction == "maximize" else "at most", bounds)
    yield Column("n", [seeds_text(len(row.values), row.missing) for row in rows])
    if any(row.val_images for row in rows):
        yield Column("± val", [DASH if (e := row.sampling_error) is None else f"{e:.2f}" for row in rows])
    yield Column("params", [si(row.params_count) for row in rows])
    yield Column("MACs", [si(row.macs) for row in rows])
    if results.metric != LATENCY:
        yield Column("ms", [DASH if row.latency is None else row.latency.text for row in rows])
    yield Column("s/run", [_seconds(row.wall_s) for row in rows])
    if any(row.state != "complete" for row in rows):
        yield Column("", ["" if row.state == "complete" else Text(row.state) for row in rows], is_left=True)


def _further(row: ConfigurationResult, name: str) -> str:
    """A further objective of a study with several: the mean over the seeds with their spread."""
    values = row.further[name]
    return format_mean_and_spread(statistics.fmean(values), spread_of(values), name) if values else DASH


def _measured_columns(measure: str, rows: Sequence[ConfigurationResult]) -> Iterator[Column]:
    """The columns of a measure; a cell is a dash if no complete run of the configuration has the metric."""
    for column in METRIC_COLUMNS[measure]:
        for name, heading in _named(column, rows):
            yield Column(heading, [_cell(column, name, row) for row in rows])


def _named(column: MetricColumn, rows: Sequence[ConfigurationResult]) -> list[tuple[str, str]]:
    """The names of the metric in runs, with their headings; without any, those of the column."""
    if not column.is_by_batch:
        return [(column.name, column.heading)]
    names = dict.fromkeys(name for row in rows for facts in row.runs for name in facts.measures)
    batches = [name.removeprefix(column.name) for name in names if name.startswith(column.name)]
    return [(f"{column.name}{n}", f"{column.heading}\nbatch {n}") for n in batches] or [(column.name, column.heading)]


def _cell(column: MetricColumn, name: str, row: ConfigurationResult) -> str:
    done = [facts.measures for facts in row.runs if facts.row.state == RunState.COMPLETE]
    values = [measures[name] for measures in done if name in measures]
    mark = "~" * any(column.disturbed in measures for measures in done)
    return f"{mark}{FORMATTERS[column.format](values)}" if values else DASH


def _sampling_note(rows: Sequence[ConfigurationResult]) -> Iterator[str]:
    """Note that explains the sampling errors, if there are any."""
    images = sorted({row.val_images for row in rows if row.val_images})
    if images:
        n = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
        yield f"± val: the standard error of a seed's accuracy that is due to its {n} validation images."


def _columns_note(results: StudyResults) -> Iterator[str]:
    """Notes that explain the columns."""
    if results.race is not None and results.race.has_bounds:
        yield (
            f"Ranked by pessimistic bounds ({100 * results.race.rule.level:g} %, one-sided) of the true values as of "
            "the first seed: what a seed adds to all configurations is removed."
        )
    if "erf" in results.measures:
        yield (
            "ERF: the area of the smallest centered square that contains more than t % of the map of the effective "
            "receptive field (log10, by the paper's equations), in percent of the image's area."
        )
        if not results.is_training:
            yield f"Nothing was trained, and {RANDOM_FIELDS_NOTE}."


def format_objective(row: ConfigurationResult, results: StudyResults) -> str:
    """The value by which a configuration is ranked; for a latency the median, although its upper bound ranks."""
    if results.metric == LATENCY and row.latency is not None and row.latency.high_ms is not None:
        return row.latency.text
    return format_mean_and_spread(row.mean, row.spread, results.metric)


def _seconds(wall_s: float | None) -> str:
    return DASH if wall_s is None else f"{wall_s:.0f}" if wall_s >= 10 else f"{wall_s:.1f}"
