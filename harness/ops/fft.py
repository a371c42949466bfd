"""Convolution as a product of spectra, with Fourier transforms computed as matrix products.

The maps are so small (side n, period L = n + padding, made odd) that multiplying by a dense matrix of cosines and sines
takes less time than a fast transform: it has the speed of a matrix product, reads the n existing values instead of L,
computes only the needed positions, and stays in channels-last layout. A period of n + padding, not n + K - 1, is
enough: values that wrap around land at positions that are not read.

With x^ = U_x x, k^ = U_k k and g^ = U_y g the transforms at the positions of input, kernel and output, the output is
U_y' (x^ k^), the gradients are U_x' (g^ conj k^) and U_k' (sum over n of conj x^ g^).
Source: the convolution theorem. Rounding errors are relative to the largest value of a map, not to each value.

Shapes: N batch, C channels, H W height and width, all maps here (N, H, W, C); spectra (N, F, 2, M, C) with F = (L+1)/2
frequencies along the height, 2 for real and imaginary part, M = L or L+1 along the width.
Extra memory (`extra_bytes`): twice the spectra of the kernels (F 2 M C numbers), four times those of a chunk of images,
a chunk being one image or what fits into CHUNK_BYTES, and one copy of the result. For the backward pass only input and
kernels are saved.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.ops.geometry import Algorithm, Pair, Window

CHUNK_BYTES = 1 << 20
"""Spectra of images processed at once: larger chunks do not fit into the cache, and their memory is returned to the
system and mapped again page by page (a third of the time at 2 << 20); smaller chunks have more overhead per call."""

REAL_FROM = 44
"""Period along the width from which its transform is computed as two real transforms instead of a complex one."""

DTYPES = (torch.float32, torch.float64)


class _Grid(NamedTuple):
    """Positions of a map's values along height and width, and the periods of the transform."""

    rows: range
    columns: range
    periods: Pair


class _Grids(NamedTuple):
    """Grids of input, kernel and output; input position + kernel position = output position."""

    x: _Grid
    kernel: _Grid
    y: _Grid


def _grids(size: Pair, kernel: Pair, window: Window) -> _Grids:
    sides = zip(size, kernel, *window, strict=True)
    axes = [
        (range(n), range(p, p - d * k, -d), range(0, n + 2 * p - d * (k - 1), s), (n + p) | 1)
        for n, k, s, p, d in sides
    ]
    (xr, kr, yr, period_h), (xc, kc, yc, period_w) = axes
    periods = (period_h, period_w)
    return _Grids(_Grid(xr, xc, periods), _Grid(kr, kc, periods), _Grid(yr, yc, periods))


class _Filter(torch.autograd.Function):
    """x (N, H, W, C) and kernels (1, KH, KW, C) -> output; its backward pass consists of differentiable operators."""

    @staticmethod
    def forward(x: Tensor, kernels: Tensor, grids: _Grids) -> Tensor:
        spectrum = _kernel_spectrum(kernels, grids)
        return _joined(
            [
                _transposed_transform(_multiply(_transform(part, grids.x), spectrum), grids.y)
                for part in _chunks(x, grids)
            ]
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, _Grids], output: Tensor) -> None:  # noqa: ARG004
        x, kernels, ctx.grids = inputs
        ctx.save_for_backward(x, kernels)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, kernels = ctx.saved_tensors
        grids: _Grids = ctx.grids
        needs_x, needs_kernels, _ = ctx.needs_input_grad
        x_grads, total = [], None
        with torch.autocast(x.device.type, enabled=False):  # for a backward pass called where autocast is on
            conjugate = _conjugate(_kernel_spectrum(kernels, grids)) if needs_x else None
            for part, grad in zip(_chunks(x, grids), _chunks(grads[0].contiguous(), grids), strict=True):
                grad_spectrum = _transform(grad, grids.y)
                if conjugate is not None:
                    x_grads.append(_transposed_transform(_multiply(grad_spectrum, conjugate), grids.x))
                if needs_kernels:
                    total = _add(total, _correlate(_transform(part, grids.x), grad_spectrum))
            return _joined(x_grads) if needs_x else None, None if total is None else _kernels(total, grids), None


