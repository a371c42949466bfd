"""The convolution on GPUs as products of banded matrices, computed by tensor cores (kernels: `triton_kernels`).

Two operators are enough for derivatives of any order (`autograd_ops`). Sums are in float32. Factors in float32 are
rounded to TF32 where PyTorch allows cuDNN to do so, and are otherwise split into three products, which keeps the
precision of float32. Equal calls return bitwise equal results.

Every pixel of a row is multiplied by zeros of the band, too, so an infinity or a NaN spreads along its row further than
the kernel reaches. Extra memory: the kernel with zeros around it, in up to eight copies but no more than the size of
the maps; for inputs in channels-last layout, which these kernels cannot read, a copy of the input and of the output.
Shapes: x (N, C, H, W), weight (C, 1, KH, KW).
"""

from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from harness.ops.autograd_ops import CONVOLVE, CORRELATE, Convolve, output_size, register_operator
from harness.ops.geometry import Algorithm, Pair, Window
from harness.ops.triton_tiles import (
    ALIGNED,
    ConvShape,
    GradientTile,
    Margins,
    Tile,
    forward_tiles,
    gradient_tile,
    margins,
)

HAS_TRITON = find_spec("triton") is not None

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

OPTIONS = {"enable_fp_fusion": True}
"""Passed explicitly because Triton 3.9 warns where the default is used."""

LARGEST_SIDE = 63
"""Largest kernel side, including dilation; a larger kernel would not fit into the registers."""

WORTHWHILE_TAPS = 49
"""Rule of thumb, calculated, not measured: from 7x7. PyTorch has special kernels up to 5x5, and at those sizes reading
the map limits both."""


def banded_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """The depth-wise convolution; the stride must be 1. The output is contiguous, in the dtype of x."""
    assert max(stride) == 1, "a call with another stride does not fit"
    x, weight, (ph, pw) = x.contiguous(), _insert_zeros(weight, dilation), padding
    shape = ConvShape._make((x.shape[0], *x.shape[2:], *weight.shape[2:], ph, pw))
    out = x.new_empty(*x.shape[:2], *shape.out)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        launch_convolve(x, weight, bias, out, shape, forward_tiles(shape, x.element_size(), _lanes(x.dtype))[0])
    return out


