"""Convolutions for the Triton kernels, and what each must equal; for the interpreter on a CPU as for a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.ops.triton_conv import TRITON
from harness.ops.window import Window

TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Of the largest value of a tensor: sums of float32 products, and one rounding at the end."""

Case = tuple[tuple[int, int, int, int], tuple[int, int], Window]
"""Shape of x, sides of the kernel, window."""

CASES: dict[str, Case] = {
    "the kernel covers the map": ((3, 1, 16, 16), (31, 31), Window.of(1, 15, 1)),
    "batch 1, blocks of rows side by side": ((1, 1, 24, 24), (9, 9), Window.of(1, 4, 1)),
    "more images than a tile": ((70, 1, 5, 6), (3, 3), Window.of(1, 1, 1)),
    "strips": ((2, 1, 4, 72), (3, 31), Window.of(1, (1, 15), 1)),
    "strips at an odd width": ((2, 1, 5, 67), (3, 13), Window.of(1, (1, 6), 1)),
    "one row of the kernel": ((2, 3, 14, 14), (1, 11), Window.of(1, (0, 5), 1)),
    "one column of the kernel": ((2, 3, 14, 14), (11, 1), Window.of(1, (5, 0), 1)),
    "kernel larger than the map": ((2, 2, 3, 7), (13, 31), Window.of(1, (6, 15), 1)),
    "one pixel": ((1, 1, 1, 1), (7, 5), Window.of(1, (3, 2), 1)),
    "no padding": ((2, 2, 12, 20), (7, 9), Window.of(1, 0, 1)),
    "uneven padding": ((2, 2, 9, 10), (4, 6), Window.of(1, (3, 1), 1)),
    "dilation": ((2, 2, 11, 12), (3, 5), Window.of(1, (2, 6), (2, 3))),
    "rows that end at no multiple of eight": ((2, 1, 14, 28), (27, 29), Window.of(1, (13, 14), 1)),
}


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """PyTorch's setting for convolutions: "tf32", or "ieee" for float32 as it is."""
    setting = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = setting.fp32_precision
    setting.fp32_precision = precision
    try:
        yield
    finally:
        setting.fp32_precision = before


def tensors(case: Case, dtype: torch.dtype, device: str) -> list[Tensor]:
    """x, weight, bias with gradients, seeded, rounded to the type."""
    (n, c, h, w), (kh, kw), _ = case
    g = torch.Generator().manual_seed(n + 10 * c + 100 * (h + w) + 1000 * (kh + kw))
    shapes = ((n, c, h, w), (c, 1, kh, kw), (c,))
    return [torch.randn(shape, generator=g).to(device, dtype).requires_grad_() for shape in shapes]


def errors(case: Case, dtype: torch.dtype, device: str, *, biased: bool = True) -> dict[str, float]:
    """Against float64: the largest error of the output and of each gradient, relative to the largest value."""
    given = tensors(case, dtype, device)[: 3 if biased else 2]
    double = [t.detach().double().requires_grad_() for t in given]
    window = case[2]
    ours = TRITON.run(given[0], given[1], given[2] if biased else None, window)
    bias = double[2] if biased else None
    exact = F.conv2d(double[0], double[1], bias, 1, window.padding, window.dilation, groups=case[0][1])
    assert ours.dtype == dtype
    assert ours.shape == exact.shape
    g = torch.Generator().manual_seed(0)
    upstream = torch.randn(exact.shape, generator=g).to(device, dtype)
    mine = [ours, *torch.autograd.grad(ours, given, upstream)]
    theirs = [exact, *torch.autograd.grad(exact, double, upstream.double())]
    assert all(t.dtype == dtype for t in mine)
    names = ("output", "input gradient", "weight gradient", "bias gradient")
    return {name: _relative(a, b) for name, a, b in zip(names, mine, theirs, strict=False)}


def _relative(mine: Tensor, exact: Tensor) -> float:
    return ((mine.double() - exact).abs().max() / (1e-30 + exact.abs().max())).item()
