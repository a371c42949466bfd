"""What a check yields: plain results, each of which says by itself whether it holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

Plain = int | float | str


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison: what was looked at, what it must be, what it is."""

    what: str
    expected: Plain
    found: Plain
    source: str
    """Where the expected value is from."""
    tolerance: float = 0.0
    """How far a number may be off; 0 for texts."""

    @property
    def holds(self) -> bool:
        """Whether it is what it must be; a number that is none (NaN) never is."""
        if isinstance(self.expected, str) or isinstance(self.found, str):
            return self.found == self.expected
        return abs(self.found - self.expected) <= self.tolerance

    @property
    def is_error(self) -> bool:
        """Whether it is about a difference that should be none, and is bounded by the tolerance."""
        return self.expected == 0 and self.tolerance > 0


class Check(NamedTuple):
    """One line of the table: a title and the function that yields what stands behind it."""

    title: str
    run: Callable[[], Iterator[Finding]]
    is_slow: bool = False
    """Whether it is made on demand only."""


class Subject(NamedTuple):
    """Checks about one thing."""

    about: str
    checks: tuple[Check, ...]


class Line(NamedTuple):
    """A check that was made."""

    title: str
    findings: tuple[Finding, ...]
    """None where there is nothing to check on this machine."""

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Those that do not hold."""
        return tuple(finding for finding in self.findings if not finding.holds)


class Section(NamedTuple):
    """A subject whose checks were made."""

    name: str
    about: str
    lines: tuple[Line, ...]
    wall_s: float

    @property
    def held(self) -> int:
        """How many of its findings hold."""
        return sum(len(line.findings) - len(line.failed) for line in self.lines)

    @property
    def failed(self) -> int:
        """How many do not."""
        return sum(len(line.failed) for line in self.lines)
