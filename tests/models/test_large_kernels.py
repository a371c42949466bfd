"""The kinds of large kernel: their geometry by hand, what each computes by its definition, how all of them merge."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from random_specs import kernels
from random_statistics import randomize
from torch import Tensor, nn

from harness.models.build import build, merge
from harness.models.cost.large_kernels import KERNEL_COSTS
from harness.models.large_kernels import LARGE_KERNELS, large_kernel
from harness.models.large_kernels.bands import BandsConv
from harness.models.large_kernels.dilated_reparam import DilatedReparamConv, insert_zeros
from harness.models.large_kernels.peripheral import PeripheralConv, SharedConv2d, expand_shared
from harness.models.large_kernels.reparam import Mergeable
from harness.models.large_kernels.sequential import SequentialConv
from harness.models.large_kernels.stripes import StripesConv
from harness.models.layers import ConvBN
from harness.models.replknet import RepLKNet
from harness.models.spec.kernel import (
    KERNEL_KINDS,
    Kernel,
    band_width,
    dilated_branches,
    dilated_taps,
    fits_small_kernel,
    largest_small_kernel,
    peripheral_cells,
)
from harness.models.spec.network import NetworkSpec
from harness.models.timm.replknet import set_output_stride

OWN_VALUES: dict[str, dict[str, Any]] = {
    "stripes": {"s": 3},
    "bands": {"band_ratio": 0.25},
    "sequential": {"dilation": 3},
}
EVERY_KIND: dict[str, Kernel] = {
    name: Kernel(13, kind=name, s=5 if kind.has_small else None)._replace(**OWN_VALUES.get(name, {}))
    for name, kind in KERNEL_KINDS.items()
}
"""One kernel of each kind, with all the branches that it can have."""


def _input(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _trained(module: nn.Module) -> nn.Module:
    randomize(module, seed=1)
    return module.double().eval()


def test_the_tables_by_kind_agree() -> None:
    assert list(KERNEL_KINDS) == list(LARGE_KERNELS) == list(KERNEL_COSTS)


@pytest.mark.parametrize(
    ("k", "cells"),
    [
        (1, (1,)),
        (7, (1,) * 7),
        (9, (2, 1, 1, 1, 1, 1, 2)),
        (13, (2, 2, 1, 1, 1, 1, 1, 2, 2)),
        (31, (7, 4, 2, 1, 1, 1, 1, 1, 2, 4, 7)),
        (33, (8, 4, 2, 1, 1, 1, 1, 1, 2, 4, 8)),
        (51, (9, 8, 4, 2, 1, 1, 1, 1, 1, 2, 4, 8, 9)),
    ],
)
def test_the_cells_of_peripheral_kernels(k: int, cells: tuple[int, ...]) -> None:
    assert peripheral_cells(k) == cells


def test_a_peripheral_kernel_of_33_has_a_ninth_of_the_parameters() -> None:
    """PeLK's ablation: 0.11 times those of the dense kernel."""
    assert round(len(peripheral_cells(33)) ** 2 / 33**2, 2) == 0.11


@given(k=st.integers(0, 500).map(lambda half: 2 * half + 1))
def test_cells_cover_the_kernel_alike_from_both_sides(k: int) -> None:
    cells = peripheral_cells(k)
    assert sum(cells) == k and cells == cells[::-1] and min(cells) == 1


@pytest.mark.parametrize(
    ("k", "branches"),
    [
        (3, [(1, 1)]),
        (5, [(3, 1), (3, 2)]),
        (13, [(5, 1), (7, 2), (3, 3), (3, 4), (3, 5)]),
        (17, [(5, 1), (9, 2), (3, 4), (3, 5), (3, 7)]),
        (31, [(5, 1), (9, 3), (3, 7), (3, 9), (3, 13)]),
    ],
)
def test_the_branches_of_dilated_kernels(k: int, branches: list[tuple[int, int]]) -> None:
    assert list(dilated_branches(k)) == branches


