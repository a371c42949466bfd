"""Direct convolution on CPUs, tap by tap in vectors of channels: output, input gradient and weight gradient.

All three are one sum, y[a] = sum over i of taps[i] x[a step + i spread - start]: for the output the taps are the
kernel, for the input gradient the kernel flipped, for the weight gradient the output's gradient, summed over images.
The loops (`direct_kernel`) skip taps outside the map, so only taps inside it cost time. Sums have the dtype of the
inputs; equal calls with an equal number of threads return bitwise equal results.

Shapes: x (N, C, H, W), weight (C, 1, KH, KW), bias (C,); inside, all maps are (N, H, W, C).
Extra memory: for each thread one lane (LANE_BYTES of channels) of one image and of one kernel or output gradient; one
copy of the kernels; for the weight gradient one copy of the kernels per thread; a copy of maps that are not in
channels-last layout or whose channels do not fill whole lanes.
"""

import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.ops.autograd_ops import CONVOLVE, CORRELATE, Convolve, output_size, register_operator
from harness.ops.direct_kernel import LANE_BYTES, LoopArguments, Loops, best_block, compiled
from harness.ops.geometry import Algorithm, Pair, Window
from harness.system.machine import available_cpus

DTYPES = (torch.float32, torch.float64)

THREAD_MACS = 2_000_000
"""Multiply-adds (about a tenth of a millisecond) from which another thread is worth its overhead."""


MapShape = tuple[int, ...]


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """The depth-wise convolution; channels-last."""
    maps, kernels = _lanes(x), _lanes(weight.transpose(0, 1))
    y = maps.new_empty(len(x), *output_size(x, weight, stride, padding, dilation), maps.shape[3])
    _fill(y, maps, kernels, _Slide(tuple(padding), tuple(stride), tuple(dilation)), _threads(y, maps, kernels))
    y = y[..., : x.shape[1]]
    return (y if bias is None else y + bias).contiguous().permute(0, 3, 1, 2)


