"""The algorithms made of matrix products: each of their branches is exact, in pieces as in one, and small in memory."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.ops import DepthwiseConv2d, channels_last, depthwise_conv2d, fft, toeplitz
from harness.ops.autotune_measure import peak_bytes
from harness.ops.dispatch import ALGORITHMS, MAX_EXTRA_BYTES, choose_algorithm
from harness.ops.geometry import Window

WINDOWS = [
    Window.of(1, 3, 1),
    Window.of(1, (0, 5), 1),
    Window.of((2, 1), (3, 4), 1),
    Window.of(1, (6, 4), (2, 1)),
    Window.of((3, 2), 7, (1, 2)),
]
Arguments = tuple[Tensor, Tensor, Tensor]
MATRICES = ["fft", "toeplitz", "three_way", "direct"]


def tensors(shape: tuple[int, ...], kernel: tuple[int, int], dtype: torch.dtype = torch.float64) -> Arguments:
    g = torch.Generator().manual_seed(sum(shape) + 100 * sum(kernel))
    shapes = (shape, (shape[1], 1, *kernel), (shape[1],))
    x, weight, bias = (torch.randn(tensor_shape, generator=g, dtype=dtype).requires_grad_() for tensor_shape in shapes)
    return x, weight, bias


def results(y: Tensor, arguments: Arguments) -> list[Tensor]:
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, arguments, upstream)]


def errors(name: str, arguments: Arguments, window: Window) -> list[float]:
    """Of output and gradients, against PyTorch's operator in float64, relative to the largest value."""
    ours = results(ALGORITHMS[name].run(*arguments, window), arguments)
    x, weight, bias = (t.detach().double().requires_grad_() for t in arguments)
    exact = results(F.conv2d(x, weight, bias, *window, groups=x.shape[1]), (x, weight, bias))
    return [((mine - true).abs().max() / true.abs().max()).item() for mine, true in zip(ours, exact, strict=True)]


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels_last, "SPECTRAL_FROM", 0)
    monkeypatch.setattr(channels_last, "SPECTRAL_BATCH", 1)
    if request.param == "in pieces":
        monkeypatch.setattr(fft, "CHUNK_BYTES", 1)
        monkeypatch.setattr(toeplitz, "CHUNK_BYTES", 1)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("real_from", [0, 1000], ids=["real columns", "complex columns"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("name", MATRICES)
def test_every_branch_in_float64(name: str, window: Window, real_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fft, "REAL_FROM", real_from)
    arguments = tensors((3, 2, 8, 11), (7, 6))
    if ALGORITHMS[name].fits(arguments[0], arguments[1], window):
        assert max(errors(name, arguments, window)) < 1e-13


@pytest.mark.long
@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("real_from", [0, 1000], ids=["real columns", "complex columns"])
@pytest.mark.parametrize("name", MATRICES)
def test_derivatives_of_every_branch(name: str, real_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fft, "REAL_FROM", real_from)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ALGORITHMS[name].run(x, weight, bias, Window.of(1, (2, 1), 1))

    arguments = tensors((2, 2, 3, 4), (5, 3))
    assert torch.autograd.gradcheck(run, arguments)
    assert torch.autograd.gradgradcheck(run, arguments)


@pytest.mark.parametrize(("side", "k"), [(56, 31), (24, 31), (16, 29), (12, 23), (7, 13), (3, 5)])
@pytest.mark.parametrize("name", MATRICES)
def test_float32_is_as_exact_as_it_can_be(name: str, side: int, k: int) -> None:
    """The stock operator's own errors are up to 2e-6 at these shapes."""
    arguments = tensors((2, 4, side, side), (k, k), torch.float32)
    window = Window.of(1, k // 2, 1)
    if ALGORITHMS[name].fits(arguments[0], arguments[1], window):
        assert max(errors(name, arguments, window)) < 3e-6


@pytest.mark.parametrize("name", MATRICES)
def test_one_sum_gives_equal_bits(name: str) -> None:
    arguments = tensors((5, 8, 16, 16), (13, 13), torch.float32)
    first, second = (results(ALGORITHMS[name].run(*arguments, Window.of(1, 6, 1)), arguments) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("shape", "k"),
    [
        ((8, 32, 56, 56), 31),
        ((8, 128, 28, 28), 29),
        ((8, 512, 14, 14), 27),
        ((1, 2048, 14, 14), 27),
        ((4, 4096, 7, 7), 13),
    ],
    ids=str,
)
def test_the_default_choice_holds_no_more_than_twice_what_it_works_on(shape: tuple[int, ...], k: int) -> None:
    x, weight, _ = tensors(shape, (k, k), torch.float32)
    x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    outputs: list[Tensor] = []
    forward = peak_bytes(lambda: outputs.append(depthwise_conv2d(x, weight, padding=k // 2))) - x.nbytes
    upstream = torch.ones_like(outputs[0])
    backward = peak_bytes(lambda: torch.autograd.grad(outputs[0], (x, weight), upstream)) - x.nbytes - weight.nbytes
    assert max(forward, backward) <= max(MAX_EXTRA_BYTES, 4 * math.prod(shape) * x.element_size())


@pytest.mark.long
def test_the_product_of_spectra_compiles_in_one_graph() -> None:
    """With tables of sines that are kept outside of the graph, and made under inference mode at first."""
    torch.compiler.reset()
    layer = DepthwiseConv2d(2, 31, padding=15)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (8, 9):
        x = torch.randn(n, 2, 40, 40, requires_grad=True)
        assert choose_algorithm(x, layer.weight, Window.of(1, 15, 1)) == "fft"
        with torch.inference_mode():
            layer(x)
        gradients = [
            torch.autograd.grad(module(x).square().sum(), (x, *layer.parameters())) for module in (compiled, layer)
        ]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)
    torch.compiler.reset()
