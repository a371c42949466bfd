"""Benchmark of all algorithms of the large depth-wise convolution against `nn.Conv2d`, as in Table 1 of RepLKNet.

A candidate is a way to compute a stack of depth-wise layers, in one memory layout: `conv2d` is what `nn.Conv2d` calls,
`harness` what our blocks call, `tuned` the same with `autotune` on (which tunes again before it is timed). The others
are the algorithms that these two choose from, each where it is applicable; `stock` is omitted, since it is `conv2d`.
All candidates for a stack are timed in turn, in one process, on the same inputs.

Shapes: N batch, C channels, R side of the map, K side of the kernel.
Source: arXiv 2203.06717, Table 1: 24 layers, input (64, 384, R, R).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.diagnostics.bench.base import (
    CHOSEN,
    CONV2D,
    LAYOUTS,
    MODES,
    TUNED,
    DwconvOptions,
    ProgressCallback,
    StackShape,
    precisions_for,
)
from harness.diagnostics.bench.dwconv_results import DwconvResult
from harness.diagnostics.bench.machine import MEMORY_FORMATS, DevicePeak, at_precision, measure_peak
from harness.measures.speed import extra_bytes
from harness.ops import depthwise_conv2d
from harness.ops.autotune import autotune
from harness.ops.dispatch import ALGORITHMS
from harness.ops.geometry import Window, crop_kernel
from harness.ops.timing import FULL_TIMING, QUICK_TIMING, TimingBudget, Timings, time_interleaved
from harness.system.device_slot import measuring
from harness.system.machine import keep_freed_memory
from harness.training.device import device_name

Conv = Callable[[Tensor, Tensor], Tensor]
"""x (N, C, H, W), weight (C, 1, K, K) -> (N, C, H, W)"""


class DwconvCandidate(NamedTuple):
    """An algorithm, and the memory layout of its input."""

    algorithm: str
    layout: str


def dwconv_candidates(x: Tensor, weight: Tensor, folder: Path) -> dict[DwconvCandidate, Conv]:
    """All candidates that support these tensors, in both layouts; autotuning stores its results in `folder`."""
    convs: dict[str, Conv] = {CONV2D: _conv2d, CHOSEN: _chosen, TUNED: _tuned(folder)}
    convs |= {name: _by(name) for name in fitting(x, weight) if name != "stock"}
    return {DwconvCandidate(name, layout): conv for name, conv in convs.items() for layout in LAYOUTS}


def fitting(x: Tensor, weight: Tensor) -> list[str]:
    """The algorithms that support these tensors, with stride 1 and "same" padding."""
    weight, window = _cropped(x, weight)
    return [name for name, algorithm in ALGORITHMS.items() if algorithm.fits(x, weight, window)]


def _conv2d(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=weight.shape[0])


def _chosen(x: Tensor, weight: Tensor) -> Tensor:
    return depthwise_conv2d(x, weight, padding=weight.shape[-1] // 2)


def _tuned(folder: Path) -> Conv:
    def conv(x: Tensor, weight: Tensor) -> Tensor:
        with autotune(folder=folder):
            return _chosen(x, weight)

    return conv


def _by(name: str) -> Conv:
    def conv(x: Tensor, weight: Tensor) -> Tensor:
        weight, window = _cropped(x, weight)
        return ALGORITHMS[name].run(x, weight, None, window)

    return conv


def _cropped(x: Tensor, weight: Tensor) -> tuple[Tensor, Window]:
    return crop_kernel(weight, Window.of(1, weight.shape[-1] // 2, 1), (x.shape[2], x.shape[3]))


class DwconvSetting(NamedTuple):
    """The conditions under which the stacks are measured."""

    device: torch.device
    precision: str
    dtype: torch.dtype
    peak: DevicePeak
    timing: TimingBudget


def measure_dwconv(
    options: DwconvOptions, device: torch.device, tell: ProgressCallback, *, is_quick: bool
) -> Iterator[DwconvResult]:
    """A row for each candidate, mode and shape; `tell` is called with peaks and progress."""
    keep_freed_memory()  # as a worker does
    blocks = {
        "table 1": options.shapes(device.type, is_quick=is_quick),
        "rows": options.rows(is_quick=is_quick),
    }
    for precision in precisions_for(device.type, options.precisions):
        with at_precision(precision) as dtype:
            with measuring(device):
                peak = measure_peak(device, dtype)
            tell(f"Peak in {precision}: {peak}")
            setting = DwconvSetting(device, precision, dtype, peak, QUICK_TIMING if is_quick else FULL_TIMING)
            for block, shapes in blocks.items():
                for shape in shapes:
                    tell(f"measuring: {shape}, {precision}")
                    with TemporaryDirectory() as folder:
                        yield from _rows(block, shape, setting, Path(folder))


def _rows(block: str, shape: StackShape, setting: DwconvSetting, folder: Path) -> Iterator[DwconvResult]:
    stacks = Stacks(shape, setting, folder)
    for mode in MODES:
        times = time_interleaved(stacks.calls(mode), setting.device, setting.timing)
        conv2d = {key.layout: _milliseconds(timings) for key, timings in times.items() if key.algorithm == CONV2D}
        for candidate, timings in times.items():
            yield DwconvResult(
                block=block,
                device=device_name(setting.device),
                precision=setting.precision,
                **shape._asdict(),
                mode=mode,
                algorithm=candidate.algorithm,
                layout=candidate.layout,
                n=timings.n if timings else 0,
                median_ms=_milliseconds(timings),
                q1_ms=None if timings is None else 1000 * timings.quartiles[0],
                q3_ms=None if timings is None else 1000 * timings.quartiles[1],
                conv2d_ms=conv2d["default"],
                conv2d_channels_last_ms=conv2d["channels_last"],
                extra_bytes=stacks.extra(candidate, mode, timings),
                peak_macs_per_s=setting.peak.macs_per_s,
                peak_bytes_per_s=setting.peak.bytes_per_s,
                element_bytes=setting.dtype.itemsize,
            )


def _milliseconds(times: Timings | None) -> float | None:
    return None if times is None else 1000 * times.median


class Stacks:
    """The candidates for one shape, and the tensors that they share."""

    def __init__(self, shape: StackShape, setting: DwconvSetting, folder: Path) -> None:
        self._setting = setting
        self._tensors = {layout: _tensors(shape, setting, of) for layout, of in MEMORY_FORMATS.items()}
        some = self._tensors["default"]
        self._candidates = dwconv_candidates(some.x, some.weights[0], folder)

    def calls(self, mode: str) -> dict[DwconvCandidate, Callable[[], object]]:
        """The functions that are timed: the whole stack, computed by each candidate."""
        return {key: self._call(conv, mode, self._tensors[key.layout]) for key, conv in self._candidates.items()}

    def extra(self, candidate: DwconvCandidate, mode: str, times: Timings | None) -> int | None:
        """Memory of one layer in bytes, in addition to its input, its output and all gradients.

        None if the whole stack ran out of memory, or is so slow that it was run once.
        """
        if times is None or times.median > self._setting.timing.single_sample_s:
            return None
        tensors = self._tensors[candidate.layout]
        call = self._call(self._candidates[candidate], mode, tensors._replace(weights=tensors.weights[:1]))
        return extra_bytes(call, self._setting.device)

    def _call(self, conv: Conv, mode: str, tensors: "Tensors") -> Callable[[], Sequence[Tensor]]:
        run = {"forward": _forward, "forward+backward": _forward_backward}[mode]
        return lambda: run(conv, tensors)


class Tensors(NamedTuple):
    """The input of a stack, a kernel for each layer, and the gradient of its output, in one memory layout."""

    x: Tensor
    weights: tuple[Tensor, ...]
    upstream: Tensor


def _tensors(shape: StackShape, setting: DwconvSetting, layout: torch.memory_format) -> Tensors:
    """Normally distributed tensors; kernels are scaled by 1 / K, so that deep stacks neither vanish nor overflow."""
    n, c, r, k, layers = shape
    generator = torch.Generator(setting.device).manual_seed(0)

    def draw(*sides: int, scale: float = 1.0) -> Tensor:
        values = torch.randn(sides, generator=generator, device=setting.device) * scale
        return values.to(setting.dtype, memory_format=layout)

    x, upstream = draw(n, c, r, r).requires_grad_(), draw(n, c, r, r)
    return Tensors(x, tuple(draw(c, 1, k, k, scale=1 / k).requires_grad_() for _ in range(layers)), upstream)


@torch.no_grad()
def _forward(conv: Conv, tensors: Tensors) -> Sequence[Tensor]:
    y = tensors.x
    for weight in tensors.weights:
        y = conv(y, weight)
    return (y,)


def _forward_backward(conv: Conv, tensors: Tensors) -> Sequence[Tensor]:
    y = tensors.x
    for weight in tensors.weights:
        y = conv(y, weight)
    return (y, *torch.autograd.grad(y, (tensors.x, *tensors.weights), tensors.upstream))
