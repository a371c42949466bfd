"""What came of a format of a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from harness.analysis.formatting import DASH, duration
from harness.export.comparison import Held
from harness.report.console import plain_table

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """A format, and how its files hold."""

    format: str
    sizes: Mapping[str, int]
    """Of the files that it added, in bytes."""
    held: Held | None
    """None where the files could not be loaded."""
    wall_s: float
    """To write them, to load them and to hold them against the network."""
    fault: str | None = None
    """Why they may not stand for the network."""


def rows_table(rows: Sequence[Row]) -> Table:
    """A line per file; what it took stands with the first file of its format."""
    table = plain_table()
    table.add_column("file", no_wrap=True)
    for name in ("MiB", "difference", "relative", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        held = (DASH, DASH) if row.held is None else (f"{row.held.difference:.2g}", f"{row.held.relative:.2g}")
        figures = (*held, duration(row.wall_s))
        for name, size in row.sizes.items():
            table.add_row(name, f"{size / MIB:.2f}", *figures)
            figures = ("", "", "")
    return table
