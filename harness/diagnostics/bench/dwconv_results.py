"""A row of the bench of the depth-wise convolution, and its CSV.

The columns, one row per contender, mode and shape:

    block                      `table 1`, or `rows` for the single layers of other shapes
    device, precision          what was computed on, and in what
    batch, channels, side,     N, C, R, K, and how many layers were stacked
    kernel, layers
    mode                       `forward` (nothing recorded) or `forward+backward` (input and kernel gradients)
    algorithm, layout          the contender; layout is that of the input: `default` or `channels_last`
    n                          samples; 0 where the memory did not suffice, and the figures are left empty
    median_ms, q1_ms, q3_ms    milliseconds for the whole stack: median, first and third quartile
    conv2d_ms,                 the medians of `nn.Conv2d` in both layouts, from the same rounds
    conv2d_channels_last_ms
    speedup,                   these two over this row's median
    speedup_channels_last
    macs, macs_in_bounds       multiply-accumulates of the whole stack, nominal and without the taps on zero padding
    share_of_product           MACs in bounds per second over those of a matrix product of the same precision
    share_of_copy              the least traffic (every activation read and written once) over that of a copy
    bound                      which of these two is the larger: `product` or `copy`
    extra_bytes                memory of one layer beside its input, its output and all gradients
    extra_over_activations     the same over the bytes of its input, its output and, in the second mode, their gradients
    peak_macs_per_s,           the matrix product and the copy, as measured in the same run
    peak_bytes_per_s
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.diagnostics.bench.options import Shape
from harness.models.cost import Cost
from harness.models.cost.layers import conv

TRAFFIC = {"forward": 2, "forward+backward": 5}
"""Maps of a layer's size that are moved at least: x and y; and then x and y's gradient again, and x's gradient."""
WORK = {"forward": 1, "forward+backward": 3}
"""Convolutions of a layer's size: the output, and the gradients of input and kernel."""
MAPS = {"forward": 2, "forward+backward": 4}
"""The activations that a layer works on: x and y, and their gradients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender in one mode at one shape; see above."""

    block: str
    device: str
    precision: str
    batch: int
    channels: int
    side: int
    kernel: int
    layers: int
    mode: str
    algorithm: str
    layout: str
    n: int
    median_ms: float | None
    q1_ms: float | None
    q3_ms: float | None
    conv2d_ms: float | None
    conv2d_channels_last_ms: float | None
    extra_bytes: int | None
    peak_macs_per_s: float
    peak_bytes_per_s: float
    element_bytes: int

    @property
    def shape(self) -> Shape:
        """Of the stack."""
        return Shape(self.batch, self.channels, self.side, self.kernel, self.layers)

    @property
    def speedup(self) -> float | None:
        """Over `nn.Conv2d` in its default layout."""
        return _ratio(self.conv2d_ms, self.median_ms)

    @property
    def speedup_channels_last(self) -> float | None:
        """Over `nn.Conv2d` in channels-last layout."""
        return _ratio(self.conv2d_channels_last_ms, self.median_ms)

    @property
    def macs(self) -> int:
        """Of the whole stack in this mode, nominal."""
        return self._cost.macs

    @property
    def macs_in_bounds(self) -> int:
        """Of the whole stack in this mode, without the taps on zero padding."""
        return self._cost.macs_in_bounds

    @property
    def share_of_product(self) -> float | None:
        """Of what a matrix product reaches."""
        return _ratio(1000 * self.macs_in_bounds / self.peak_macs_per_s, self.median_ms)

    @property
    def share_of_copy(self) -> float | None:
        """Of what a copy reaches."""
        moved = TRAFFIC[self.mode] * self.layers * self._map_bytes
        return _ratio(1000 * moved / self.peak_bytes_per_s, self.median_ms)

    @property
    def bound(self) -> str:
        """What would be the limit of a perfect algorithm."""
        product, copy = self.share_of_product, self.share_of_copy
        return "" if product is None or copy is None else "product" if product > copy else "copy"

    @property
    def extra_over_activations(self) -> float | None:
        """Extra memory over that of input, output and, with the backward pass, their gradients."""
        return _ratio(self.extra_bytes, MAPS[self.mode] * self._map_bytes)

    @property
    def _cost(self) -> Cost:
        layer = conv(self.side, self.side, self.channels, self.channels, k=self.kernel, groups=self.channels)
        return layer * (self.batch * self.layers * WORK[self.mode])

    @property
    def _map_bytes(self) -> int:
        return self.batch * self.channels * self.side**2 * self.element_bytes


COLUMNS = (
    *("block", "device", "precision", "batch", "channels", "side", "kernel", "layers", "mode", "algorithm", "layout"),
    *("n", "median_ms", "q1_ms", "q3_ms", "conv2d_ms", "conv2d_channels_last_ms", "speedup", "speedup_channels_last"),
    *("macs", "macs_in_bounds", "share_of_product", "share_of_copy", "bound", "extra_bytes", "extra_over_activations"),
    *("peak_macs_per_s", "peak_bytes_per_s"),
)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[object]) -> None:
    """The named fields of every row; nothing for what is None."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([_cell(getattr(row, column)) for column in columns] for row in rows)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under
