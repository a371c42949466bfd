"""The console on standard output, and the tables and paragraphs that all views share."""

import os
from typing import NoReturn

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 200
"""Width in columns without a terminal, so that tables in files and pipes are neither wrapped nor cut."""


class PlainConsole(Console):
    """A console that prints text without markup, and raises `BrokenPipeError` for a closed pipe."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise the error again, where rich would exit the process."""
        raise BrokenPipeError


def make_console() -> Console:
    """The console on standard output."""
    console = PlainConsole(markup=False, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def is_live(console: Console) -> bool:
    """Whether the output is a terminal on which lines can be redrawn."""
    return console.is_terminal and not console.is_dumb_terminal


def plain_table() -> Table:
    """A table without lines, as narrow as its content."""
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")


def indented(text: str, columns: int = 2) -> RenderableType:
    """An indented paragraph."""
    return Padding(Text(text), (0, 0, 0, columns), expand=False)
