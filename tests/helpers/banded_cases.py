"""Convolutions for the Triton kernels, and what each must equal; for the interpreter on a CPU as for a GPU."""

import torch

from harness.diagnostics.verify import convolution
from harness.diagnostics.verify.convolution import Case, float32_products, tensors
from harness.ops.geometry import Window
from harness.ops.triton_conv import TRITON

__all__ = ["CASES", "TOLERANCES", "Case", "errors", "float32_products", "tensors"]

TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Of the largest value of a tensor: sums of float32 products, and one rounding at the end."""

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


def errors(case: Case, dtype: torch.dtype, device: str, *, biased: bool = True) -> dict[str, float]:
    """Against float64: the largest error of the output and of each gradient, relative to the largest value."""
    return convolution.errors(TRITON.run, case, dtype, device, biased=biased)
