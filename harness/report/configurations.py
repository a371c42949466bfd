"""The configurations of a study as a table: one row each, best first, with all metrics that the study measures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.analysis.formatting import DASH, format_mean_and_spread, format_value, si
from harness.analysis.latency import latency_text
from harness.analysis.objective import LATENCY
from harness.analysis.results import ConfigurationResult, StudyResults
from harness.analysis.seeds import seeds_text
from harness.report.console import plain_table
from harness.report.measure_columns import METRIC_COLUMNS, columns_note, measured_columns

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
                columns = name_columns(self._results, self._rows)
            columns = [*columns, *block]
        yield self._table(columns)
        if left := len(self._results.rows) - len(self._rows):
            yield Text(f"and {left} more", style="dim")
        yield from (Text(line, style="dim") for line in (*_sampling(self._rows), *columns_note(self._results)))

    def _blocks(self) -> Iterator[list[Column]]:
        """The groups of columns that must not be separated, in the order in which they are shown."""
        yield [*name_columns(self._results, self._rows), *status_columns(self._results, self._rows)]
        for measure in (name for name in METRIC_COLUMNS if name in self._results.measures):
            yield [Column(heading, cells) for heading, cells in measured_columns(measure, self._rows)]

    def _table(self, columns: Sequence[Column]) -> Table:
        table = plain_table()
        for column in columns:
            table.add_column(
                Text(column.heading), justify="left" if column.is_left else "right", vertical="bottom", no_wrap=True
            )
        for configuration, cells in zip(
            self._rows, zip(*(column.cells for column in columns), strict=True), strict=True
        ):
            is_best, is_complete = configuration is self._results.best, configuration.state == "complete"
            style = "bold" if is_best else "" if is_complete else "dim"
            table.add_row(*cells, style=style)
        return table


def _sampling(configurations: Sequence[ConfigurationResult]) -> Iterator[str]:
    """Note that explains the sampling errors, if there are any."""
    images = sorted({configuration.val_images for configuration in configurations if configuration.val_images})
    if images:
        n = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
        yield f"± val: the standard error of a seed's accuracy that is due to its {n} validation images."


def name_columns(results: StudyResults, configurations: Sequence[ConfigurationResult]) -> list[Column]:
    """The columns that identify a configuration: on the front or not, its first trial, its choices."""
    return [
        Column("", [FRONT_MARK if configuration.is_on_front else "" for configuration in configurations], is_left=True),
        Column("#", [str(configuration.trials[0]) for configuration in configurations]),
        *(
            Column(
                name,
                [
                    Text(format_value(configuration.params[name])) if name in configuration.params else DASH
                    for configuration in configurations
                ],
                is_left=True,
            )
            for name in results.axes
        ),
    ]


def status_columns(results: StudyResults, configurations: Sequence[ConfigurationResult]) -> Iterator[Column]:
    """The columns of the objective, the costs, and the state if any configuration is not complete."""
    unit = " %" if results.metric in PERCENTAGES else ""
    yield Column(
        f"{results.metric}{unit}", [format_objective(configuration, results) for configuration in configurations]
    )
    yield Column(
        "n", [seeds_text(len(configuration.values), configuration.missing) for configuration in configurations]
    )
    if any(configuration.val_images for configuration in configurations):
        yield Column(
            "± val",
            [DASH if (e := configuration.sampling_error) is None else f"{e:.2f}" for configuration in configurations],
        )
    yield Column("params", [si(configuration.params_count) for configuration in configurations])
    yield Column("MACs", [si(configuration.macs) for configuration in configurations])
    if results.metric != LATENCY:
        yield Column("ms", [latency_text(configuration.latency) for configuration in configurations])
    yield Column("s/run", [_seconds(configuration.wall_s) for configuration in configurations])
    if any(configuration.state != "complete" for configuration in configurations):
        yield Column(
            "",
            [
                "" if configuration.state == "complete" else Text(configuration.state)
                for configuration in configurations
            ],
            is_left=True,
        )


def format_objective(configuration: ConfigurationResult, results: StudyResults) -> str:
    """The value by which a configuration is ranked; for a latency the median, although its upper bound ranks."""
    if results.metric == LATENCY and configuration.latency is not None and configuration.latency.high_ms is not None:
        return configuration.latency.text
    return format_mean_and_spread(configuration.mean, configuration.spread, results.metric)


def _seconds(wall_s: float | None) -> str:
    return DASH if wall_s is None else f"{wall_s:.0f}" if wall_s >= 10 else f"{wall_s:.1f}"