def weight_gradient(x: Tensor, grad: Tensor, kernel: Pair, window: Window) -> Tensor:
    """The weight gradient (C, 1, *kernel) of a convolution of x (N, C, H, W), from the output's gradient `grad`."""
    grids = _grids((x.shape[2], x.shape[3]), kernel, window)
    total = None
    for part, upstream in zip(_chunks(_channels_last(x), grids), _chunks(_channels_last(grad), grids), strict=True):
        total = _add(total, _correlate(_transform(part, grids.x), _transform(upstream, grids.y)))
    assert total is not None, "an empty batch does not fit"
    return _kernels(total, grids).permute(3, 0, 1, 2)


def _kernel_spectrum(kernels: Tensor, grids: _Grids) -> Tensor:
    """(1, KH, KW, C) -> (F, 2, M, C), scaled for the inverse transform."""
    return _transform(kernels, grids.kernel)[0] * _shares(grids.kernel, kernels)


def _kernels(spectrum: Tensor, grids: _Grids) -> Tensor:
    """(F, 2, M, C) -> (1, KH, KW, C): the transpose of `_kernel_spectrum`."""
    return _transposed_transform((spectrum * _shares(grids.kernel, spectrum)).unsqueeze(0), grids.kernel)


def _conjugate(spectrum: Tensor) -> Tensor:
    return torch.stack([spectrum[:, 0], -spectrum[:, 1]], 1)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _chunks(x: Tensor, grids: _Grids) -> tuple[Tensor, ...]:
    """Split the batch into chunks, at the same images for the input and for the output's gradient."""
    return torch.split(x, max(1, CHUNK_BYTES // _spectrum_bytes(grids, x.shape[-1], x.element_size())))


def _spectrum_bytes(grids: _Grids, channels: int, element_bytes: int) -> int:
    height, width = grids.x.periods
    return (height + 1) * (width + 1) * channels * element_bytes


def extra_bytes(x: Tensor, weight: Tensor, window: Window) -> int:
    """Approximate upper bound on the bytes that forward and backward pass need besides arguments and results."""
    grids = _grids((x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3]), window)
    spectrum = _spectrum_bytes(grids, x.shape[1], x.element_size())
    images = min(x.shape[0], max(1, CHUNK_BYTES // spectrum))
    return (2 + 4 * images) * spectrum + x.numel() * x.element_size()


def _add(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more


def _multiply(x: Tensor, kernels: Tensor) -> Tensor:
    """Complex product of x (N, F, 2, M, C) and kernels (F, 2, M, C), which all images share."""
    y = x * kernels[:, :1]
    y[:, :, 0].addcmul_(x[:, :, 1], kernels[:, 1], value=-1)
    y[:, :, 1].addcmul_(x[:, :, 0], kernels[:, 1])
    return y


def _correlate(x: Tensor, grad: Tensor) -> Tensor:
    """Sum over the images of conj(x) grad: (N, F, 2, M, C) twice -> (F, 2, M, C)."""
    by_real, by_imaginary = ((grad * x[:, :, i : i + 1]).sum(0) for i in (0, 1))
    return torch.stack([by_real[:, 0] + by_imaginary[:, 1], by_real[:, 1] - by_imaginary[:, 0]], 1)


def _transform(x: Tensor, grid: _Grid) -> Tensor:
    """(N, H, W, C) -> (N, F, 2, M, C): the sum of x[u, v] exp(i (a u + b v)) for frequencies a of the half spectrum."""
    n, h, w, c = x.shape
    rows = _table(_half_spectrum_table, grid.rows, grid.periods[0], x)
    z = (rows @ x.reshape(n, h, w * c)).view(-1, 2 * w, c)
    if grid.periods[1] < REAL_FROM:
        y = _table(_full_spectrum_table, grid.columns, grid.periods[1], x) @ z
    else:
        columns = _table(_half_spectrum_table, grid.columns, grid.periods[1], x)
        (cc, cs), (sc, ss) = ((part[:, 0::2], part[:, 1::2]) for part in (columns @ z.view(-1, 2, w, c)).unbind(1))
        y = torch.cat([cc - ss, cc + ss, sc + cs, sc - cs], 1)
    return y.view(n, grid.periods[0] // 2 + 1, 2, -1, c)


def _transposed_transform(spectrum: Tensor, grid: _Grid) -> Tensor:
    """(N, F, 2, M, C) -> (N, H, W, C): the transpose of `_transform`."""
    n, f, _, m, c = spectrum.shape
    if grid.periods[1] < REAL_FROM:
        z = _table(_full_spectrum_table, grid.columns, grid.periods[1], spectrum).mT @ spectrum.view(n * f, 2 * m, c)
    else:
        real, real_turned, imaginary, imaginary_turned = spectrum.view(n * f, 4, -1, c).unbind(1)
        cosine = torch.stack([real + real_turned, imaginary + imaginary_turned], 1)
        sine = torch.stack([imaginary - imaginary_turned, real_turned - real], 1)
        columns = _table(_half_spectrum_table, grid.columns, grid.periods[1], spectrum).mT
        z = columns @ torch.stack([cosine, sine], 3).flatten(2, 3)
    rows = _table(_half_spectrum_table, grid.rows, grid.periods[0], spectrum).mT
    return (rows @ z.view(n, 2 * f, -1)).view(n, len(grid.rows), len(grid.columns), c)


def _shares(grid: _Grid, like: Tensor) -> Tensor:
    """(F, 1, M, 1): the weight of each number of the spectrum in the inverse transform."""
    height, width = grid.periods
    rows = torch.full((height // 2 + 1, 1, 1, 1), 2 / (height * width), dtype=like.dtype, device=like.device)
    rows[0] /= 2
    if width < REAL_FROM:
        return rows.expand(-1, -1, width, -1)
    columns = torch.ones(width + 1, 1, dtype=like.dtype, device=like.device)
    columns[width // 2 + 1] = 0  # frequency zero is in both halves
    return rows * columns


def _table(kind: Callable[..., NDArray[Any]], positions: range, period: int, like: Tensor) -> Tensor:
    is_compiling = torch.compiler.is_compiling()  # the compiler ignores the cache, with a warning
    make = kind if is_compiling else partial(_cached_table, kind)
    return torch.from_numpy(make(positions, period, like.dtype == torch.float64)).to(like.device)


@lru_cache(maxsize=512)
def _cached_table(kind: Callable[..., NDArray[Any]], *arguments: Any) -> NDArray[Any]:
    return kind(*arguments)


def _half_spectrum_table(positions: range, period: int, is_double: bool) -> NDArray[Any]:
    """(2F, n): alternating cosine and sine, for each frequency from zero to half."""
    angle = _angles(period // 2 + 1, positions, period)
    return np.stack([np.cos(angle), np.sin(angle)], 1).reshape(-1, len(positions)).astype(_dtype(is_double))


def _full_spectrum_table(positions: range, period: int, is_double: bool) -> NDArray[Any]:
    """(2L, 2n): the complex transform of n numbers at all frequencies; real parts first, then imaginary."""
    angle = _angles(period, positions, period)
    cosine, sine = np.cos(angle), np.sin(angle)
    upper, lower = np.concatenate([cosine, -sine], 1), np.concatenate([sine, cosine], 1)
    return np.concatenate([upper, lower]).astype(_dtype(is_double))


def _angles(frequencies: int, positions: range, period: int) -> NDArray[Any]:
    turns: NDArray[Any] = np.arange(frequencies)[:, None] * np.array(list(positions)) % period
    return turns * (2 * np.pi / period)


def _dtype(is_double: bool) -> type[np.floating[Any]]:
    return np.float64 if is_double else np.float32


def _channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    grids = _grids((x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3]), window)
    output: Tensor = _Filter.apply(_channels_last(x), _channels_last(weight.transpose(0, 1)), grids)
    return (output if bias is None else output + bias).permute(0, 3, 1, 2)


def _fits(x: Tensor, weight: Tensor, window: Window) -> bool:
    """Single or double precision, with a non-empty input and output."""
    grids = _grids((x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3]), window)
    has_output = all(len(positions) > 0 for positions in grids.y[:2])
    return x.dtype in DTYPES and x.numel() > 0 and has_output


FFT = Algorithm(run=_run, fits=_fits)
