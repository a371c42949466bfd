"""Tables with a title, for the terminal and as Markdown."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text


class ResultTable(NamedTuple):
    """A table under a title: the first column is text, the others are numbers."""

    title: str
    headings: tuple[str, ...]
    lines: list[tuple[str, ...]]


def table_text(grid: ResultTable) -> Group:
    """The table for the terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for position, heading in enumerate(grid.headings):
        table.add_column(heading.replace("-", "-\n"), justify="left" if position == 0 else "right", no_wrap=True)
    for line in grid.lines:
        table.add_row(*line)
    return Group(Text(grid.title, style="bold"), table)


def markdown(title: str, conditions: Iterable[str], grids: Iterable[ResultTable], reading: str, after: str = "") -> str:
    """A Markdown page: the conditions as a list, the tables with their titles, a note on reading them, and `after`."""
    page = [f"# {title}", "", *(f"- {line}" for line in conditions)]
    for grid in grids:
        page += ["", f"## {grid.title}", "", *_table(grid)]
    return "\n".join([*page, "", reading, *(["", after] if after else []), ""])


def _table(grid: ResultTable) -> Iterator[str]:
    rules = ("---", *("---:" for _ in grid.headings[1:]))
    for line in (grid.headings, rules, *grid.lines):
        yield f"| {' | '.join(line)} |"