@given(k=st.integers(1, 500).map(lambda half: 2 * half + 1))
def test_no_dilated_branch_reaches_over_the_border(k: int) -> None:
    branches = dilated_branches(k)
    assert len(set(branches)) == len(branches)
    assert all((side - 1) * d + 1 <= k and side % 2 == 1 and d >= 1 for side, d in branches)


def test_van_has_seven_taps_for_21_pixels() -> None:
    assert dilated_taps(21, 3) == 7


@given(d=st.integers(2, 9), steps=st.integers(0, 40))
def test_two_sequential_kernels_reach_k_pixels_with_the_fewest_taps(d: int, steps: int) -> None:
    k = 2 * d + 1 + 2 * steps
    taps = dilated_taps(k, d)
    assert taps % 2 == 1 and taps >= 3
    assert 2 * d - 1 + (taps - 3) * d < k <= 2 * d - 1 + (taps - 1) * d


@pytest.mark.parametrize(
    ("c", "ratio", "n"), [(4, 0.01, 1), (64, 0.125, 8), (100, 0.29, 29), (9, 1 / 3, 3), (7, 0.25, 1)]
)
def test_the_width_of_bands(c: int, ratio: float, n: int) -> None:
    assert band_width(c, ratio) == n


@pytest.mark.parametrize(
    ("kernel", "largest"),
    [
        (Kernel(7), 7),
        (Kernel(7, dilation=2), 0),
        (Kernel(13, kind="stripes", stripe=3), 3),
        (Kernel(13, kind="peripheral"), 13),
        (Kernel(13, kind="dilated_reparam"), 0),
    ],
)
def test_where_a_small_kernel_has_a_place(kernel: Kernel, largest: int) -> None:
    assert largest_small_kernel(kernel) == largest
    kernel_values: dict[str, Any] = {
        "k": kernel.k,
        "kind": kernel.kind,
        "dilation": kernel.dilation,
        "stripe": kernel.stripe,
    }
    assert fits_small_kernel(None, **kernel_values)
    assert [s for s in range(1, 15) if fits_small_kernel(s, **kernel_values)] == list(range(1, largest + 1))
    assert not fits_small_kernel(1, **kernel_values | {"kind": ["plain"]})
    assert not fits_small_kernel(1, **kernel_values | {"k": "7"})


def _conv_bn(branch: nn.Module, x: Tensor) -> Tensor:
    """bn(conv(x)) by PyTorch's own operators."""
    assert isinstance(branch, ConvBN)
    weight = branch.conv.kernel() if isinstance(branch.conv, SharedConv2d) else branch.conv.weight
    dilation = branch.conv.dilation
    padding = tuple(side // 2 * d for side, d in zip(weight.shape[2:], dilation, strict=True))
    y = F.conv2d(x, weight, None, branch.conv.stride, padding, dilation, groups=len(weight))
    bn = branch.bn
    return F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias)


@pytest.mark.parametrize("k", [3, 7, 17, 21])
def test_dilated_reparam_is_the_sum_of_dilated_convolutions(k: int) -> None:
    block, x = _trained(DilatedReparamConv(4, Kernel(k))), _input(2, 4, 12, 9)
    assert isinstance(block, DilatedReparamConv) and block.dilated is not None
    y = block(x)
    torch.testing.assert_close(y, sum(_conv_bn(branch, x) for branch in (block.large, *block.dilated)))
    convs = [branch.conv for branch in block.dilated if isinstance(branch, ConvBN)]
    sides = [(conv.kernel_size[0], conv.dilation[0]) for conv in convs]
    assert sides == list(dilated_branches(k))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_spread_kernel_does_undilated_what_the_kernel_does_dilated(d: int) -> None:
    x, weight = _input(1, 3, 20, 20), _input(3, 1, 5, 5)
    dilated = F.conv2d(x, weight, padding=2 * d, dilation=d, groups=3)
    torch.testing.assert_close(F.conv2d(x, insert_zeros(weight, d), padding=2 * d, groups=3), dilated)


