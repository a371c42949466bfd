"""The results of `harness verify`: findings of checks, and rows of recorded claims."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from harness.config.study import Pairing

Plain = int | float | str


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison of an expected with a found value."""

    what: str
    expected: Plain
    found: Plain
    source: str
    """The source of the expected value."""
    tolerance: float = 0.0
    """Absolute tolerance of a number; 0 for texts."""

    @property
    def holds(self) -> bool:
        """Whether the found value is the expected one, within the tolerance; never for NaN."""
        if isinstance(self.expected, str) or isinstance(self.found, str):
            return self.found == self.expected
        return abs(self.found - self.expected) <= self.tolerance

    @property
    def is_error(self) -> bool:
        """Whether the found value is an error that should be 0, and is bounded by the tolerance."""
        return self.expected == 0 and self.tolerance > 0


class Check(NamedTuple):
    """One check: its title, and the function that yields its findings."""

    title: str
    run: Callable[[], Iterator[Finding]]
    is_slow: bool = False
    """Whether it runs only with `--full`."""


class CheckGroup(NamedTuple):
    """The checks of one subject."""

    about: str
    checks: tuple[Check, ...]


class Line(NamedTuple):
    """A check that was run, with its findings."""

    title: str
    findings: tuple[Finding, ...]
    """Empty if there is nothing to check on this machine."""

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings that do not hold."""
        return tuple(finding for finding in self.findings if not finding.holds)


class Section(NamedTuple):
    """A subject whose checks were run."""

    name: str
    about: str
    lines: tuple[Line, ...]
    wall_s: float

    @property
    def holding(self) -> int:
        """The number of findings that hold."""
        return sum(len(line.findings) - len(line.failed) for line in self.lines)

    @property
    def failed(self) -> int:
        """The number of findings that do not hold."""
        return sum(len(line.failed) for line in self.lines)


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """The result of a recorded claim; or, if its runs cannot be read, the reason."""

    study: str
    name: str
    """Name of the claim in its study."""
    says: str
    """The claim as a sentence."""
    verdict: str
    """`supported`, `contradicted`, `equivalent` or `undecided`."""
    effect: float | None
    low: float | None
    """Bounds of the effect's interval: this and `high`."""
    high: float | None
    n: int
    """Number of seeds that all arms have completed."""
    p: float | None
    unit: str
    """Metric of the effect."""
    paper: str | None
    """The published result, with its place in the paper."""
    device: str
    """Device that trained the runs."""
    environments: str = ""
    """Runs of other environments than this machine's, as `3 of 15 runs: torch 2.14`; empty if there are none."""
    limit: str | None = None
    """`chance` or `ceiling` if all arms are at this limit, where they cannot be distinguished."""
    noise: str | None = None
    """The sources of noise that the interval covers."""
    fault: str | None = None
    """Why the recorded runs cannot be read; unlike a verdict, this counts as a failure."""
    source: str = ""
    """Where the claim is recorded: a database of runs, or a stored summary."""
    environment: str = ""
    """A note if the runs were computed in an environment that differs from the current one."""
    conditions: str = ""
    """For a stored summary: device, versions and seeds of its runs."""
    finished: str | None = None
    """When the last run was finished; ISO 8601 in UTC."""
    check: str = ""
    """For a stored summary: whether it can be checked again here, by which command and in what time, or why not."""
    pairing: Pairing = "seed"
    """`search.pairing` of its study."""
    compared: str | None = None
    """For a stored summary: its comparison with the runs in the database, if there are any."""
