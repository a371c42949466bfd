"""The large depth-wise convolution on a GPU: the kernels' numbers there, and the default path around them."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from banded_cases import CASES, TOLERANCES, Case, errors, float32_products, tensors
from torch import Tensor

from harness.ops import DepthwiseConv2d, depthwise_conv2d
from harness.ops.dispatch import choose_algorithm
from harness.ops.geometry import Window
from harness.ops.triton_conv import TRITON, launch_convolve
from harness.ops.triton_tiles import ConvShape, forward_tiles

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TF32 = 2e-3
"""Relative to the largest value: TF32 keeps 10 bits of each factor and cuts the others off."""

REAL: dict[str, Case] = {
    f"N={n} C={c} {h}x{w} K={k}": ((n, c, h, w), (k, k), Window.of(1, k // 2, 1))
    for n, c, h, w, k in (
        (64, 16, 16, 16, 31),
        (64, 16, 32, 32, 31),
        (64, 16, 64, 64, 31),
        (8, 32, 56, 56, 31),
        (8, 32, 28, 28, 29),
        (8, 64, 14, 14, 27),
        (8, 64, 7, 7, 13),
        (1, 64, 96, 96, 31),
        (2, 8, 64, 200, 13),
        (3, 8, 50, 33, 7),
        (2, 4, 64, 64, 63),
    )
}


@pytest.fixture
def exact_float32() -> Iterator[None]:
    with float32_products("ieee"):
        yield


@pytest.mark.usefixtures("exact_float32")
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", CASES | REAL)
def test_output_and_gradients(name: str, dtype: torch.dtype) -> None:
    """A sum of n products of float32 strays by about sqrt(n) roundings."""
    case = (CASES | REAL)[name]
    (n, _, h, w), *_ = case
    tolerance = max(TOLERANCES[dtype], 2e-7 * (n * h * w) ** 0.5)
    metrics = errors(case, dtype, "cuda")
    assert max(metrics.values()) < tolerance, metrics


@pytest.mark.parametrize("name", REAL)
def test_tf32(name: str) -> None:
    with float32_products("tf32"):
        metrics = errors(REAL[name], torch.float32, "cuda")
    assert max(metrics.values()) < TF32, metrics


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("side", [16, 32, 64])
def test_every_cut_compiles_and_gives_the_same(side: int, dtype: torch.dtype) -> None:
    shape = ConvShape(64, side, side, 31, 31, 15, 15)
    x = torch.randn(64, 4, side, side, device="cuda").to(dtype)
    weight = torch.randn(4, 1, 31, 31, device="cuda").to(dtype)
    exact = F.conv2d(x.double(), weight.double(), padding=15, groups=4)
    for tile in forward_tiles(shape, dtype.itemsize, 2048)[:12]:
        out = torch.full_like(x, torch.nan)
        launch_convolve(x, weight, None, out, shape, tile)
        error = ((out.double() - exact).abs().max() / exact.abs().max()).item()
        assert error < max(TF32, TOLERANCES[dtype]), tile


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_equal_calls_give_equal_bits(dtype: torch.dtype) -> None:
    inputs = tensors(((4, 2, 24, 24), (13, 13), Window.of(1, 6, 1)), dtype, "cuda")
    results = []
    for _ in range(3):
        y = TRITON.run(inputs[0], inputs[1], inputs[2], Window.of(1, 6, 1))
        results.append((y, *torch.autograd.grad(y.float().square().sum(), inputs)))
    assert all(torch.equal(a, b) for again in results[1:] for a, b in zip(results[0], again, strict=True))


@pytest.mark.usefixtures("exact_float32")
def test_second_derivatives() -> None:
    inputs = tensors(CASES["uneven padding"], torch.float32, "cuda")
    window = CASES["uneven padding"][2]
    results = []
    for is_triton in (True, False):
        x, weight, bias = inputs
        y = TRITON.run(x, weight, bias, window) if is_triton else F.conv2d(x, weight, bias, 1, window.padding, groups=2)
        first = torch.autograd.grad(y.pow(3).sum(), inputs, create_graph=True)
        total = torch.stack([(g**2).sum() for g in first]).sum()
        results.append([*first, *torch.autograd.grad(total, inputs)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * b.abs().max().item())


@pytest.mark.parametrize("is_autocast", [False, True])
def test_the_default_path_compiles_without_a_graph_break(is_autocast: bool) -> None:
    module = DepthwiseConv2d(8, 13, padding=6).cuda()
    x = torch.randn(4, 8, 24, 24, device="cuda", requires_grad=True)
    results = []
    for run in (module, torch.compile(module, fullgraph=True)):
        with torch.autocast("cuda", torch.bfloat16, enabled=is_autocast):
            y = run(x)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), [x, *module.parameters()])))
    assert results[0][0].dtype == (torch.bfloat16 if is_autocast else torch.float32)
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-2 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("k", "stride", "dtype", "expected"),
    [
        (31, 1, torch.float32, "triton"),
        (7, 1, torch.bfloat16, "triton"),
        (3, 1, torch.bfloat16, "stock"),
        (31, 2, torch.float32, "stock"),
        (31, 1, torch.float64, "stock"),
    ],
)
def test_the_rule_of_thumb(k: int, stride: int, dtype: torch.dtype, expected: str) -> None:
    x = torch.zeros(2, 4, 32, 32, device="cuda", dtype=dtype)
    weight = torch.zeros(4, 1, k, k, device="cuda", dtype=dtype)
    assert choose_algorithm(x, weight, Window.of(stride, k // 2, 1)) == expected


def test_a_map_in_channels_last_layout_stays_in_it() -> None:
    x: Tensor = torch.randn(2, 8, 16, 16, device="cuda").contiguous(memory_format=torch.channels_last)
    weight = torch.randn(8, 1, 13, 13, device="cuda")
    y = depthwise_conv2d(x, weight, padding=6)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, F.conv2d(x, weight, padding=6, groups=8), rtol=0, atol=TF32 * 60)
