"""The terminal that the harness was called from: what it can show, how it is written to, and what was typed there."""

import os
from typing import NoReturn

from rich.console import Console

PIPE_WIDTH = 200
"""Columns where there is no terminal, so that tables in files and pipes are neither broken nor cut."""


class PlainConsole(Console):
    """A console that takes text as it is, and leaves a closed pipe to its caller."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise it again; rich would end the process."""
        raise BrokenPipeError


def make_console() -> Console:
    """The console on standard output."""
    console = PlainConsole(markup=False, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def is_live(console: Console) -> bool:
    """Whether the terminal can be drawn on."""
    return console.is_terminal and not console.is_dumb_terminal
