"""Shared by all benches: results with their targets, sizes, options, tables, and the checkout that is measured.

The defaults of options fit the device; nothing here imports torch.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Group
from rich.table import Table
from rich.text import Text

import harness
from harness.errors import UserError
from harness.models.spec.network import NetworkSpec
from harness.report.console import plain_table
from harness.report.tables import ResultTable, markdown_rows

ROOT = Path(harness.__file__).parent.parent
Row = TypeVar("Row")
ProgressCallback = Callable[[str], None]
MODES = ("forward", "forward+backward")
NETWORK_MODES = ("inference", "training")
LAYOUTS = ("default", "channels_last")
CONV2D = "conv2d"
"""What `nn.Conv2d` calls; the algorithm `stock` is the same."""
CHOSEN = "harness"
"""What our blocks call, with the algorithm that the default heuristic selects."""
TUNED = "tuned"
"""The same with `autotune` on: the fastest algorithm on this machine."""
KERNELS = (3, 5, 7, 9, 13, 17, 21, 27, 29, 31)
SIDES = (16, 32, 64)
"""Sides of the maps in Table 1 of the RepLKNet paper (arXiv 2203.06717)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """One row of the bench's table: a metric with its repeats; their median is its value."""

    name: str
    unit: str
    """`s`, `ms`, `MB`, or `x` for a ratio."""
    values: tuple[float, ...]
    at_most: float | None = None
    """The target, if less is better."""
    at_least: float | None = None
    """The target, if more is better."""
    is_part: bool = False
    """Whether it is a part of the metric above it, or a value from which that was computed."""

    @property
    def median(self) -> float:
        """The median of all repeats."""
        return statistics.median(self.values)

    @property
    def target(self) -> float | None:
        """The target, whatever its direction; None without one."""
        return self.at_most if self.at_most is not None else self.at_least

    @property
    def sign(self) -> str:
        """The direction of the target."""
        return "≤" if self.at_most is not None else "≥"

    @property
    def ratio(self) -> float | None:
        """The median divided by the target; None without one."""
        return None if self.target is None else self.median / self.target

    @property
    def is_met(self) -> bool | None:
        """Whether the median meets its target; None without one."""
        if self.ratio is None:
            return None
        return self.ratio <= 1 if self.at_most is not None else self.ratio >= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSize:
    """The sizes and the number of repeats of all measurements."""

    helps: int = 7
    """Number of processes that print the help."""
    starts: int = 3
    """Number of studies started with each executor."""
    trials: tuple[int, ...] = (100, 2000)
    """Lengths of a study at which the driver's cost is measured."""
    window: int = 50
    """Number of trials around each of these lengths."""
    rounds: int = 5
    """Rounds of proxies and of trials; a round trains once in every way."""
    overhead_trials: int = 40
    """Trials of a study, and of Ray Tune, whose overhead is measured."""


FULL_SIZE = BenchSize()
QUICK_SIZE = BenchSize(helps=3, starts=1, trials=(100, 300), rounds=1, overhead_trials=10)


def grouped(results: Iterable[Row], *names: str) -> dict[Any, list[Row]]:
    """The results by the values of these fields, in the order of the first of each group."""
    groups: dict[Any, list[Row]] = {}
    for result in results:
        groups.setdefault(attrgetter(*names)(result), []).append(result)
    return groups


def run_study() -> str:
    """The path of `run_study.py`. Raises `UserError` if the harness is installed without its repository."""
    script = ROOT / "run_study.py"
    if not script.exists():
        rule = "the bench needs the repository of the harness"
        raise UserError(rule, place=str(script), remedy="Run `make bench` in a clone of the repository.")
    return str(script)


def empty_table(headings: Sequence[str]) -> Table:
    """A table for the terminal, without rows: the first column is text, the others are numbers."""
    table = plain_table(headings[:1], headings[1:])
    table.header_style = "bold"
    return table


