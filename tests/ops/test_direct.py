"""The direct convolution: any division of its work gives the same, and its operators are registered with PyTorch."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.ops import direct
from harness.ops.direct import DIRECT, OPERATORS
from harness.ops.direct_kernel import BLOCKS, LANE_BYTES, best_block
from harness.ops.geometry import Window

WINDOW = Window.of(1, (3, 2), (1, 2))


@pytest.fixture(params=[2, 3, 5])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """That many, and each of them worth waking."""
    monkeypatch.setattr(direct, "THREAD_MACS", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def tensors(n: int, c: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(n + 10 * c)
    x = torch.randn(n, c, 9, 11, generator=g, dtype=torch.float64)
    return x.requires_grad_(), torch.randn(c, 1, 7, 3, generator=g, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize(("n", "lanes"), [(1, 1), (1, 4), (2, 3), (7, 1), (7, 6)])
def test_however_many_threads_the_sums_are_the_same(n: int, lanes: int, threads: int) -> None:
    """Images and lanes are shared out; the weight gradient's sum over images too, where lanes are few."""
    x, weight = tensors(n, lanes * LANE_BYTES // 8)
    exact = F.conv2d(x, weight, None, 1, *WINDOW[1:], groups=x.shape[1])
    upstream = torch.randn_like(exact)
    ours = DIRECT.run(x, weight, None, WINDOW)
    torch.testing.assert_close(ours, exact, rtol=1e-12, atol=1e-12, msg=f"{threads} threads")
    grads = (torch.autograd.grad(y, (x, weight), upstream) for y in (ours, exact))
    for actual, expected in zip(*grads, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("width", [*range(1, 9), 12, 13, 14, 16, 31])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rows_of_any_length_are_filled_and_not_overrun(width: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn(1, 3, 4, width, dtype=dtype), torch.randn(3, 1, 3, 5, dtype=dtype)
    exact = F.conv2d(x.double(), weight.double(), padding=(1, 2), groups=3)
    ours = OPERATORS[0](x, weight, None, [1, 1], [1, 2], [1, 1])
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-13)


def test_a_block_has_no_more_pixels_than_a_row_has_use_for() -> None:
    assert [best_block(width) for width in (3, 4, 6, 7, 12, 14, 16, 28)] == [4, 4, 6, 7, 6, 7, 4, 7]
    assert all(best_block(width) in BLOCKS for width in range(1, 100))


def test_what_is_not_a_number_goes_no_further_than_the_kernel_reaches() -> None:
    x = torch.zeros(1, 2, 12, 12)
    x[0, 0, 3, 4] = torch.nan
    exact = F.conv2d(x, torch.ones(2, 1, 5, 5), padding=2, groups=2)
    ours = OPERATORS[0](x, torch.ones(2, 1, 5, 5), None, [1, 1], [2, 2], [1, 1])
    assert torch.equal(ours.isnan(), exact.isnan()) and exact.isnan().sum() == 25


def test_the_operators_keep_the_rules_of_the_compiler() -> None:
    x, weight = torch.randn(2, 3, 9, 11), torch.randn(3, 1, 7, 3)
    convolve, correlate = OPERATORS
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(convolve, (x, weight, torch.randn(3), [2, 1], [3, 2], [1, 2]), test_utils=tests)
    grad = torch.randn_like(convolve(x, weight, None, [2, 1], [3, 2], [1, 2]))
    torch.library.opcheck(correlate, (x, grad, [7, 3], [2, 1], [3, 2], [1, 2]), test_utils=tests)
