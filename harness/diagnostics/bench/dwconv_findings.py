"""What the rows of the bench of the depth-wise convolution come to: gains, growth with the kernel, memory, targets.

A gain is how many times as fast as `nn.Conv2d` `harness` is: both given one layout, or each the layout that suits it
better. Source of the paper's figures: arXiv 2203.06717, Table 1 (RTX 2080 Ti, float32, PyTorch 1.9, cuDNN 7.6.5).
"""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from harness.diagnostics.bench.dwconv_candidates import CHOSEN, CONV2D
from harness.diagnostics.bench.dwconv_results import Row
from harness.diagnostics.bench.options import Shape

PAPER_GROWTH = {16: (1.5, 30.6), 32: (4.4, 33.6), 64: (6.2, 44.4)}
"""Of the latency from K=3 to K=31, by R: the paper's kernel, and PyTorch at the time."""
PAPER_GAIN = {16: 20.4, 32: 7.6, 64: 7.2}
"""Of the paper's kernel over PyTorch at K=31, by R."""
LARGE = 13
"""Kernels from here on are large."""
ROWS_GAIN = {"default": 15.0, "channels_last": 10.0}
"""The targets on a CPU, float32, forward + backward: geometric means of the gain over the large single layers."""
GPU_GAIN = {"forward": {16: 20.0, 32: 10.0, 64: 10.0}, "forward+backward": {16: 10.0, 32: 10.0, 64: 10.0}}
"""The targets on a GPU at K=31, by R, in float32 and in bfloat16."""


class Target(NamedTuple):
    """A ratio, and where it should be."""

    about: str
    ratio: float
    aim: float
    is_least: bool = True
    """Whether the aim is the least that the ratio should be; otherwise it is the most."""

    @property
    def is_met(self) -> bool:
        """Whether the ratio is on the good side."""
        return self.ratio >= self.aim if self.is_least else self.ratio <= self.aim


def gains(rows: Sequence[Row], layout: str | None = None) -> dict[Shape, float]:
    """By shape; with both given that layout, or each its better one for None."""
    found = {}
    for shape in dict.fromkeys(row.shape for row in rows):
        some = [row for row in rows if row.shape == shape and layout in (row.layout, None)]
        ours, theirs = (best_ms([row for row in some if row.algorithm == name]) for name in (CHOSEN, CONV2D))
        if ours is not None and theirs is not None:
            found[shape] = theirs / ours
    return found


def large(found: dict[Shape, float]) -> list[float]:
    """The gains of the large kernels among them."""
    return [gain for shape, gain in found.items() if shape.kernel >= LARGE]


def growth(rows: Sequence[Row], algorithm: str) -> float | None:
    """Of the milliseconds of an algorithm from K=3 to K=31, in its better layouts; the rows are of one side."""
    some = [row for row in rows if row.algorithm == algorithm]
    least, most = (best_ms([row for row in some if row.kernel == kernel]) for kernel in (3, 31))
    return None if least is None or most is None else most / least


def best_ms(rows: Sequence[Row]) -> float | None:
    """The least median among them; None where there is none."""
    return min((row.median_ms for row in rows if row.median_ms is not None), default=None)


def geometric_mean(values: Collection[float]) -> float:
    """Of ratios."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def memory(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """By algorithm and mode: the largest extra memory over the activations at any shape."""
    most: dict[tuple[str, str], float] = {}
    for row in rows:
        if row.extra_over_activations is not None:
            key = row.algorithm, row.mode
            most[key] = max(most.get(key, 0.0), row.extra_over_activations)
    return most


def targets(rows: Sequence[Row], device: str) -> Iterator[Target]:
    """Those that the rows can be held against; `device` is `cpu` or `cuda`."""
    for precision, mode in dict.fromkeys((row.precision, row.mode) for row in rows):
        some = [row for row in rows if (row.precision, row.mode) == (precision, mode)]
        if device == "cpu" and (precision, mode) == ("float32", "forward+backward"):
            yield from _on_cpu([row for row in some if row.block == "rows"])
        if device == "cuda" and precision in ("float32", "bfloat16"):
            yield from _on_gpu([row for row in some if row.block == "table 1"], precision, mode)
    yield from _memory(rows)


def _on_cpu(rows: Sequence[Row]) -> Iterator[Target]:
    for layout, aim in ROWS_GAIN.items():
        if found := large(gains(rows, layout)):
            name = layout.replace("_", "-")
            yield Target(
                f"geometric mean of the gain over {len(found)} large single layers, {name}", geometric_mean(found), aim
            )
    for shape, gain in gains(rows).items():
        yield Target(f"gain at {shape}, better layouts", gain, 1.0)


def _on_gpu(rows: Sequence[Row], precision: str, mode: str) -> Iterator[Target]:
    for shape, gain in gains(rows).items():
        if shape.kernel == 31 and shape.side in GPU_GAIN[mode]:
            yield Target(f"{precision}, {mode}: gain at {shape}", gain, GPU_GAIN[mode][shape.side])
    for side, (aim, _) in PAPER_GROWTH.items():
        found = growth([row for row in rows if row.side == side], CHOSEN)
        if found is not None and mode == "forward":
            yield Target(f"{precision}, {mode}: growth from K=3 to 31 at R={side}", found, aim, is_least=False)


def _memory(rows: Sequence[Row]) -> Iterator[Target]:
    for (algorithm, mode), most in memory(rows).items():
        if algorithm == CHOSEN:
            yield Target(f"{mode}: largest extra memory of {CHOSEN} over the activations", most, 2.0, is_least=False)
