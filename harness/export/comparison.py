"""Test inputs of noise, comparison of the logits of exported files with those of the network, and the result table.

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
"""Maximum difference of two logits, relative to the examples' scale; in float32, where each layer rounds at 6e-8."""
LEAST_SCALE = 0.01
"""Minimum scale, as a share of the largest logit: with a smaller one, rounding errors would exceed the tolerance."""
EXAMPLE_BATCHES = (1, 3)
"""Batch sizes at R x R; a further batch of 2 has another size, if the graphs accept it."""
Network = Callable[[Tensor], Tensor]
"""(N, C, H, W) -> logits (N, classes)."""
MIB = 1 << 20


class ExampleInputs(NamedTuple):
    """Batches of images, and the logits of the original network on them."""

    images: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]

    @property
    def scale(self) -> float:
        """The largest deviation of a logit from its mean over images, which is what a faulty file would get wrong.

        The largest logit would not do: in a network with fresh weights it is little more than the classifier's bias.
        """
        logits = torch.cat(self.logits).double()
        moved, largest = (logits - logits.mean(0)).abs().max(), logits.abs().max()
        return max(float(moved), LEAST_SCALE * float(largest), torch.finfo(torch.float32).tiny)


class Comparison(NamedTuple):
    """Differences between a file's logits and the network's, over all example inputs."""

    difference: float
    """The largest difference of two logits; NaN if one of them is NaN."""
    relative: float
    """The difference divided by the scale of the example inputs."""

    @property
    def is_close(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.relative <= TOLERANCE


@torch.no_grad()
def example_inputs(exportable: Exportable) -> ExampleInputs:
    """Batches of several sizes, one with another height and width than R if the graphs accept it, and their logits.

    Raises `UserError` for a network whose logits are not finite.
    """
    side, generator = exportable.resolution, torch.Generator().manual_seed(0)
    shapes = [(n, side, side) for n in EXAMPLE_BATCHES]
    if exportable.least_side is not None:
        shapes.append((2, side + max(1, side // 8), side + max(1, side // 4)))
    channels = exportable.spec.in_channels
    images = tuple(torch.randn(n, channels, high, wide, generator=generator) for n, high, wide in shapes)
    logits = tuple(exportable.network.model(batch) for batch in images)
    if not all(bool(output.isfinite().all()) for output in logits):
        raise UserError("the network must return finite logits to be exported", value=exportable.network.name)
    return ExampleInputs(images, logits)


@torch.no_grad()
def compare(network: Network, examples: ExampleInputs) -> Comparison:
    """Compare the logits of a network that was loaded back. Raises `ExportFailure` if they have another shape."""
    differences = []
    for images, expected in zip(examples.images, examples.logits, strict=True):
        output = network(images)
        if output.shape != expected.shape:
            raise ExportFailure(f"returns {tuple(output.shape)} for logits {tuple(expected.shape)}")
        differences.append(float((output.double() - expected.double()).abs().max()))
    difference = max_error(differences)
    return Comparison(difference, difference / examples.scale)


@dataclass(frozen=True, slots=True)
class FormatResult:
    """Result of exporting one format."""

    format: str
    sizes: Mapping[str, int]
    """Sizes in bytes of the files that it added, by name."""
    comparison: Comparison | None
    """None if the files could not be loaded."""
    wall_s: float
    """Seconds to write the files, to load them and to compare them with the network."""
    error: str | None = None
    """Why the files cannot be used; None if they are correct."""


def rows_table(results: Sequence[FormatResult]) -> Table:
    """Table of the results, one row per file; differences and time are in the row of a format's first file."""
    table = plain_table(("file",), ("MiB", "difference", "relative", "time"))
    for result in results:
        differences = [DASH] * 2 if result.comparison is None else [f"{value:.2g}" for value in result.comparison]
        cells = (*differences, format_duration(result.wall_s))
        for name, size in result.sizes.items():
            table.add_row(name, f"{size / MIB:.2f}", *cells)
            cells = ("", "", "")
    return table
