"""Images of noise that a network and its files are given, how far the files' logits are off, and the table of both.

Shapes: N images, C channels, R side of the images that the network is made for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from harness.analysis.formatting import DASH, format_duration
from harness.errors import ExportFailure, UserError
from harness.export.exportable import Exportable
from harness.models.equivalence import max_error
from harness.report.console import plain_table

TOLERANCE = 1e-4
"""Of the difference of two logits, relative to the scale of the probes; in float32, where each layer rounds at 6e-8."""
LEAST_SCALE = 0.01
"""Of the largest logit: below, rounding alone would be a fault."""
EXAMPLE_BATCHES = (1, 3)
"""Images at once at R x R; 2 more of another size, where the graphs take it."""
Network = Callable[[Tensor], Tensor]
"""(N, C, H, W) -> logits (N, classes)."""
MIB = 1 << 20


class ExampleInputs(NamedTuple):
    """Batches of images, and what the network as it was given makes of them."""

    images: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]

    @property
    def scale(self) -> float:
        """How far images move a logit from its mean, at most: what a faulty file would get wrong.

        Not the largest logit, which in a network with fresh weights is little but the classifier's bias.
        """
        logits = torch.cat(self.logits).double()
        moved, largest = (logits - logits.mean(0)).abs().max(), logits.abs().max()
        return max(float(moved), LEAST_SCALE * float(largest), torch.finfo(torch.float32).tiny)


class Comparison(NamedTuple):
    """A file held against the network, over all probes."""

    difference: float
    """The largest of two logits; NaN where one is not a number."""
    relative: float
    """To the scale of the probes."""

    @property
    def is_close(self) -> bool:
        """Whether the file may stand for the network."""
        return self.relative <= TOLERANCE


@torch.no_grad()
def example_inputs(exportable: Exportable) -> ExampleInputs:
    """Several numbers of images and, where graphs are open to it, another height and width than R.

    Raises `UserError` for a network whose logits are not finite.
    """
    side, generator = exportable.resolution, torch.Generator().manual_seed(0)
    shapes = [(n, side, side) for n in EXAMPLE_BATCHES]
    if exportable.least_side is not None:
        shapes.append((2, side + max(1, side // 8), side + max(1, side // 4)))
    channels = exportable.spec.in_channels
    images = tuple(torch.randn(n, channels, high, wide, generator=generator) for n, high, wide in shapes)
    logits = tuple(exportable.network.model(batch) for batch in images)
    if not all(bool(each.isfinite().all()) for each in logits):
        raise UserError("the network must give finite logits to be exported", value=exportable.network.name)
    return ExampleInputs(images, logits)


@torch.no_grad()
def compare(network: Network, examples: ExampleInputs) -> Comparison:
    """How far the logits of a network that was loaded back are off. Raises `ExportFailure` for another shape."""
    differences = []
    for images, expected in zip(examples.images, examples.logits, strict=True):
        output = network(images)
        if output.shape != expected.shape:
            raise ExportFailure(f"gives {tuple(output.shape)} for logits {tuple(expected.shape)}")
        differences.append(float((output.double() - expected.double()).abs().max()))
    difference = max_error(differences)
    return Comparison(difference, difference / examples.scale)


@dataclass(frozen=True, slots=True)
class FormatResult:
    """A format, and how its files hold."""

    format: str
    sizes: Mapping[str, int]
    """Of the files that it added, in bytes."""
    comparison: Comparison | None
    """None where the files could not be loaded."""
    wall_s: float
    """To write them, to load them and to hold them against the network."""
    error: str | None = None
    """Why they may not stand for the network."""


def rows_table(results: Sequence[FormatResult]) -> Table:
    """A line per file; what it took stands with the first file of its format."""
    table = plain_table()
    table.add_column("file", no_wrap=True)
    for name in ("MiB", "difference", "relative", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        held = (
            (DASH, DASH)
            if result.comparison is None
            else (f"{result.comparison.difference:.2g}", f"{result.comparison.relative:.2g}")
        )
        figures = (*held, format_duration(result.wall_s))
        for name, size in result.sizes.items():
            table.add_row(name, f"{size / MIB:.2f}", *figures)
            figures = ("", "", "")
    return table
