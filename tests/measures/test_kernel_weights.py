"""Where large kernels have their weight: maps against impulses and by hand, and what a merge does to them."""

import numpy as np
import pytest
import torch
from random_statistics import randomize
from tiny_runs import tiny_spec
from torch import nn

from harness.measures.kernel_weights import CENTRE, LargeKernel, central_share, large_kernels, rescale_to_one
from harness.models.build import build, merge
from harness.models.spec.kernel import KERNEL_KINDS
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS

OWN_VALUES = {"stripes": {"stripe": 3}, "peripheral": {"reparam": 5}, "sequential": {"dilation": 2}}
BY_KIND = {
    name: ({"reparam": 3} if kind.has_small else {}) | OWN_VALUES.get(name, {}) for name, kind in KERNEL_KINDS.items()
}


def randomised(spec: NetworkSpec) -> nn.Module:
    model = build(spec, seed=0)
    randomize(model, seed=1)
    return model.eval()


def impulse_response(layer: nn.Module, channels: int, side: int) -> np.ndarray:
    """|what the layer makes of an impulse on all channels|, summed over them, less what it makes of nothing."""
    x = torch.zeros(1, channels, side, side, dtype=torch.float64)
    nothing = layer(x)
    x[..., side // 2, side // 2] = 1
    response: np.ndarray = (layer(x) - nothing).abs().sum((0, 1)).numpy()
    return response[::-1, ::-1]  # a convolution of ours is a correlation


@pytest.mark.parametrize("kind", KERNEL_KINDS)
@torch.no_grad()
def test_maps_are_what_an_impulse_becomes(kind: str) -> None:
    model = randomised(tiny_spec(K=9, kernel=kind, C=[8, 8, 8, 8], **BY_KIND[kind])).double()
    kernel = next(iter(large_kernels(model)))
    layer = model.stages[0].blocks[0].large_kernel  # type: ignore[union-attr, index]
    response = impulse_response(layer, 8, 25)
    if kind == "bands":  # what is passed on is no kernel
        response[12, 12] -= 8 - 3
    edge = (25 - kernel.k) // 2
    np.testing.assert_allclose(response[edge : 25 - edge, edge : 25 - edge], kernel.after, rtol=1e-9, atol=1e-12)
    response[edge : 25 - edge, edge : 25 - edge] = 0
    assert response.max() < 1e-12


@pytest.mark.parametrize(("k", "s"), [(13, 3), (7, 5), (9, 1)])
def test_a_merge_changes_the_small_kernels_taps_alone(k: int, s: int) -> None:
    for kernel in large_kernels(randomised(tiny_spec(K=k, reparam=s))):
        low, high = k // 2 - s // 2, k // 2 + s // 2 + 1
        expected = np.ones((k, k), bool)
        expected[low:high, low:high] = False
        np.testing.assert_array_equal(kernel.outside, expected)
        assert kernel.before is not None and kernel.ratio is not None
        np.testing.assert_array_equal(kernel.before[expected], kernel.after[expected])
        least, most = kernel.ratio
        assert least == pytest.approx(most) == pytest.approx(kernel.before.max() / kernel.after.max())


def test_the_map_before_the_merge_is_the_large_kernel_behind_its_norm() -> None:
    model = randomised(tiny_spec(K=5, reparam=3))
    branch = model.stages[2].blocks[0].large_kernel.lkb_origin  # type: ignore[union-attr, index]
    scale = branch.bn.weight / torch.sqrt(branch.bn.running_var + branch.bn.eps)
    expected = (branch.conv.weight * scale[:, None, None, None]).abs().sum((0, 1)).detach().numpy()
    kernels = [kernel for kernel in large_kernels(model) if kernel.stage == 3]
    assert kernels[0].before is not None
    np.testing.assert_allclose(kernels[0].before, expected, rtol=1e-5)


def test_a_small_kernel_that_dominates_raises_the_centre() -> None:
    """As in the paper's figure, where 3.7 times the largest tap comes out of the merge."""
    model = build(tiny_spec(K=13, reparam=3), seed=0)
    for name, parameter in model.named_parameters():
        if "large_kernel" in name and name.endswith("conv.weight"):
            nn.init.constant_(parameter, 2.7 if "small_conv" in name else 1.0)
    for kernel in large_kernels(model):
        assert kernel.before is not None and kernel.ratio is not None
        assert kernel.ratio[0] == pytest.approx(1 / 3.7, rel=1e-6)
        assert central_share(kernel.before) == pytest.approx(9 / 169)
        assert central_share(kernel.after) == pytest.approx(9 * 3.7 / (160 + 9 * 3.7))


@pytest.mark.parametrize("name", ["replknet_nano", "mobilenet_v2_nano", "convnext_nano"])
def test_every_layer_of_every_family_is_found_and_left_alone(name: str) -> None:
    spec = PRESETS[name]
    model = build(spec, seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kernels = list(large_kernels(model))
    assert [kernel.stage for kernel in kernels] == [i + 1 for i, b in enumerate(spec.B) for _ in range(b)]
    assert all(kernel.k == spec.K[kernel.stage - 1] for kernel in kernels)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_is_merged_has_no_before() -> None:
    model = randomised(tiny_spec(K=7, reparam=3))
    for whole, merged in zip(large_kernels(model), large_kernels(merge(model)), strict=True):
        assert merged.before is None and merged.ratio is None and whole.before is not None
        np.testing.assert_array_equal(merged.after, whole.after)


def test_dense_kernels_count_over_all_pairs_of_channels() -> None:
    model = build(tiny_spec(K=5, depthwise=False), seed=0)
    kernel = next(iter(large_kernels(model)))
    weight = model.stages[0].blocks[0].large_kernel.lkb_origin.conv.weight  # type: ignore[union-attr, index]
    assert weight.shape == (4, 4, 5, 5)
    np.testing.assert_allclose(kernel.after, weight.abs().sum((0, 1)).detach().numpy(), rtol=1e-4)


def test_shares_of_the_centre() -> None:
    assert central_share(np.ones((7, 7))) == pytest.approx(CENTRE**2 / 49)
    assert central_share(np.eye(3)) == central_share(np.ones((1, 1))) == 1
    assert np.isnan(central_share(np.zeros((5, 5))))
    assert rescale_to_one(np.zeros((3, 3))).max() == 0 and rescale_to_one(np.full((3, 3), 4.0)).max() == 1


def test_kernels_of_equal_size_leave_nothing_outside() -> None:
    for kernel in large_kernels(randomised(tiny_spec(K=3, reparam=3))):
        assert not kernel.outside.any() and kernel.ratio is None
    dead = LargeKernel(1, 1, np.zeros((5, 5)), np.zeros((5, 5)), np.ones((5, 5), bool))
    assert dead.ratio is None
