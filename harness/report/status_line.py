"""A status line: redrawn in place on a terminal, otherwise printed again at intervals."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text

QUIET_S = 60.0
"""Seconds between two printed status lines if lines cannot be redrawn."""


class StatusLine:
    """Prints permanent lines, and a status line that is replaced by the next one."""

    def __init__(self, console: Console, status: Status | None) -> None:
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
