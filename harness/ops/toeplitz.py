"""The convolution as one matrix product per channel, from all input positions to all output positions.

The matrix of a channel holds at (input position, output position) the tap that connects the two: it is doubly Toeplitz.
Its columns, read backward, are windows of the flipped, padded kernel; so one strided copy builds it, and its transpose,
a sum over windows, gathers the weight gradient. Products with positions outside the kernel are wasted, so this is for
kernels that cover the map, and for batches large enough to make up for building the matrix.
Source: convolution as a Toeplitz matrix, as in any text on linear systems.

Shapes: N batch, C channels, H W sides of the input, H' W' of the output; x (N, C, H, W), weight (C, 1, KH, KW).
Extra memory: input and output (in the backward pass gradients too) with channels first, and the matrices of a chunk of
channels, a chunk being one channel or what fits into CHUNK_BYTES.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.ops.autograd_ops import output_size
from harness.ops.geometry import Algorithm, Pair, Window

CHUNK_BYTES = 4 << 20
"""Matrices processed at once, small enough to stay in the cache."""

LARGEST_MAP = 24 * 24
"""Most positions of input and output for which the matrices have a reasonable size."""


class _Toeplitz(torch.autograd.Function):
    """x (C, N, H W) and kernels as returned by `_reversed` -> (C, N, H' W')."""

    @staticmethod
    def forward(x: Tensor, kernels: Tensor, size: Pair, stride: Pair) -> Tensor:
        parts = zip(*_chunks(size, x, kernels), strict=True)
        return torch.cat([torch.bmm(rows, _matrices(taps, size, stride)) for rows, taps in parts])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Pair, Pair], output: Tensor) -> None:  # noqa: ARG004
        x, kernels, ctx.size, ctx.stride = inputs
        ctx.save_for_backward(x, kernels)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, kernels = ctx.saved_tensors
        needs_x, needs_kernels, *_ = ctx.needs_input_grad
        x_grads, kernel_grads = [], []
        with torch.autocast(x.device.type, enabled=False):  # for a backward pass called where autocast is on
            for rows, taps, grad in zip(*_chunks(ctx.size, x, kernels, grads[0].contiguous()), strict=True):
                if needs_x:
                    x_grads.append(torch.bmm(grad, _matrices(taps, ctx.size, ctx.stride).mT))
                if needs_kernels:
                    kernel_grads.append(_gathered(torch.bmm(rows.mT, grad), taps, ctx.size, ctx.stride))
        return torch.cat(x_grads) if needs_x else None, torch.cat(kernel_grads) if needs_kernels else None, None, None


def _matrices(taps: Tensor, size: Pair, stride: Pair) -> Tensor:
    """(C, H + s (H'-1), W + s (W'-1)) -> (C, H W, H' W'): windows as columns, each read backward; one copy."""
    windows = taps.unfold(1, size[0], stride[0]).unfold(2, size[1], stride[1])
    return windows.permute(0, 3, 4, 1, 2).flip(1, 2).flatten(3).flatten(1, 2)


def _gathered(matrices: Tensor, taps: Tensor, size: Pair, stride: Pair) -> Tensor:
    """The transpose of `_matrices`, one axis after the other."""
    (h, w), (sh, sw) = size, stride
    reaches = (taps.shape[1] - h + 1, taps.shape[2] - w + 1)
    outputs = [(reach - 1) // s + 1 for reach, s in zip(reaches, stride, strict=True)]
    windows = matrices.view(-1, *size, *outputs)
    columns = matrices.new_zeros(len(taps), w, taps.shape[1], outputs[1])
    for row in range(h):
        columns[:, :, row : row + reaches[0] : sh] += windows[:, h - 1 - row]
    gathered = torch.zeros_like(taps)
    for column in range(w):
        gathered[:, :, column : column + reaches[1] : sw] += columns[:, w - 1 - column]
    return gathered


def _chunks(size: Pair, x: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Split the channels into chunks."""
    area = size[0] * size[1]
    channels = max(1, CHUNK_BYTES // (area * area * x.element_size()))
    return [torch.split(tensor, channels) for tensor in (x, *others)]


def _reversed(weight: Tensor, size: Pair, output: Pair, window: Window) -> Tensor:
    """The flipped kernels, cropped or padded so that window (h', w') holds the taps of output (h', w') on the map."""
    pads = []
    for k, n, m, s, p in reversed(
        list(zip(weight.shape[-2:], size, output, window.stride, window.padding, strict=True))
    ):
        before = n + p - k
        pads += [before, n + (m - 1) * s - k - before]
    return F.pad(weight[:, 0].flip(1, 2), pads)


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    size, output = (x.shape[2], x.shape[3]), output_size(x, weight, *window)
    rows = x.transpose(0, 1).flatten(2)
    product: Tensor = _Toeplitz.apply(rows, _reversed(weight, size, output, window), size, window.stride)
    maps = product.view(*product.shape[:2], *output).transpose(0, 1)
    return (maps if bias is None else maps + bias[:, None, None]).contiguous(memory_format=torch.channels_last)


def _fits(x: Tensor, weight: Tensor, window: Window) -> bool:
    """No dilation, small maps, and a non-empty input and output."""
    height, width = output_size(x, weight, *window)
    area = max(x.shape[2] * x.shape[3], height * width)
    return window.dilation == (1, 1) and x.numel() > 0 and min(height, width) > 0 and area <= LARGEST_MAP


TOEPLITZ = Algorithm(run=_run, fits=_fits)
