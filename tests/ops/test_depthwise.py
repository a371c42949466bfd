"""The depth-wise convolution equals PyTorch's, whichever algorithm computes it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from torch import Tensor, nn

from harness.ops import DepthwiseConv2d, depthwise_conv2d
from harness.ops.channels_last import _fold_batch
from harness.ops.dispatch import ALGORITHMS, choose_algorithm
from harness.ops.geometry import Window, crop_kernel

pairs = st.tuples(st.integers(1, 9), st.integers(1, 9))


def _tensors(n: int, c: int, size: tuple[int, int], kernel: tuple[int, int], dtype: torch.dtype = torch.float64) -> Any:
    """x, weight, bias, seeded by their shapes, all with gradients."""
    g = torch.Generator().manual_seed(n + 10 * c + 100 * sum(size) + 1000 * sum(kernel))
    shapes = ((n, c, *size), (c, 1, *kernel), (c,))
    return [torch.randn(shape, generator=g, dtype=dtype).requires_grad_() for shape in shapes]


def _stock(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    return F.conv2d(x, weight, bias, window.stride, window.padding, window.dilation, groups=x.shape[1])


def _compare(ours: Tensor, stock: Tensor, tensors: list[Tensor], tolerance: float) -> None:
    """Output and all gradients, against a random gradient of the output; errors relative to the largest value."""
    torch.testing.assert_close(ours, stock, rtol=0, atol=tolerance * (1 + _largest(stock)))
    upstream = torch.randn(stock.shape, generator=torch.Generator().manual_seed(0), dtype=stock.dtype)
    grads = torch.autograd.grad(ours, tensors, upstream), torch.autograd.grad(stock, tensors, upstream)
    for actual, expected in zip(*grads, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * (1 + _largest(expected)))


def _largest(x: Tensor) -> float:
    return x.detach().abs().max().item() if x.numel() else 0.0


@st.composite
def windows(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], Window]:
    """A map, a kernel and a window that have at least one output."""
    size, kernel = draw(pairs), draw(pairs)
    stride = draw(st.just((1, 1)) | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.just((1, 1)) | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    least = [max(0, (span - n) // 2 + 1) for span, n in zip(spans, size, strict=True)]
    free = st.tuples(*(st.integers(p, p + 4) for p in least))
    centred = tuple(max(span // 2, p) for span, p in zip(spans, least, strict=True))
    return size, kernel, Window(stride, draw(st.just(centred) | free), dilation)  # type: ignore[arg-type]


@given(case=windows(), n=st.integers(1, 3), c=st.integers(1, 4), biased=st.booleans(), last=st.booleans())
@examples(250)
def test_equals_the_stock_operator_in_float64(case: Any, n: int, c: int, biased: bool, last: bool) -> None:
    size, kernel, window = case
    x, weight, bias = _tensors(n, c, size, kernel)
    given_x = x.contiguous(memory_format=torch.channels_last) if last else x
    tensors = [x, weight, bias] if biased else [x, weight]
    b = bias if biased else None
    _compare(depthwise_conv2d(given_x, weight, b, *window), _stock(x, weight, b, window), tensors, 1e-12)


@pytest.mark.parametrize("name", ALGORITHMS)
@given(case=windows(), n=st.integers(1, 3), c=st.integers(1, 4))
@examples(100)
def test_each_algorithm_equals_the_stock_operator_where_it_fits(name: str, case: Any, n: int, c: int) -> None:
    size, kernel, window = case
    x, weight, bias = _tensors(n, c, size, kernel)
    if ALGORITHMS[name].fits(x, weight, window):
        ours = ALGORITHMS[name].run(x, weight, bias, window)
        _compare(ours, _stock(x, weight, bias, window), [x, weight, bias], 1e-12)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(
    "window",
    [
        pytest.param(Window.of(1, 2, 1), marks=pytest.mark.long),
        pytest.param(Window.of(1, (2, 3), (1, 2)), marks=pytest.mark.long),
        Window.of(1, 0, 1),
    ],
    ids=str,
)
def test_first_and_second_derivatives_against_finite_differences(name: str, window: Window) -> None:
    tensors = _tensors(2, 2, (5, 6), (5, 3))
    if not ALGORITHMS[name].fits(tensors[0], tensors[1], window):
        pytest.skip("not for this device and type")

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ALGORITHMS[name].run(x, weight, bias, window)

    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_only_the_gradients_that_are_asked_for(name: str) -> None:
    x, weight, _ = _tensors(1, 2, (5, 5), (3, 3))
    if not ALGORITHMS[name].fits(x, weight, Window.of(1, 1, 1)):
        pytest.skip("not for this device and type")
    y = ALGORITHMS[name].run(x.detach(), weight, None, Window.of(1, 1, 1))
    torch.autograd.backward(y.sum())
    assert weight.grad is not None
    with torch.no_grad():
        assert not ALGORITHMS[name].run(x, weight, None, Window.of(1, 1, 1)).requires_grad


@pytest.mark.parametrize(("side", "k"), [(32, 31), (16, 29), (8, 27), (4, 13), (32, 5), (8, 5), (32, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["default", "channels-last"])
def test_float32_at_the_shapes_of_the_proxies(side: int, k: int, layout: torch.memory_format) -> None:
    tensors = _tensors(2, 8, (side, side), (k, k), torch.float32)
    x, weight, bias = tensors
    double = [t.detach().double().requires_grad_() for t in tensors]
    ours = depthwise_conv2d(x.contiguous(memory_format=layout), weight, bias, padding=k // 2)
    stock = _stock(double[0], double[1], double[2], Window.of(1, k // 2, 1))
    upstream = torch.randn(stock.shape, generator=torch.Generator().manual_seed(0), dtype=stock.dtype)
    torch.autograd.backward(ours, upstream.float())
    torch.autograd.backward(stock, upstream)
    for mine, theirs in zip([ours, *(t.grad for t in tensors)], [stock, *(t.grad for t in double)], strict=True):
        assert mine is not None and theirs is not None
        assert (mine.double() - theirs).abs().max().item() < 3e-6 * _largest(theirs)


@pytest.mark.parametrize(
    ("k", "side", "d", "left"), [(31, 16, 1, 31), (29, 8, 1, 15), (13, 4, 1, 7), (7, 1, 1, 1), (9, 8, 2, 7)]
)
def test_taps_that_never_meet_the_map_are_cropped(k: int, side: int, d: int, left: int) -> None:
    weight = torch.randn(3, 1, k, k)
    cropped, window = crop_kernel(weight, Window.of(1, d * (k // 2), d), (side, side))
    assert cropped.shape == (3, 1, left, left)
    assert window.padding == (d * (left // 2),) * 2
    assert torch.equal(cropped[:, :, left // 2, left // 2], weight[:, :, k // 2, k // 2])


@pytest.mark.parametrize("window", [Window.of(2, 15, 1), Window.of(1, 14, 1), Window.of(1, 15, 2)], ids=str)
def test_a_window_that_changes_the_size_is_not_cropped(window: Window) -> None:
    weight = torch.randn(3, 1, 31, 31)
    assert crop_kernel(weight, window, (4, 4)) == (weight, window)


def test_weights_outside_the_reach_have_zero_gradient() -> None:
    x, weight, _ = _tensors(2, 3, (4, 4), (13, 13))
    torch.autograd.backward(depthwise_conv2d(x, weight, padding=6).square().sum())
    inner = weight.grad[:, :, 3:10, 3:10]
    assert inner.count_nonzero() == inner.numel() == weight.grad.count_nonzero()


@pytest.mark.parametrize(("shape", "k"), [((0, 3, 8, 8), 13), ((1, 3, 8, 8), 13), ((1, 1, 1, 1), 31)])
def test_empty_and_smallest_inputs(shape: tuple[int, ...], k: int) -> None:
    x, weight, bias = _tensors(shape[0], shape[1], (shape[2], shape[3]), (k, k))
    _compare(
        depthwise_conv2d(x, weight, bias, padding=k // 2),
        F.conv2d(x, weight, bias, padding=k // 2, groups=shape[1]),
        [x, weight, bias],
        1e-12,
    )


@pytest.mark.parametrize("k", [3, 13, 31])
def test_equal_calls_give_equal_bits(k: int) -> None:
    results = []
    for _ in range(3):
        x, weight, bias = _tensors(4, 8, (16, 16), (k, k), torch.float32)
        y = depthwise_conv2d(x, weight, bias, padding=k // 2)
        torch.autograd.backward(y.square().sum())
        results.append((y.detach(), x.grad, weight.grad, bias.grad))
    for again in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], again, strict=True))


@pytest.mark.parametrize("k", [3, 13, 31])
@pytest.mark.parametrize("backward_inside", [False, True])
def test_autocast_gives_its_own_precision(k: int, backward_inside: bool) -> None:
    x, weight, bias = _tensors(2, 4, (16, 16), (k, k), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = depthwise_conv2d(x, weight, bias, padding=k // 2)
        if backward_inside:
            torch.autograd.backward(y.float().sum())
    assert y.dtype == torch.bfloat16
    if not backward_inside:
        torch.autograd.backward(y.float().sum())
    reference = F.conv2d(x, weight, bias, padding=k // 2, groups=4)
    torch.testing.assert_close(y.float(), reference, rtol=1e-2, atol=1e-2)
    for tensor, expected in zip(
        (x, weight, bias), torch.autograd.grad(reference.sum(), (x, weight, bias)), strict=True
    ):
        assert tensor.grad.dtype == torch.float32
        torch.testing.assert_close(tensor.grad, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [3, 13])
def test_half_precision_keeps_its_type(dtype: torch.dtype, k: int) -> None:
    x, weight, bias = (t.detach().to(dtype).requires_grad_() for t in _tensors(2, 4, (16, 16), (k, k)))
    y = depthwise_conv2d(x, weight, bias, padding=k // 2)
    torch.autograd.backward(y.sum())
    reference = F.conv2d(x.double(), weight.double(), bias.double(), padding=k // 2, groups=4)
    torch.testing.assert_close(y.double(), reference, rtol=1e-2, atol=1e-2)
    assert y.dtype == dtype
    assert x.grad is not None and x.grad.dtype == dtype
    assert weight.grad is not None and weight.grad.dtype == dtype


@pytest.mark.parametrize("k", [3, 13])
def test_channels_last_stays_channels_last(k: int) -> None:
    x, weight, bias = _tensors(2, 4, (16, 16), (k, k), torch.float32)
    y = depthwise_conv2d(x.contiguous(memory_format=torch.channels_last), weight, bias, padding=k // 2)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_the_weight_gradient_works_in_channels_last() -> None:
    """In any other layout it is fifteen times slower, and right all the same: nothing else would tell."""
    for x in (torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6).contiguous(memory_format=torch.channels_last)):
        folded = _fold_batch(x)
        assert folded.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(folded, x.reshape(1, 12, 5, 6))
        assert folded.stride()[0] >= folded.numel(), "PyTorch reads the layout off the strides, the batch's included"


@pytest.mark.parametrize(
    ("device", "shape", "k", "stride", "expected"),
    [
        ("cpu", (2, 8, 32, 32), 3, 1, "stock"),
        ("cpu", (2, 8, 32, 32), 5, 1, "direct"),
        ("cpu", (2, 8, 32, 32), 9, 2, "direct"),
        ("cpu", (2, 8, 24, 24), 31, 1, "direct"),
        ("cpu", (2, 8, 56, 56), 31, 1, "fft"),
        ("cpu", (1, 128, 112, 112), 31, 1, "direct"),
        ("cpu", (2, 8, 56, 56), 31, 2, "direct"),
        ("cpu", (2, 8, 4, 4), 7, 1, "direct"),
        ("meta", (2, 8, 32, 32), 31, 1, "stock"),
    ],
)
def test_the_rule_of_thumb(device: str, shape: tuple[int, ...], k: int, stride: int, expected: str) -> None:
    x = torch.empty(shape, device=device).contiguous(memory_format=torch.channels_last)
    weight = torch.empty(shape[1], 1, k, k, device=device, requires_grad=True)
    assert choose_algorithm(x, weight, Window.of(stride, k // 2, 1)) == expected


def test_the_module_takes_and_gives_the_state_of_a_convolution() -> None:
    stock = nn.Conv2d(6, 6, 13, padding=6, groups=6).double()
    ours = DepthwiseConv2d(6, 13, padding=6).double()
    ours.load_state_dict(stock.state_dict())
    stock.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 9, 11, dtype=torch.float64)
    torch.testing.assert_close(ours(x), stock(x), rtol=1e-12, atol=1e-12)
    assert list(ours.state_dict()) == ["weight", "bias"]
    assert list(DepthwiseConv2d(6, 3, bias=False).state_dict()) == ["weight"]


def test_the_module_starts_like_a_convolution() -> None:
    torch.manual_seed(0)
    stock = nn.Conv2d(6, 6, 7, groups=6)
    torch.manual_seed(0)
    ours = DepthwiseConv2d(6, 7)
    assert torch.equal(ours.weight, stock.weight)
    assert ours.bias is not None and stock.bias is not None and torch.equal(ours.bias, stock.bias)


@pytest.mark.parametrize(
    ("x", "weight"), [((4, 8, 8), (4, 1, 3, 3)), ((1, 4, 8, 8), (5, 1, 3, 3)), ((1, 4, 8, 8), (4, 4, 3, 3))]
)
def test_wrong_shapes_are_named(x: tuple[int, ...], weight: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x must be \(N, C, H, W\) and weight \(C, 1, KH, KW\), but got"):
        depthwise_conv2d(torch.zeros(x), torch.zeros(weight))


def test_small_kernels_are_left_to_the_stock_operator_without_a_backward_pass_or_dilation() -> None:
    x = torch.empty(2, 8, 24, 24)
    chosen = {}
    for k, d in ((3, 1), (9, 1), (13, 1), (3, 2), (3, 6)):
        weight = torch.empty(8, 1, k, k, requires_grad=True)
        with torch.no_grad():
            forward = choose_algorithm(x, weight, Window.of(1, d * (k // 2), d))
        chosen[k, d] = choose_algorithm(x, weight, Window.of(1, d * (k // 2), d)), forward
    assert chosen == {
        (3, 1): ("stock", "stock"),
        (9, 1): ("direct", "stock"),
        (13, 1): ("direct", "direct"),
        (3, 2): ("direct", "direct"),
        (3, 6): ("direct", "direct"),
    }
