"""What checks yield: results that say by themselves whether they hold; and recorded claims, as `verify` shows them."""

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


class CheckGroup(NamedTuple):
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
    def holding(self) -> int:
        """How many of its findings hold."""
        return sum(len(line.findings) - len(line.failed) for line in self.lines)

    @property
    def failed(self) -> int:
        """How many do not."""
        return sum(len(line.failed) for line in self.lines)


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """What the runs of a study say of one of its claims; or, where they cannot be read, why."""

    study: str
    name: str
    """What the claim is called in its study."""
    says: str
    """The claim in a sentence."""
    verdict: str
    """As supported, contradicted, equivalent, undecided."""
    effect: float | None
    low: float | None
    """Of the effect's interval."""
    high: float | None
    n: int
    """Seeds that all arms have completed."""
    p: float | None
    unit: str
    """Of the effect: the metric that the claim is about."""
    paper: str | None
    """What was published, with its place."""
    device: str
    """That trained the runs."""
    environments: str = ""
    """Runs of other environments than this machine's, as `3 of 15 runs: torch 2.14`; empty where there are none."""
    limit: str | None = None
    """`chance` or `ceiling`, where all arms are there and nothing is told apart."""
    noise: str | None = None
    """Which sources of noise the interval holds."""
    fault: str | None = None
    """Why the recorded runs cannot be read; the one thing about a claim that is no finding but a fault."""
    source: str = ""
    """Where it is recorded: a database of runs, or a kept summary."""
    environment: str = ""
    """What is to be said of how the runs were computed, where it is not as they would be computed now."""
    conditions: str = ""
    """Of a kept summary: device, versions and seeds of its runs."""
    finished: str | None = None
    """When the last run was finished; ISO 8601 in UTC."""
    check: str = ""
    """Of a kept summary: whether it can be checked again here, by which command and in what time, or why not."""
    compared: str | None = None
    """Of a kept summary: how it stands to the runs that are stored here, where there are any."""
