"""Checks of the depth-wise convolution: each algorithm against PyTorch's own operator in float64.

Shapes: N batch, C channels, H W sides of the map, KH KW sides of the kernel.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.diagnostics.verify.findings import Finding
from harness.models.equivalence import max_error, relative_error
from harness.ops import depthwise_conv2d
from harness.ops.dispatch import ALGORITHMS
from harness.ops.geometry import Window

Case = tuple[tuple[int, int, int, int], tuple[int, int], Window]
"""Shape of x (N, C, H, W), sides of the kernel, window."""
Conv = Callable[[Tensor, Tensor, Tensor | None, Window], Tensor]
"""(x, weight, bias, window) -> output"""

CASES: dict[str, Case] = {
    "K=31 on 32 x 32": ((2, 4, 32, 32), (31, 31), Window.of(1, 15, 1)),
    "K=27 on 14 x 14": ((2, 4, 14, 14), (27, 27), Window.of(1, 13, 1)),
    "K=13 on 7 x 7": ((8, 4, 7, 7), (13, 13), Window.of(1, 6, 1)),
    "K=7 on 24 x 17": ((2, 4, 24, 17), (7, 7), Window.of(1, 3, 1)),
    "K=3 on 16 x 16": ((2, 4, 16, 16), (3, 3), Window.of(1, 1, 1)),
    "K=13, stride 2": ((2, 4, 15, 14), (13, 13), Window.of(2, 6, 1)),
    "K=5, dilation 3": ((2, 4, 20, 18), (5, 5), Window.of(1, 6, 3)),
    "K=5, stride 2, dilation 2": ((2, 4, 17, 20), (5, 5), Window.of(2, 4, 2)),
    "51 x 5 on 28 x 28": ((2, 4, 28, 28), (51, 5), Window.of(1, (25, 2), 1)),
    "no padding": ((2, 4, 12, 20), (7, 9), Window.of(1, 0, 1)),
    "one pixel": ((1, 4, 1, 1), (7, 7), Window.of(1, 3, 1)),
}

TOLERANCES = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Relative to the largest value of a tensor: float32 sums products in float32, half types are rounded at the end."""
PER_ROOT = 2e-7
"""Tolerance per sqrt(n): a sum of n float32 products has an error of about sqrt(n) roundings."""
REFERENCE = "torch.nn.functional.conv2d in float64"


def algorithm(name: str) -> Iterator[Finding]:
    """Output and gradients of one algorithm, in all cases that it supports, on each device."""
    for device in _devices():
        for dtype in (torch.float64, torch.float32):
            for case_name, case in CASES.items():
                x, weight, _ = tensors(case, dtype, device)
                if ALGORITHMS[name].fits(x, weight, case[2]):
                    error = _worst(ALGORITHMS[name].run, case, dtype, device)
                    yield _finding(f"{name}, {case_name}", error, case, dtype, device)


def default_path() -> Iterator[Finding]:
    """Output and gradients of `depthwise_conv2d`, which selects among the algorithms, in every precision."""
    for device in _devices():
        for dtype in TOLERANCES:
            for case_name, case in CASES.items():
                error = _worst(lambda x, w, b, window: depthwise_conv2d(x, w, b, *window), case, dtype, device)
                yield _finding(case_name, error, case, dtype, device)


def tensors(case: Case, dtype: torch.dtype, device: str) -> list[Tensor]:
    """x, weight and bias, seeded, rounded to the type, with `requires_grad`."""
    (n, c, h, w), (kh, kw), _ = case
    g = torch.Generator().manual_seed(n + 10 * c + 100 * (h + w) + 1000 * (kh + kw))
    shapes = ((n, c, h, w), (c, 1, kh, kw), (c,))
    return [torch.randn(shape, generator=g).to(device, dtype).requires_grad_() for shape in shapes]


def errors(run: Conv, case: Case, dtype: torch.dtype, device: str, *, biased: bool = True) -> dict[str, float]:
    """The largest errors of the output and of each gradient against float64, relative to the largest value."""
    inputs = tensors(case, dtype, device)[: 3 if biased else 2]
    double = [t.detach().double().requires_grad_() for t in inputs]
    window = case[2]
    ours = run(inputs[0], inputs[1], inputs[2] if biased else None, window)
    bias = double[2] if biased else None
    exact = F.conv2d(double[0], double[1], bias, window.stride, window.padding, window.dilation, groups=case[0][1])
    assert ours.dtype == dtype
    assert ours.shape == exact.shape
    g = torch.Generator().manual_seed(0)
    upstream = torch.randn(exact.shape, generator=g).to(device, dtype)
    mine = [ours, *torch.autograd.grad(ours, inputs, upstream)]
    theirs = [exact, *torch.autograd.grad(exact, double, upstream.double())]
    assert all(t.dtype == dtype for t in mine)
    names = ("output", "input gradient", "weight gradient", "bias gradient")
    return {name: relative_error(a, b) for name, a, b in zip(names, mine, theirs, strict=False)}


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Set PyTorch's precision of float32 convolutions: "tf32", or "ieee" for full float32."""
    setting = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = setting.fp32_precision
    setting.fp32_precision = precision
    try:
        yield
    finally:
        setting.fp32_precision = before


def _devices() -> tuple[str, ...]:
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def _worst(run: Conv, case: Case, dtype: torch.dtype, device: str) -> float:
    with float32_products("ieee"):
        return max_error(errors(run, case, dtype, device).values())


def _finding(name: str, error: float, case: Case, dtype: torch.dtype, device: str) -> Finding:
    (n, _, h, w), *_ = case
    tolerance = TOLERANCES[dtype]
    if dtype != torch.float64:
        tolerance = max(tolerance, PER_ROOT * (n * h * w) ** 0.5)
    precision = str(dtype).removeprefix("torch.")
    return Finding(f"{name}, {precision} on {device}: output and gradients", 0.0, error, REFERENCE, tolerance)
