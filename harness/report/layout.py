"""What all tables and texts of the terminal share."""

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def plain_table() -> Table:
    """A table without lines, as narrow as its content."""
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")


def indented(text: str, columns: int = 2) -> RenderableType:
    """A paragraph moved to the right."""
    return Padding(Text(text), (0, 0, 0, columns), expand=False)