def banded_correlate2d(
    x: Tensor, grad: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """The weight's gradient (C, 1, KH, KW) from input and output gradient, in x's dtype; the stride must be 1."""
    assert max(stride) == 1, "a call with another stride does not fit"
    x, grad, (n, c), (ph, pw), (dh, dw) = x.contiguous(), grad.contiguous(), x.shape[:2], padding, dilation
    sides = _sides(kernel, dilation)
    shape = ConvShape._make((n, *x.shape[2:], *sides, ph, pw))
    tile = gradient_tile(shape, c, _depth(x.dtype))
    sums = x.new_empty(tile.splits, c, *sides, dtype=torch.float32)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _launch_correlate(x, grad, sums, shape, tile)
    return sums[..., ::dh, ::dw].sum(0).to(x.dtype).unsqueeze(1)


def launch_convolve(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, shape: ConvShape, tile: Tile) -> None:
    """Launch the forward kernel with a given tile; measurements of the tiles call it, too."""
    from harness.ops import triton_kernels

    zeros = margins(shape, tile, _depth(x.dtype))
    height, pitch = shape.kh + zeros.top + zeros.bottom, shape.kw + zeros.left + zeros.right
    taps = _lay_out(weight.contiguous(), height * pitch, pitch, zeros, _copies(x, out, height * pitch))
    columns = tile.images * tile.blocks
    triton_kernels.convolve[(x.shape[1] * tile.programs(shape),)](
        x, taps, bias, out, shape.n, x.shape[1],
        H=shape.h, W=shape.w, HO=shape.out[0], WO=shape.out[1], KH=shape.kh, PH=shape.ph, PW=shape.pw,
        TAPS=height * pitch, PITCH=pitch, ORIGIN=zeros.top * pitch + zeros.left, COPIES=taps.shape[1],
        STRIP=tile.strip, REACH=tile.reach, ROWS=tile.rows, BLOCKS=tile.blocks, IMAGES=tile.images, ALIGNED=ALIGNED,
        BM=tile.bm, BK=_depth(x.dtype), HAS_BIAS=bias is not None, PRECISION=_precision(x.dtype),
        num_warps=8 if tile.bm * columns >= 16384 else 4, num_stages=_stages(x, tile.bm + columns), **OPTIONS,
    )  # fmt: skip


def _launch_correlate(x: Tensor, grad: Tensor, sums: Tensor, shape: ConvShape, tile: GradientTile) -> None:
    from harness.ops import triton_kernels

    c = x.shape[1]
    triton_kernels.correlate[(c * -(-shape.kh // tile.rows) * tile.splits,)](
        x, grad, sums, shape.n, c,
        H=shape.h, W=shape.w, HO=shape.out[0], WO=shape.out[1], KH=shape.kh, KW=shape.kw, PH=shape.ph, PW=shape.pw,
        STRIP=tile.strip, LEFT=tile.left, REACH=tile.reach, ROWS=tile.rows, SPLITS=tile.splits,
        BM=tile.bm, BO=tile.bo, BR=_depth(x.dtype), QI=tile.qi, QJ=tile.qj, PRECISION=_precision(x.dtype),
        num_warps=8 if tile.bm * tile.bo >= 8192 else 4, num_stages=_stages(x, tile.bm + tile.bo), **OPTIONS,
    )  # fmt: skip


def _copies(x: Tensor, out: Tensor, taps: int) -> int:
    """Number of copies of the taps: enough for loads of 16 bytes, but no more memory than the maps take."""
    copies = 16 // x.element_size()
    while copies > 1 and copies * taps * x.shape[1] > x.numel() + out.numel():
        copies //= 2
    return copies


def _lay_out(weight: Tensor, taps: int, pitch: int, zeros: Margins, copies: int) -> Tensor:
    from harness.ops import triton_kernels

    c, _, kh, kw = weight.shape
    result = weight.new_empty(c, copies, taps)
    triton_kernels.lay_out[(c, -(-copies * taps // 1024))](
        weight, result, KH=kh, KW=kw, TOP=zeros.top, LEFT=zeros.left, TAPS=taps, PITCH=pitch, COPIES=copies, BLOCK=1024,
        **OPTIONS,
    )  # fmt: skip
    return result


def _depth(dtype: torch.dtype) -> int:
    """Number of terms summed in one product: 128 bytes of each factor's lines."""
    return 128 // dtype.itemsize


def _stages(x: Tensor, lines: int) -> int:
    """Number of pipeline stages: 128 bytes of each line per stage must fit into shared memory."""
    if x.device.type != "cuda":
        return 1
    shared_bytes = torch.cuda.get_device_properties(x.device).shared_memory_per_block_optin
    return int(max(1, min(3, shared_bytes // (128 * lines))))


def _precision(dtype: torch.dtype) -> str:
    """Triton's input precision for float32, by the setting of PyTorch's convolutions."""
    is_rounded = torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    return "tf32" if is_rounded or dtype != torch.float32 else "tf32x3"


def _lanes(dtype: torch.dtype) -> int:
    """Multiply-accumulates per clock and multiprocessor of a Hopper GPU's tensor cores."""
    if dtype != torch.float32:
        return 2048
    return 1024 if _precision(dtype) == "tf32" else 1024 // 3


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, *window: list[int]) -> Tensor:  # noqa: ARG001
    return x.new_empty(*x.shape[:2], *output_size(x, weight, *window))


def _correlated(x: Tensor, grad: Tensor, kernel: list[int], *window: list[int]) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape[1], 1, *kernel)


OPERATORS = (
    register_operator("banded_conv2d", CONVOLVE, "default", banded_conv2d, _convolved),
    register_operator("banded_correlate2d", CORRELATE, "default", banded_correlate2d, _correlated),
)


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    is_channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    y: Tensor = Convolve.apply(*OPERATORS, x, weight, bias, *map(list, window))
    return y.contiguous(memory_format=torch.channels_last) if is_channels_last else y


def _insert_zeros(weight: Tensor, dilation: Sequence[int]) -> Tensor:
    """The equivalent kernel without dilation, with zeros between the taps."""
    if tuple(dilation) == (1, 1):
        return weight
    spread = weight.new_zeros(weight.shape[0], 1, *_sides(weight.shape[2:], dilation))
    spread[..., :: dilation[0], :: dilation[1]] = weight
    return spread


def _sides(kernel: Sequence[int], dilation: Sequence[int]) -> Pair:
    height, width = (d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    return height, width


def _fits(x: Tensor, weight: Tensor, window: Window) -> bool:
    """An NVIDIA GPU with TF32 and bfloat16, Triton, a type in `DTYPES`, stride 1, and less padding than kernel side."""
    sides = _sides(weight.shape[2:], window.dilation)
    return (
        x.device.type == "cuda"
        and x.dtype in DTYPES
        and x.numel() > 0
        and window.stride == (1, 1)
        and max(sides) <= LARGEST_SIDE
        and all(p < side for p, side in zip(window.padding, sides, strict=True))
        and HAS_TRITON
        and torch.version.hip is None
        and torch.cuda.get_device_capability(x.device) >= (8, 0)
    )


def is_worthwhile(weight: Tensor) -> bool:
    """The rule of thumb for a call that fits, used when nothing was measured."""
    return weight.shape[2] * weight.shape[3] >= WORTHWHILE_TAPS


TRITON = Algorithm(run=_run, fits=_fits)
