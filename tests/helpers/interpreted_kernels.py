"""The Triton kernels under Triton's interpreter, on the CPU: `test_triton.py` starts this file in a process of its own.

Triton reads `TRITON_INTERPRET` when it is imported, and PyTorch's compiler imports it for its own kernels: so the
variable must be set before the first import, and must not reach the other tests.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton.language as tl
from banded_cases import CASES, TOLERANCES, errors, float32_products, tensors
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from harness.ops.geometry import Window
from harness.ops.triton_conv import (
    OPERATORS,
    TRITON,
    _precision,
    banded_conv2d,
    banded_correlate2d,
    launch_convolve,
)
from harness.ops.triton_tiles import ConvShape, forward_tiles, gradient_tile


@pytest.fixture(autouse=True)
def products_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter holds bfloat16 as integers and multiplies them as such: widen them first, which is exact."""
    dot = InterpreterBuilder.create_dot

    def widened(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        if a.dtype == tl.bfloat16:
            a, b = (self.create_fp_ext(factor, tl.float32) for factor in (a, b))
        return dot(self, a, b, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", widened)


@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients(name: str) -> None:
    metrics = errors(CASES[name], torch.float32, "cpu")
    assert max(metrics.values()) < TOLERANCES[torch.float32], metrics


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["strips", "kernel larger than the map", "uneven padding"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    metrics = errors(CASES[name], dtype, "cpu", biased=False)
    assert max(metrics.values()) < TOLERANCES[dtype], metrics


@pytest.mark.parametrize("shape", [ConvShape(2, 9, 36, 5, 7, 2, 3), ConvShape(9, 8, 8, 7, 7, 3, 3)])
def test_every_cut_gives_the_same(shape: ConvShape) -> None:
    x = torch.randn(shape.n, 2, shape.h, shape.w)
    weight = torch.randn(2, 1, shape.kh, shape.kw)
    exact = torch.nn.functional.conv2d(x, weight, padding=(shape.ph, shape.pw), groups=2)
    tiles = forward_tiles(shape, 4, 1024)
    assert len(tiles) > 2
    for tile in tiles:
        out = torch.full_like(exact, torch.nan)
        launch_convolve(x, weight, None, out, shape, tile)
        torch.testing.assert_close(out, exact, rtol=0, atol=2e-5, msg=str(tile))


def test_the_sum_behind_a_weight_gradient_is_split_where_channels_are_few() -> None:
    x, grad = torch.randn(2, 32, 1, 12, 12).unbind(0)
    assert gradient_tile(ConvShape(32, 12, 12, 5, 5, 2, 2), 1, 32).splits > 1
    weight = torch.zeros(1, 1, 5, 5, requires_grad=True)
    y = torch.nn.functional.conv2d(x, weight, padding=2)
    (exact,) = torch.autograd.grad(y, weight, grad)
    torch.testing.assert_close(banded_correlate2d(x, grad, [5, 5], [1, 1], [2, 2], [1, 1]), exact, rtol=1e-5, atol=1e-3)


def test_second_derivatives() -> None:
    """Against those of PyTorch's operator, whose own are tested."""
    results = []
    for run in (_ours, _stock):
        inputs = [t.detach().requires_grad_() for t in tensors(CASES["uneven padding"], torch.float32, "cpu")]
        first = torch.autograd.grad(run(*inputs).pow(3).sum(), inputs, create_graph=True)
        results.append([*first, *torch.autograd.grad(sum((g**2).sum() for g in first), inputs)])  # type: ignore[arg-type]
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5 * expected.abs().max().item())


WINDOW = CASES["uneven padding"][2]


def _ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return TRITON.run(x, weight, bias, WINDOW)


def _stock(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.nn.functional.conv2d(x, weight, bias, 1, WINDOW.padding, groups=x.shape[1])


def test_the_operators_keep_the_rules_of_the_compiler() -> None:
    x, weight, bias = tensors(CASES["uneven padding"], torch.float32, "cpu")
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(OPERATORS[0], (x, weight, bias, [1, 1], [3, 1], [1, 2]), test_utils=tests)
    grad = torch.randn_like(banded_conv2d(x, weight, None, [1, 1], [3, 1], [1, 2]), requires_grad=True)
    torch.library.opcheck(OPERATORS[1], (x, grad, [4, 6], [1, 1], [3, 1], [1, 2]), test_utils=tests)


def test_compiles_without_a_graph_break() -> None:
    inputs = tensors(CASES["dilation"], torch.float32, "cpu")
    window = CASES["dilation"][2]

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return TRITON.run(x, weight, bias, window).tanh()

    results = [(y := f(*inputs), *torch.autograd.grad(y.sum(), inputs)) for f in (run, _compiled(run))]
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def _compiled(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(run, fullgraph=True, backend="aot_eager")


def test_only_the_gradients_that_are_asked_for() -> None:
    x, weight, bias = (t.detach() for t in tensors(CASES["no padding"], torch.float32, "cpu"))
    assert not TRITON.run(x, weight, bias, Window.of(1, 0, 1)).requires_grad
    weight.requires_grad_()
    torch.autograd.backward(TRITON.run(x, weight, None, Window.of(1, 0, 1)).sum())
    assert weight.grad is not None
    assert x.grad is None


def test_layouts_come_out_as_they_went_in() -> None:
    x, weight, _ = tensors(CASES["no padding"], torch.float32, "cpu")
    plain = TRITON.run(x, weight, None, Window.of(1, 0, 1))
    last = TRITON.run(x.contiguous(memory_format=torch.channels_last), weight, None, Window.of(1, 0, 1))
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)


@pytest.mark.parametrize(("setting", "expected"), [("tf32", "tf32"), ("ieee", "tf32x3")])
def test_float32_is_rounded_only_where_cudnn_may_round_it(setting: str, expected: str) -> None:
    with float32_products(setting):
        assert _precision(torch.float32) == expected
