"""The convolution on GPUs as products of banded matrices, computed by tensor cores (the kernels: `triton_kernels`).

Both gradients are of the same kind: that of the input is the convolution of the output's gradient with the flipped
kernel, that of the weight a correlation, whose own gradients are convolutions again. So two operators suffice, and
derivatives of any order. Sums are in float32. In float32 the factors are rounded to TF32 where PyTorch lets cuDNN do
so, and are otherwise split into three products, which keeps float32's precision. Equal calls give equal bits.

Zeros of the band meet every pixel of a row, so that an infinity or a NaN spreads along its rows further than the
kernel reaches. Extra memory: the kernel with zeros around it, in up to eight copies but no more than the maps take; for
inputs in channels-last layout, which these kernels cannot read, a copy of the map on the way in and one on the way out.
Shapes: x (N, C, H, W), weight (C, 1, KH, KW).
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from harness.ops.triton_tiles import ALIGNED, GradientTile, Margins, Shape, Tile, forward_tiles, gradient_tile, margins
from harness.ops.window import Algorithm, Window

HAS_TRITON = find_spec("triton") is not None

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

OPTIONS = {"enable_fp_fusion": True}
"""Said to Triton 3.9, which warns where it is left to its default."""

LARGEST_SIDE = 63
"""Of a kernel, with its dilation; a larger one would not fit into the registers."""

WORTHWHILE_TAPS = 49
"""Rule of thumb, from arithmetic, unmeasured: from 7x7 on. PyTorch has special kernels up to 5x5, and there reading the
map is what bounds both."""


@torch.library.custom_op("harness::banded_conv2d", mutates_args=())
def banded_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    """The depth-wise convolution with stride 1; contiguous, in the type of x."""
    x, (ph, pw) = x.contiguous(), padding
    shape = Shape._make((x.shape[0], *x.shape[2:], *weight.shape[2:], ph, pw))
    out = x.new_empty(*x.shape[:2], *shape.out)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        launch_convolve(x, weight, bias, out, shape, forward_tiles(shape, x.element_size(), _lanes(x.dtype))[0])
    return out


@torch.library.custom_op("harness::banded_correlate2d", mutates_args=())
def banded_correlate2d(x: Tensor, grad: Tensor, padding: list[int], kernel: list[int]) -> Tensor:
    """The weight's gradient from the input and the output's: (C, 1, KH, KW), in the type of x."""
    x, grad, (n, c), (ph, pw) = x.contiguous(), grad.contiguous(), x.shape[:2], padding
    shape = Shape._make((n, *x.shape[2:], *kernel, ph, pw))
    tile = gradient_tile(shape, c, _depth(x.dtype))
    sums = x.new_empty(tile.splits, c, *kernel, dtype=torch.float32)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _launch_correlate(x, grad, sums, shape, tile)
    return sums.sum(0).to(x.dtype).unsqueeze(1)


def launch_convolve(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, shape: Shape, tile: Tile) -> None:
    """The forward kernel under a given cut: what a measurement of the cuts calls."""
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


def _launch_correlate(x: Tensor, grad: Tensor, sums: Tensor, shape: Shape, tile: GradientTile) -> None:
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
    """As many as make for loads of 16 bytes, while they take no more memory than the maps."""
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
    """Terms of a sum in one product: 128 bytes of each factor's lines."""
    return 128 // dtype.itemsize


def _stages(x: Tensor, lines: int) -> int:
    """How many steps ahead a program may load: 128 bytes of each line in each step, in shared memory."""
    if x.device.type != "cuda":
        return 1
    room = torch.cuda.get_device_properties(x.device).shared_memory_per_block_optin
    return int(max(1, min(3, room // (128 * lines))))


def _precision(dtype: torch.dtype) -> str:
    """How a product treats float32: as PyTorch's convolutions may."""
    is_rounded = torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    return "tf32" if is_rounded or dtype != torch.float32 else "tf32x3"


def _lanes(dtype: torch.dtype) -> int:
    """Multiply-accumulates per clock and multiprocessor of a Hopper GPU's tensor cores."""
    if dtype != torch.float32:
        return 2048
    return 1024 if _precision(dtype) == "tf32" else 1024 // 3


@banded_conv2d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:  # noqa: ARG001
    height, width = (n + 2 * p - k + 1 for n, p, k in zip(x.shape[2:], padding, weight.shape[2:], strict=True))
    return x.new_empty(*x.shape[:2], height, width)


@banded_correlate2d.register_fake
def _(x: Tensor, grad: Tensor, padding: list[int], kernel: list[int]) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape[1], 1, *kernel)


def _keep_for_conv(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, list[int]], output: Tensor) -> None:  # noqa: ARG001
    x, weight, _, ctx.padding = inputs
    ctx.save_for_backward(x, weight)


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
    return (
        _input_gradient(grad, weight, ctx.padding) if needs_x else None,
        banded_correlate2d(x, grad, ctx.padding, list(weight.shape[2:])) if needs_weight else None,
        grad.sum((0, 2, 3)) if needs_bias else None,
        None,
    )


def _keep_for_correlate(ctx: Any, inputs: tuple[Tensor, Tensor, list[int], list[int]], output: Tensor) -> None:  # noqa: ARG001
    x, grad, ctx.padding, _ = inputs
    ctx.save_for_backward(x, grad)


def _correlate_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    """The correlation is linear in either factor: an input gradient for x, a convolution for grad."""
    x, grad = ctx.saved_tensors
    needs_x, needs_grad, *_ = ctx.needs_input_grad
    return (
        _input_gradient(grad, upstream, ctx.padding) if needs_x else None,
        banded_conv2d(x, upstream, None, ctx.padding) if needs_grad else None,
        None,
        None,
    )


def _input_gradient(grad: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    complement = [k - 1 - p for k, p in zip(weight.shape[2:], padding, strict=True)]
    result: Tensor = banded_conv2d(grad, weight.flip(2, 3), None, complement)
    return result


banded_conv2d.register_autograd(_conv_backward, setup_context=_keep_for_conv)
banded_correlate2d.register_autograd(_correlate_backward, setup_context=_keep_for_correlate)


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    is_channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    y: Tensor = banded_conv2d(x, _spread(weight, window.dilation), bias, list(window.padding))
    return y.contiguous(memory_format=torch.channels_last) if is_channels_last else y


def _spread(weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    """The kernel without dilation that does the same: zeros between the taps."""
    if dilation == (1, 1):
        return weight
    kh, kw = _sides(weight, dilation)
    spread = weight.new_zeros(weight.shape[0], 1, kh, kw)
    spread[..., :: dilation[0], :: dilation[1]] = weight
    return spread


def _sides(weight: Tensor, dilation: tuple[int, int]) -> tuple[int, int]:
    return dilation[0] * (weight.shape[2] - 1) + 1, dilation[1] * (weight.shape[3] - 1) + 1


def _fits(x: Tensor, weight: Tensor, window: Window) -> bool:
    """An NVIDIA GPU with TF32 and bfloat16, Triton, one of three types, stride 1, and no more padding than reach."""
    sides = _sides(weight, window.dilation)
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
    """The rule of thumb for a call that fits, until it is measured."""
    return weight.shape[2] * weight.shape[3] >= WORTHWHILE_TAPS


TRITON = Algorithm(run=_run, fits=_fits)