def _correlate(
    x: Tensor, grad: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """The weight's gradient (C, 1, *kernel) from the input and the output's gradient."""
    maps, taps = _lanes(x), _lanes(grad)
    y = maps.new_zeros(1, *kernel, maps.shape[3])
    threads, lanes = _threads(y, maps, taps), maps.shape[3] * maps.element_size() // LANE_BYTES
    if lanes % threads and lanes < 4 * threads:  # lanes alone would leave threads idle
        y = y.repeat(min(threads, len(x)), 1, 1, 1)
    _fill(y, maps, taps, _Slide(tuple(padding), tuple(dilation), tuple(stride)), threads)
    return y.sum(0)[..., : x.shape[1]].permute(2, 0, 1).unsqueeze(1).contiguous()


class _Slide(NamedTuple):
    """Positions of the taps along height and width: for output a, tap i reads input a step + i spread - start."""

    start: tuple[int, ...]
    step: tuple[int, ...]
    spread: tuple[int, ...]


class _Schedule(NamedTuple):
    """The parts of a computation that depend on shapes alone."""

    loops: Loops
    buffer_sizes: Pair
    """Numbers in one lane of a map with its margins, and in one lane of taps."""
    shares: list[tuple[Any, int]]
    """For each thread the arguments of the compiled loops, and the index of its first map of y."""


def _fill(y: Tensor, x: Tensor, taps: Tensor, slide: _Slide, threads: int) -> None:
    """Compute y (N, H', W', C) from x (N, H, W, C) and taps (1, KH, KW, C).

    If every image has its own taps (N, KH, KW, C), add up the images in as many groups as y has maps, which must hold
    zeros. N and C are those of x.
    """
    plan = _schedule(tuple(y.shape), tuple(x.shape), tuple(taps.shape), x.element_size(), slide, threads)

    def compute(numbers: Any, first: int) -> None:
        buffers = [x.new_empty(size) for size in plan.buffer_sizes]
        addresses = (tensor.data_ptr() for tensor in (x, taps, y[first], *buffers))
        plan.loops(*addresses, ctypes.addressof(numbers))

    in_parallel([functools.partial(compute, *share) for share in plan.shares])


@functools.lru_cache(maxsize=1024)
def _schedule(y: MapShape, x: MapShape, taps: MapShape, bytes_each: int, slide: _Slide, threads: int) -> _Schedule:
    is_added = taps[0] > 1
    lane, (_, rows, columns, c) = LANE_BYTES // bytes_each, x
    call = LoopArguments(
        first_image=0, end_image=x[0], first_lane=0, end_lane=c // lane,
        rows=rows, columns=columns, tap_rows=taps[1], tap_columns=taps[2], out_rows=y[1], out_columns=y[2],
        top=slide.start[0], left=slide.start[1], step_h=slide.step[0], spread_h=slide.spread[0],
        spread_w=slide.spread[1], x_image=rows * columns * c, x_row=columns * c, x_column=c,
        taps_image=taps[1] * taps[2] * c if is_added else 0, taps_row=taps[2] * c, taps_column=c,
        y_image=0 if is_added else y[1] * y[2] * c, y_row=y[2] * c, y_column=c, is_added=int(is_added),
    )  # fmt: skip
    block, step_w = best_block(y[2]), slide.step[1]
    buffer_sizes = rows * (columns + 2 * step_w * (block - 1)) * lane, taps[1] * taps[2] * lane
    shares = [((ctypes.c_int64 * len(call))(*part), first) for part, first in _shares(call, y[0], threads)]
    return _Schedule(compiled(8 * bytes_each, block, step_w), buffer_sizes, shares)


def _shares(call: LoopArguments, maps: int, threads: int) -> Iterator[tuple[LoopArguments, int]]:
    """Split the call into about equal parts, each with the index of its first map."""
    if maps > 1 if call.is_added else call.end_image >= threads:
        parts = ranges(call.end_image, maps if call.is_added else threads)
        for group, (first, end) in enumerate(parts):
            yield call._replace(first_image=first, end_image=end), group if call.is_added else 0
    else:
        for first, end in ranges(call.end_lane, threads):
            yield call._replace(first_lane=first, end_lane=end), 0


def ranges(total: int, parts: int) -> list[Pair]:
    """The ends of about equal ranges that divide `total` items, at least one in each."""
    parts = min(total, parts)
    return list(pairwise(total * i // parts for i in range(parts + 1)))


def _threads(y: Tensor, x: Tensor, taps: Tensor) -> int:
    threads = torch.get_num_threads()
    macs = y[0].numel() * taps.shape[1] * taps.shape[2] * len(x) if threads > 1 else 0
    return max(1, min(threads, macs // THREAD_MACS))


def in_parallel(tasks: Sequence[Callable[[], None]]) -> None:
    """Run all tasks, the first in this thread and the others in a pool: the compiled loops release the GIL."""
    first, *others = tasks
    futures = [_pool(os.getpid()).submit(task) for task in others]
    first()
    for future in futures:
        future.result()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001
    """The thread pool of a process; a forked process has none of its parent's threads, so it needs its own."""
    return ThreadPoolExecutor(available_cpus(), thread_name_prefix="direct")


def _lanes(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), contiguous, C padded to whole lanes."""
    missing = -x.shape[1] % (LANE_BYTES // x.element_size())
    maps = x.permute(0, 2, 3, 1)
    return (F.pad(maps, (0, missing)) if missing else maps).contiguous()


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, *window: list[int]) -> Tensor:  # noqa: ARG001
    n, c = x.shape[:2]
    return x.new_empty(n, *output_size(x, weight, *window), c).permute(0, 3, 1, 2)


def _correlated(x: Tensor, grad: Tensor, kernel: list[int], *window: list[int]) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape[1], 1, *kernel)


OPERATORS = (
    register_operator("direct_conv2d", CONVOLVE, "cpu", _convolve, _convolved),
    register_operator("direct_correlate2d", CORRELATE, "cpu", _correlate, _correlated),
)


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    y: Tensor = Convolve.apply(*OPERATORS, x, weight, bias, *map(list, window))
    return y


def _fits(x: Tensor, weight: Tensor, window: Window) -> bool:
    """On a CPU, in single or double precision, with a non-empty input and output."""
    has_output = min(output_size(x, weight, *window)) > 0
    return x.device.type == "cpu" and x.dtype in DTYPES and x.numel() > 0 and has_output


DIRECT = Algorithm(run=_run, fits=_fits)
