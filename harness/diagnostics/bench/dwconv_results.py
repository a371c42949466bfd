"""Results of the bench of the depth-wise convolution: rows and their CSV; gains, growth, memory and targets.

The columns, one row per candidate, mode and shape:

    block                      `table 1`, or `rows` for the single layers of other shapes
    device, precision          what was computed on, and in what
    batch, channels, side,     N, C, R, K, and the number of stacked layers
    kernel, layers
    mode                       `forward` (nothing recorded) or `forward+backward` (input and kernel gradients)
    algorithm, layout          the candidate; layout is that of the input: `default` or `channels_last`
    n                          samples; 0 if it ran out of memory; the times are then empty
    median_ms, q1_ms, q3_ms    milliseconds for the whole stack: median, first and third quartile
    conv2d_ms,                 the medians of `nn.Conv2d` in both layouts, from the same rounds
    conv2d_channels_last_ms
    speedup,                   these two over this row's median
    speedup_channels_last
    macs, macs_in_bounds       multiply-accumulates of the whole stack, nominal and without the taps on zero padding
    share_of_product           MACs in bounds per second over those of a matrix product of the same precision
    share_of_copy              the least traffic (every activation read and written once) over that of a copy
    bound                      which of these two is the larger: `product` or `copy`
    extra_bytes                memory of one layer in addition to its input, its output and all gradients
    extra_over_activations     the same over the bytes of its input, its output and, in the second mode, their gradients
    peak_macs_per_s,           the matrix product and the copy, as measured in the same run
    peak_bytes_per_s

A gain is how many times as fast as `nn.Conv2d` `harness` is: both in the same layout, or each in its faster one.
Source of the paper's values: arXiv 2203.06717, Table 1 (RTX 2080 Ti, float32, PyTorch 1.9, cuDNN 7.6.5).
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

from harness.diagnostics.bench.base import CHOSEN, CONV2D, BenchResult, StackShape, grouped
from harness.models.cost import Cost
from harness.models.cost.layers import conv

TRAFFIC = {"forward": 2, "forward+backward": 5}
"""Minimum number of maps moved by a layer: x and y; for backward also x again, and the gradients of y and x."""
WORK = {"forward": 1, "forward+backward": 3}
"""Number of convolutions of a layer: the output, and the gradients of input and kernel."""
MAPS = {"forward": 2, "forward+backward": 4}
"""Number of activation maps of a layer: x and y, and their gradients."""
PAPER_GROWTH = {16: (1.5, 30.6), 32: (4.4, 33.6), 64: (6.2, 44.4)}
"""Growth of the latency from K=3 to K=31, by R: of the paper's kernel, and of PyTorch at the time."""
PAPER_GAIN = {16: 20.4, 32: 7.6, 64: 7.2}
"""Gain of the paper's kernel over PyTorch at K=31, by R."""
LARGE = 13
"""Smallest kernel size that counts as large."""
ROWS_GAIN = {"default": 15.0, "channels_last": 10.0}
"""The targets on a CPU, float32, forward + backward: geometric means of the gain over the large single layers."""
GPU_GAIN = {"forward": {16: 20.0, 32: 10.0, 64: 10.0}, "forward+backward": {16: 10.0, 32: 10.0, 64: 10.0}}
"""The targets on a GPU at K=31, by R, in float32 and in bfloat16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DwconvResult:
    """One candidate in one mode at one shape; see the module's docstring."""

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
    def shape(self) -> StackShape:
        """The shape of the stack."""
        return StackShape(self.batch, self.channels, self.side, self.kernel, self.layers)

    @property
    def speedup(self) -> float | None:
        """Speedup over `nn.Conv2d` in its default layout."""
        return _ratio(self.conv2d_ms, self.median_ms)

    @property
    def speedup_channels_last(self) -> float | None:
        """Speedup over `nn.Conv2d` in channels-last layout."""
        return _ratio(self.conv2d_channels_last_ms, self.median_ms)

    @property
    def macs(self) -> int:
        """MACs of the whole stack in this mode, nominal."""
        return self._cost.macs

    @property
    def macs_in_bounds(self) -> int:
        """MACs of the whole stack in this mode, without the taps on zero padding."""
        return self._cost.macs_in_bounds

    @property
    def share_of_product(self) -> float | None:
        """MACs in bounds per second, relative to a matrix product."""
        return _ratio(1000 * self.macs_in_bounds / self.peak_macs_per_s, self.median_ms)

    @property
    def share_of_copy(self) -> float | None:
        """Minimum traffic per second, relative to a copy."""
        moved = TRAFFIC[self.mode] * self.layers * self._map_bytes
        return _ratio(1000 * moved / self.peak_bytes_per_s, self.median_ms)

    @property
    def bound(self) -> str:
        """What limits a perfect algorithm: `product` or `copy`."""
        product, copy = self.share_of_product, self.share_of_copy
        return "" if product is None or copy is None else "product" if product > copy else "copy"

    @property
    def extra_over_activations(self) -> float | None:
        """Extra memory relative to that of input, output and, with the backward pass, their gradients."""
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
    """Write the named fields of all rows; None is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([_cell(getattr(row, column)) for column in columns] for row in rows)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def gains(results: Sequence[DwconvResult], layout: str | None = None) -> dict[StackShape, float]:
    """The gains by shape, with both in this layout, or each in its faster one for None."""
    by_shape = {}
    for shape, of_shape in grouped(results, "shape").items():
        some = [result for result in of_shape if layout in (result.layout, None)]
        ours, theirs = (best_ms([result for result in some if result.algorithm == name]) for name in (CHOSEN, CONV2D))
        if ours is not None and theirs is not None:
            by_shape[shape] = theirs / ours
    return by_shape


def large_kernel_gains(gains: dict[StackShape, float]) -> list[float]:
    """The gains of the large kernels."""
    return [gain for shape, gain in gains.items() if shape.kernel >= LARGE]


def growth(results: Sequence[DwconvResult], algorithm: str) -> float | None:
    """Growth of an algorithm's time from K=3 to K=31, in its faster layouts; the rows must have one side of the map."""
    some = [result for result in results if result.algorithm == algorithm]
    least, most = (best_ms([result for result in some if result.kernel == kernel]) for kernel in (3, 31))
    return None if least is None or most is None else most / least


