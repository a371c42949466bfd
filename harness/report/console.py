"""The console on standard output, and the tables, paragraphs and status lines that all views share."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.status import Status

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


def plain_table(texts: Sequence[str | Text] = (), numbers: Sequence[str | Text] = (), *, no_wrap: bool = True) -> Table:
    """A table without lines, as narrow as its content: columns of text, then of numbers, with these headings."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in texts:
        table.add_column(name, no_wrap=no_wrap)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=no_wrap)
    return table


def indented(text: str) -> RenderableType:
    """An indented paragraph."""
    return Padding(Text(text), (0, 0, 0, 2), expand=False)


QUIET_S = 60.0
"""Seconds between two printed status lines if lines cannot be redrawn."""


class StatusLine:
    """Prints permanent lines, and a status line that is replaced by the next one."""

    def __init__(self, console: Console, status: "Status | None") -> None:
        self._console, self._status, self._last = console, status, time.monotonic()

    def print_line(self, text: str) -> None:
        """Print a permanent line."""
        self._console.print(Text(text))

    def update(self, text: str) -> None:
        """Replace the status line."""
        if self._status is not None:
            self._status.update(Text(text))
        elif time.monotonic() - self._last >= QUIET_S:
            self._last = time.monotonic()
            self.print_line(text)


@contextmanager
def make_status_line(console: Console, *, is_live: bool) -> Iterator[StatusLine]:
    """A status line for this console; `is_live` is whether lines can be redrawn on it."""
    if not is_live:
        yield StatusLine(console, None)
        return
    with console.status(Text("starting")) as status:
        yield StatusLine(console, status)