@pytest.mark.parametrize("s", [None, 3, 5])
def test_stripes_are_two_crossed_convolutions_and_a_small_one(s: int | None) -> None:
    block, x = _trained(StripesConv(4, Kernel(13, s=s, stripe=5))), _input(2, 4, 12, 9)
    assert isinstance(block, StripesConv)
    assert block.high.conv.kernel_size == (13, 5) and block.wide.conv.kernel_size == (5, 13)  # type: ignore[union-attr]
    expected = _conv_bn(block.high, x) + _conv_bn(block.wide, x)
    if block.small_conv is not None:
        expected = expected + _conv_bn(block.small_conv, x)
    torch.testing.assert_close(block(x), expected)
    assert (block.small_conv is None) == (s is None)


def test_bands_leave_most_channels_as_they_are() -> None:
    block, x = _trained(BandsConv(16, Kernel(11, band_ratio=0.125))), _input(2, 16, 12, 9)
    assert isinstance(block, BandsConv)
    y = block(x)
    assert torch.equal(y[:, :10], x[:, :10])
    parts = [_conv_bn(band, part) for band, part in zip(block.bands, x[:, 10:].chunk(3, dim=1), strict=True)]
    torch.testing.assert_close(y[:, 10:], torch.cat(parts, dim=1))
    sides = [band.conv.kernel_size for band in block.bands if isinstance(band, ConvBN)]
    assert sides == [(3, 3), (1, 11), (11, 1)]


def test_bands_may_use_all_channels() -> None:
    block = BandsConv(6, Kernel(5, band_ratio=1 / 3)).eval()
    assert block.widths == (0, 2, 2, 2)
    assert block(torch.randn(1, 6, 4, 4)).shape == (1, 6, 4, 4)


def test_a_peripheral_kernel_repeats_each_number_over_its_cell() -> None:
    grid = torch.arange(49.0).reshape(1, 1, 7, 7)
    kernel = expand_shared(grid, (2, 1, 1, 1, 1, 1, 2))
    assert kernel.shape == (1, 1, 9, 9)
    of_tap = [0, 0, 1, 2, 3, 4, 5, 6, 6]
    assert kernel[0, 0].tolist() == [[7.0 * i + j for j in of_tap] for i in of_tap]


def test_peripheral_is_a_convolution_with_the_shared_kernel_and_a_small_one() -> None:
    block, x = _trained(PeripheralConv(4, Kernel(13, s=3))), _input(2, 4, 12, 9)
    assert isinstance(block, PeripheralConv) and block.small_conv is not None
    torch.testing.assert_close(block(x), _conv_bn(block.large, x) + _conv_bn(block.small_conv, x))
    assert {tuple(p.shape) for name, p in block.large.named_parameters() if "weight" in name} == {(4, 1, 9, 9), (4,)}


def test_sequential_is_a_small_kernel_and_then_a_dilated_one() -> None:
    block, x = _trained(SequentialConv(4, Kernel(21, dilation=3))), _input(2, 4, 30, 9)
    assert isinstance(block, SequentialConv)
    near = F.conv2d(x, block.near.weight, padding=2, groups=4)
    torch.testing.assert_close(block(x), _conv_bn(block.far, near))
    assert block.near.kernel_size == (5, 5)
    assert block.far.conv.kernel_size == (7, 7) and block.far.conv.dilation == (3, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_stride_of_two_is_every_second_pixel(kind: str) -> None:
    x = _input(2, 8, 11, 8)
    one = _trained(large_kernel(8, EVERY_KIND[kind]))
    two = large_kernel(8, EVERY_KIND[kind], stride=2).double().eval()
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(two(x), one(x)[:, :, ::2, ::2])


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_both_layouts_give_the_same(kind: str) -> None:
    x, block = _input(2, 8, 11, 8), _trained(large_kernel(8, EVERY_KIND[kind]))
    expected = block(x)
    torch.testing.assert_close(
        block.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)), expected
    )


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_parameter_learns(kind: str) -> None:
    block = large_kernel(8, EVERY_KIND[kind]).double().train()
    x = _input(4, 8, 16, 16)
    parameters = dict(block.named_parameters())
    gradients = torch.autograd.grad((block(x) * x.flip(0)).sum(), list(parameters.values()))
    for name, gradient in zip(parameters, gradients, strict=True):
        assert gradient.isfinite().all() and gradient.any(), name


