"""How a study is watched: live in a terminal, a line per event elsewhere, or not at all.

A view is a context manager; `note` says what is being done before and besides the events, `show` takes an event and
where the study stands with it.
"""

import sys
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self, TextIO

from harness.analysis.formatting import printable
from harness.analysis.results import Answer
from harness.report.event_text import Narrator
from harness.search.events import Progress, StudyEvent


class View(Protocol):
    """Whoever shows what happens."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def note(self, text: str) -> None:
        """Say what is being done now."""

    def begin(self, answer: Answer) -> None:
        """Take up what the study has said so far, before its first event."""

    def show(self, event: StudyEvent, progress: Progress) -> None:
        """Show an event."""


class Lines:
    """One line per event with its time, for files, pipes and logs; no control characters."""

    def __init__(self, narrator: Narrator, out: TextIO | None = None) -> None:
        self._narrator = narrator
        self._out = out or sys.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.flush()

    def note(self, text: str) -> None:
        """A line of its own."""
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {printable(text)}", file=self._out, flush=True)

    def begin(self, answer: Answer) -> None:
        """Remember which configuration each trial has."""
        self._narrator.learn(answer)

    def show(self, event: StudyEvent, progress: Progress) -> None:
        """The event, and how far the study is with it."""
        self.note(f"[{progress.runs_done}/{progress.runs_total}] {self._narrator.tell(event)}")


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def note(self, text: str) -> None:
        """Nothing."""

    def begin(self, answer: Answer) -> None:
        """Nothing."""

    def show(self, event: StudyEvent, progress: Progress) -> None:
        """Nothing."""
