"""What the bench finds, a figure with its repeats and its target; the effort put into it; the checkout it measures."""

import statistics
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.errors import UserError

ROOT = Path(harness.__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """One row of the bench's table; the median of its values stands for it."""

    name: str
    unit: str
    """`s`, `ms`, `MB`, or `x` for a ratio."""
    values: tuple[float, ...]
    at_most: float | None = None
    """The target, where less is better."""
    at_least: float | None = None
    """The target, where more is better."""
    is_part: bool = False
    """Whether it is a share of the figure above it, or what that was made of."""

    @property
    def median(self) -> float:
        """Of all repeats."""
        return statistics.median(self.values)

    @property
    def target(self) -> float | None:
        """The one that it has, if it has one."""
        return self.at_most if self.at_most is not None else self.at_least

    @property
    def ratio(self) -> float | None:
        """The figure over its target."""
        return None if self.target is None else self.median / self.target

    @property
    def is_met(self) -> bool | None:
        """Whether the figure is on the good side of its target; None without one."""
        if self.ratio is None:
            return None
        return self.ratio <= 1 if self.at_most is not None else self.ratio >= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSize:
    """How often, and on how much, everything is measured."""

    helps: int = 7
    """Processes that print the help."""
    starts: int = 3
    """Studies started with each executor."""
    trials: tuple[int, ...] = (100, 2000)
    """Lengths of a study at which the driver's cost is looked at."""
    window: int = 50
    """Trials around each of these lengths."""
    rounds: int = 5
    """Rounds of proxies; a round has every way of training them once."""


FULL_SIZE = BenchSize()


QUICK_SIZE = BenchSize(helps=3, starts=1, trials=(100, 300), rounds=1)


def run_study() -> str:
    """The path of `run_study.py`. Raises `UserError` where the harness is installed without its repository."""
    door = ROOT / "run_study.py"
    if not door.exists():
        raise UserError(
            "the bench must find the repository around the harness",
            place=str(door),
            remedy="Run `make bench` in a clone of the repository.",
        )
    return str(door)