def test_a_shared_number_learns_from_all_its_taps() -> None:
    conv = SharedConv2d(1, 9).double()
    (shared,) = torch.autograd.grad(conv(_input(1, 1, 12, 12)).square().sum(), conv.weight)
    dense = conv.kernel().detach().requires_grad_()
    (alone,) = torch.autograd.grad(F.conv2d(_input(1, 1, 12, 12), dense, padding=4).square().sum(), dense)
    torch.testing.assert_close(shared[0, 0, 0, 0], alone[0, 0, :2, :2].sum())
    torch.testing.assert_close(shared[0, 0, 3, 3], alone[0, 0, 4, 4])


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_merging_leaves_no_branch_and_may_be_repeated(kind: str) -> None:
    block = _trained(large_kernel(8, EVERY_KIND[kind])).float()
    assert isinstance(block, Mergeable)
    random_state = torch.get_rng_state()
    block.merge()
    assert torch.equal(torch.get_rng_state(), random_state)
    modules = list(block.modules())
    assert not any(isinstance(module, nn.BatchNorm2d | ConvBN | SharedConv2d) for module in modules)
    assert not any(module.training for module in modules)
    assert {p.dtype for p in block.parameters()} == {torch.float32} and all(p.requires_grad for p in block.parameters())
    state = copy.deepcopy(block.state_dict())
    block.merge()
    assert list(block.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in block.state_dict().items())
    assert list(large_kernel(8, EVERY_KIND[kind], merged=True).state_dict()) == list(state)


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        ("dilated_reparam", {"large.weight": (8, 1, 13, 13), "large.bias": (8,)}),
        ("peripheral", {"large.weight": (8, 1, 13, 13), "large.bias": (8,)}),
        ("stripes", {"high.weight": (8, 1, 13, 5), "high.bias": (8,), "wide.weight": (8, 1, 5, 13)}),
        ("sequential", {"near.weight": (8, 1, 5, 5), "far.weight": (8, 1, 5, 5), "far.bias": (8,)}),
    ],
)
def test_what_is_left_when_merged(kind: str, entries: dict[str, tuple[int, ...]]) -> None:
    state = large_kernel(8, EVERY_KIND[kind], merged=True).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == entries


@pytest.mark.parametrize("kind", EVERY_KIND)
@given(data=st.data())
@examples(10)
def test_kernels_far_larger_than_the_map_merge_exactly(kind: str, data: st.DataObject) -> None:
    kernel = data.draw(kernels(st.just(kind)))
    kernel = kernel._replace(k=31 + 2 * data.draw(st.integers(0, 10)))
    block = _trained(large_kernel(6, kernel, stride=data.draw(st.sampled_from((1, 2)))))
    x = _input(1, 6, *(data.draw(st.integers(1, 9)) for _ in range(2)))
    with torch.no_grad():
        before = block(x)
        block.merge()  # type: ignore[operator]
        assert (block(x) - before).abs().max() < 1e-10 * before.abs().max()


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_networks_with_held_strides_merge_exactly(kind: str) -> None:
    kernel = EVERY_KIND[kind]
    kind_fields = {name: getattr(kernel, name) for name in KERNEL_KINDS[kind].fields}
    values = {"B": 1, "C": 8, "K": kernel.k, "reparam": kernel.s, "dilation": kernel.dilation, "classes": 3}
    network = build(NetworkSpec.from_mapping(values | {"kernel": kind} | kind_fields), seed=0)
    assert isinstance(network, RepLKNet)
    set_output_stride(network, [4, 8, 16, 32], 8)
    _trained(network)
    images = _input(1, 3, 48, 40)
    with torch.no_grad():
        before, after = network(images), merge(network)(images)
    assert (after - before).abs().max() < 1e-10 * before.abs().max()