def table_text(result: ResultTable) -> Group:
    """The table for the terminal."""
    table = empty_table([heading.replace("-", "-\n") for heading in result.headings])
    for row in result.rows:
        table.add_row(*row)
    return Group(Text(result.title, style="bold"), table)


def markdown(
    title: str, conditions: Iterable[str], tables: Iterable[ResultTable], reading: str, after: str = ""
) -> str:
    """A Markdown page: the conditions as a list, the tables with their titles, a note on reading them, and `after`."""
    page = [f"# {title}", "", *(f"- {line}" for line in conditions)]
    for table in tables:
        page += ["", f"## {table.title}", "", *markdown_rows(table.headings, table.rows)]
    return "\n".join([*page, "", reading, *(["", after] if after else []), ""])


class StackShape(NamedTuple):
    """A stack of equal depth-wise layers: N `batch`, C `channels`, square maps and square kernels."""

    batch: int
    channels: int
    side: int
    kernel: int
    layers: int = 1

    def __str__(self) -> str:
        deep = f" x{self.layers}" if self.layers > 1 else ""
        return f"({self.batch}, {self.channels}, {self.side}, {self.side}) K={self.kernel}{deep}"


ROWS = (
    StackShape(8, 128, 56, 31),
    StackShape(8, 256, 28, 29),
    StackShape(8, 512, 14, 27),
    StackShape(8, 1024, 7, 13),
    StackShape(32, 32, 32, 31),
    StackShape(64, 384, 16, 31),
    StackShape(32, 64, 16, 13),
    StackShape(32, 32, 32, 5),
    StackShape(32, 32, 32, 3),
)
"""Single layers: the four stages of RepLKNet-31B at 224 px, stages of proxies, and one entry of Table 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DwconvOptions:
    """Options of `harness bench dwconv`; None and empty values are replaced by defaults that fit the device."""

    device: str | None = None
    precisions: tuple[str, ...] = ()
    batch: int | None = None
    channels: int | None = None
    layers: int | None = None
    sides: tuple[int, ...] = ()
    kernels: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether no option was given, so that all defaults of the device are measured."""
        return all(getattr(self, field.name) in (None, ()) for field in fields(self))

    def shapes(self, device: str, *, is_quick: bool) -> tuple[StackShape, ...]:
        """The stacks of Table 1; on a CPU, where they would take hours, one layer on (8, 128, R, R)."""
        batch, channels, layers = (64, 384, 24) if device == "cuda" else (8, 128, 1)
        sides, kernels = (self.sides or SIDES), (self.kernels or KERNELS)
        if is_quick:
            sides, kernels = (self.sides or (16, 32)), (self.kernels or (3, 13, 31))
        return tuple(
            StackShape(self.batch or batch, self.channels or channels, side, kernel, self.layers or layers)
            for side in sides
            for kernel in kernels
        )

    def rows(self, *, is_quick: bool) -> tuple[StackShape, ...]:
        """The rows of single layers; none if sizes were given."""
        has_size = bool(self.batch or self.channels or self.layers or self.sides or self.kernels)
        return () if is_quick or has_size else ROWS


BASELINES = ("swin_base_patch4_window7_224", "swin_base_patch4_window12_384", "convnext_base")
"""The default baselines of timm: the networks that the paper compares, with similar MACs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Options of `harness bench network`; None and empty values are replaced by defaults that fit the device."""

    networks: Mapping[str, NetworkSpec]
    """The networks by the names that the tables have for them."""
    resolutions: tuple[int, ...] = (224,)
    beside: tuple[str, ...] = BASELINES
    device: str | None = None
    precisions: tuple[str, ...] = ()
    batch: int | None = None

    def batch_for(self, device: str) -> int:
        """The batch size: the paper's 64 on a GPU, 1 on a CPU."""
        return self.batch or (64 if device == "cuda" else 1)


def precisions_for(device: str, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """The given precisions; by default float32, and on a GPU also bfloat16."""
    return chosen or (("float32", "bfloat16") if device == "cuda" else ("float32",))