def best_ms(results: Sequence[DwconvResult]) -> float | None:
    """The smallest median of the rows; None without one."""
    return min((result.median_ms for result in results if result.median_ms is not None), default=None)


def memory(results: Sequence[DwconvResult]) -> dict[tuple[str, str], float]:
    """The largest extra memory relative to the activations over all shapes, by algorithm and mode."""
    measured = [result for result in results if result.extra_over_activations is not None]
    groups = grouped(measured, "algorithm", "mode").items()
    return {key: max(0.0, *(result.extra_over_activations or 0.0 for result in group)) for key, group in groups}


def targets(results: Sequence[DwconvResult], device: str) -> Iterator[BenchResult]:
    """The targets that apply to these rows; `device` is `cpu` or `cuda`."""
    for (precision, mode), some in grouped(results, "precision", "mode").items():
        if device == "cpu" and (precision, mode) == ("float32", "forward+backward"):
            yield from _on_cpu([result for result in some if result.block == "rows"])
        if device == "cuda" and precision in ("float32", "bfloat16"):
            yield from _on_gpu([result for result in some if result.block == "table 1"], precision, mode)
    yield from _memory(results)


def _on_cpu(results: Sequence[DwconvResult]) -> Iterator[BenchResult]:
    for layout, aim in ROWS_GAIN.items():
        if ratios := large_kernel_gains(gains(results, layout)):
            name = layout.replace("_", "-")
            about = f"geometric mean of the gain over {len(ratios)} large single layers, {name}"
            yield BenchResult(name=about, unit="x", values=(geometric_mean(ratios),), at_least=aim)
    for shape, gain in gains(results).items():
        yield BenchResult(name=f"gain at {shape}, better layouts", unit="x", values=(gain,), at_least=1.0)


def _on_gpu(results: Sequence[DwconvResult], precision: str, mode: str) -> Iterator[BenchResult]:
    for shape, gain in gains(results).items():
        if shape.kernel == 31 and shape.side in GPU_GAIN[mode]:
            name = f"{precision}, {mode}: gain at {shape}"
            yield BenchResult(name=name, unit="x", values=(gain,), at_least=GPU_GAIN[mode][shape.side])
    for side, (aim, _) in PAPER_GROWTH.items():
        ratio = growth([result for result in results if result.side == side], CHOSEN)
        if ratio is not None and mode == "forward":
            name = f"{precision}, {mode}: growth from K=3 to 31 at R={side}"
            yield BenchResult(name=name, unit="x", values=(ratio,), at_most=aim)


def _memory(results: Sequence[DwconvResult]) -> Iterator[BenchResult]:
    for (algorithm, mode), most in memory(results).items():
        if algorithm == CHOSEN:
            name = f"{mode}: largest extra memory of {CHOSEN} over the activations"
            yield BenchResult(name=name, unit="x", values=(most,), at_most=2.0)
