"""How something goes, in a line: drawn over where that can be done, else said again now and then."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text

QUIET_S = 60.0
"""How often it is said where lines cannot be drawn over."""


class StatusLine:
    """Says what stays, and what is soon outdated."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console, self._status, self._last = console, status, time.monotonic()

    def print_line(self, text: str) -> None:
        """A line that stays."""
        self._console.print(Text(text))

    def update(self, text: str) -> None:
        """A line that the next one replaces."""
        if self._status is not None:
            self._status.update(Text(text))
        elif time.monotonic() - self._last >= QUIET_S:
            self._last = time.monotonic()
            self.print_line(text)


@contextmanager
def make_status_line(console: Console, *, is_live: bool) -> Iterator[StatusLine]:
    """One that fits where the output goes: `is_live` is whether lines can be drawn over there."""
    if not is_live:
        yield StatusLine(console, None)
        return
    with console.status(Text("starting")) as status:
        yield StatusLine(console, status)
