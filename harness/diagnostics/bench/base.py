"""Shared by all benches: results with their repeats and targets, sizes, tables, and the checkout that is measured."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Group
from rich.table import Table
from rich.text import Text

import harness
from harness.errors import UserError
from harness.report.console import plain_table

ROOT = Path(harness.__file__).parent.parent
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """One row of the bench's table: a metric with its repeats; their median is its value."""

    name: str
    unit: str
    """`s`, `ms`, `MB`, or `x` for a ratio."""
    values: tuple[float, ...]
    at_most: float | None = None
    """The target, if less is better."""
    at_least: float | None = None
    """The target, if more is better."""
    is_part: bool = False
    """Whether it is a part of the metric above it, or a value from which that was computed."""

    @property
    def median(self) -> float:
        """The median of all repeats."""
        return statistics.median(self.values)

    @property
    def target(self) -> float | None:
        """The target, whatever its direction; None without one."""
        return self.at_most if self.at_most is not None else self.at_least

    @property
    def sign(self) -> str:
        """The direction of the target."""
        return "≤" if self.at_most is not None else "≥"

    @property
    def ratio(self) -> float | None:
        """The median divided by the target; None without one."""
        return None if self.target is None else self.median / self.target

    @property
    def is_met(self) -> bool | None:
        """Whether the median meets its target; None without one."""
        if self.ratio is None:
            return None
        return self.ratio <= 1 if self.at_most is not None else self.ratio >= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSize:
    """The sizes and the number of repeats of all measurements."""

    helps: int = 7
    """Number of processes that print the help."""
    starts: int = 3
    """Number of studies started with each executor."""
    trials: tuple[int, ...] = (100, 2000)
    """Lengths of a study at which the driver's cost is measured."""
    window: int = 50
    """Number of trials around each of these lengths."""
    rounds: int = 5
    """Rounds of proxies; a round trains once in every way."""


FULL_SIZE = BenchSize()
QUICK_SIZE = BenchSize(helps=3, starts=1, trials=(100, 300), rounds=1)


def grouped(results: Iterable[Row], *names: str) -> dict[Any, list[Row]]:
    """The results by the values of these fields, in the order of the first of each group."""
    groups: dict[Any, list[Row]] = {}
    for result in results:
        groups.setdefault(attrgetter(*names)(result), []).append(result)
    return groups


def run_study() -> str:
    """The path of `run_study.py`. Raises `UserError` if the harness is installed without its repository."""
    script = ROOT / "run_study.py"
    if not script.exists():
        rule = "the bench needs the repository of the harness"
        raise UserError(rule, place=str(script), remedy="Run `make bench` in a clone of the repository.")
    return str(script)


class ResultTable(NamedTuple):
    """A table under a title: the first column is text, the others are numbers."""

    title: str
    headings: tuple[str, ...]
    lines: list[tuple[str, ...]]


def empty_table(headings: Sequence[str]) -> Table:
    """A table for the terminal, without rows: the first column is text, the others are numbers."""
    table = plain_table(headings[:1], headings[1:])
    table.header_style = "bold"
    return table


def table_text(grid: ResultTable) -> Group:
    """The table for the terminal."""
    table = empty_table([heading.replace("-", "-\n") for heading in grid.headings])
    for line in grid.lines:
        table.add_row(*line)
    return Group(Text(grid.title, style="bold"), table)


def markdown(title: str, conditions: Iterable[str], grids: Iterable[ResultTable], reading: str, after: str = "") -> str:
    """A Markdown page: the conditions as a list, the tables with their titles, a note on reading them, and `after`."""
    page = [f"# {title}", "", *(f"- {line}" for line in conditions)]
    for grid in grids:
        page += ["", f"## {grid.title}", "", *markdown_rows(grid.headings, grid.lines)]
    return "\n".join([*page, "", reading, *(["", after] if after else []), ""])


def markdown_rows(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table: the first column is text, the others are numbers."""
    rules = ("---", *("---:" for _ in headings[1:]))
    for line in (headings, rules, *lines):
        yield f"| {' | '.join(line)} |"
