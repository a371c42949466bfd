"""MobileNetV2 and ConvNeXt: equal to the libraries' networks, and what a study changes in them."""

from typing import Any

import pytest
import timm
import torch
from random_statistics import randomize
from timm.models.convnext import ConvNeXt as TimmConvNeXt
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from harness.errors import SpecError
from harness.models.build import build, merge
from harness.models.convnext import ConvNeXtBlock
from harness.models.cost import network_cost, network_parts
from harness.models.mobilenet_v2 import InvertedResidual
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import Kernel
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS

MOBILENET, CONVNEXT = PRESETS["mobilenet_v2_nano"], PRESETS["convnext_nano"]


def _lively(network: nn.Module) -> nn.Module:
    """The network as training leaves it: other batch norms, and layer scales that let the blocks be seen."""
    randomize(network, seed=1)
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.5, 1.5, generator=g)
            elif parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
    return network.double().eval()


def _images(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _error(ours: nn.Module, theirs: nn.Module, side: int) -> float:
    """The largest difference of the logits, relative to the largest logit."""
    expected = theirs(_images(side))
    return float((ours(_images(side)) - expected).abs().max() / expected.abs().max())


# MobileNetV2


@pytest.mark.parametrize(
    ("name", "params", "mmacs"),
    [
        ("mobilenet_v2", 3_504_872, 300.8),
        ("mobilenet_v2_9", 4_018_664, 466.5),
        ("mobilenet_v2_13", 4_646_632, 669.1),
    ],
)
def test_mobilenet_with_one_kernel_size_everywhere(name: str, params: int, mmacs: float) -> None:
    cost = network_cost(PRESETS[name], 224, merged=False)
    assert (cost.params, round(cost.macs / 1e6, 1)) == (params, mmacs)


def test_mobilenet_is_that_of_torchvision() -> None:
    theirs = _lively(mobilenet_v2(weights=None))
    ours = build(PRESETS["mobilenet_v2"])
    values = list(theirs.state_dict().values())
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    assert _error(ours.double().eval(), theirs, 96) < 1e-12


def test_the_stages_of_mobilenet() -> None:
    parts = network_parts(PRESETS["mobilenet_v2"], 224)
    assert [part.name for part in parts] == ["stem", *(f"stage {i}" for i in range(1, 8)), "head"]
    assert [part.size[0] for part in parts] == [112, 112, 56, 28, 14, 14, 7, 7, 1]
    network: Any = build(MOBILENET)
    maps = network.features(torch.randn(2, 3, 48, 48))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, n, n) for c, n in zip(MOBILENET.C, (48, 24, 12, 6, 6, 3, 3), strict=True)
    ]


@pytest.mark.parametrize("shortcut", [True, False])
def test_mobilenet_has_an_identity_where_shapes_agree_and_the_spec_wants_it(shortcut: bool) -> None:
    blocks = [m for m in build(MOBILENET.replace(shortcut=shortcut)).modules() if isinstance(m, InvertedResidual)]
    first_in_stage = [True, True, True, False, True, False, True, True, True]
    assert [block.shortcut for block in blocks] == [shortcut and not first for first in first_in_stage]


def test_only_the_first_stage_does_not_expand() -> None:
    blocks = [m for m in build(MOBILENET.replace(B=2)).modules() if isinstance(m, InvertedResidual)]
    assert [isinstance(block.pw1, nn.Identity) for block in blocks] == [True] * 2 + [False] * 12
    widths = [block.pw2.conv.in_channels for block in blocks]
    assert widths[:6] == [16, 8, 8 * 6, 12 * 6, 12 * 6, 16 * 6]


# ConvNeXt


@pytest.mark.parametrize(("name", "theirs"), [("convnext_t", "convnext_tiny"), ("convnext_s", "convnext_small")])
def test_convnext_has_the_names_shapes_and_params_of_timm(name: str, theirs: str) -> None:
    with torch.device("meta"):
        expected, ours = timm.create_model(theirs), build(PRESETS[name])
    assert _shapes(ours) == _shapes(expected)
    assert network_cost(PRESETS[name], 224, merged=False).params == sum(p.numel() for p in expected.parameters())


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


@pytest.mark.long
@pytest.mark.parametrize("merged", [False, True])
def test_convnext_takes_timms_weights_and_gives_timms_output(merged: bool) -> None:
    theirs = _lively(timm.create_model("convnext_tiny"))
    ours = build(PRESETS["convnext_t"], merged=merged).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert _error(ours, theirs, 64) < 1e-12
    images = _images(64).float()
    with torch.no_grad():
        expected = theirs.float()(images)
        assert (ours.float()(images) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_convnext_starts_from_the_distribution_of_timm() -> None:
    ours, theirs = (
        network.state_dict()
        for network in (build(CONVNEXT, seed=0), TimmConvNeXt(depths=CONVNEXT.B, dims=CONVNEXT.C, num_classes=10))
    )
    for name, value in theirs.items():
        if value.dim() == 1:
            assert torch.equal(ours[name], value), name
        else:
            assert ours[name].std().item() == pytest.approx(0.02, rel=0.3), name


def test_a_merged_convnext_is_a_convnext_of_timm_with_that_kernel() -> None:
    spec = CONVNEXT.replace(K=[31, 29, 27, 13], reparam=5, stem_stride=4)
    ours = _lively(build(spec, seed=0))
    theirs = TimmConvNeXt(depths=spec.B, dims=spec.C, kernel_sizes=spec.K, num_classes=10).double()
    theirs.load_state_dict(merge(ours).state_dict(), strict=True)
    assert _error(ours, theirs.eval(), 64) < 1e-10


@pytest.mark.parametrize("depthwise", [True, False])
def test_a_dilated_or_dense_kernel_stays_one_biased_convolution(depthwise: bool) -> None:
    block = ConvNeXtBlock(4, width=8, kernel=Kernel(3, dilation=4, depthwise=depthwise))
    assert isinstance(block.conv_dw, nn.Conv2d)
    assert (block.conv_dw.dilation, block.conv_dw.padding) == ((4, 4), (4, 4))
    assert block.conv_dw.groups == (4 if depthwise else 1)
    assert block.conv_dw.bias is not None


def test_without_the_shortcut_the_layer_scale_lets_the_block_through() -> None:
    assert ConvNeXtBlock(4, width=8, kernel=Kernel(7)).gamma.tolist() == pytest.approx([1e-6] * 4)
    assert ConvNeXtBlock(4, width=8, kernel=Kernel(7), shortcut=False).gamma.tolist() == [1] * 4


@pytest.mark.parametrize(("stem_stride", "sides"), [(2, (31, 15, 7, 3)), (4, (15, 7, 3, 1))])
def test_convnexts_maps_round_down(stem_stride: int, sides: tuple[int, ...]) -> None:
    spec = CONVNEXT.replace(stem_stride=stem_stride)
    network: Any = build(spec)
    maps = network.features(torch.randn(1, 3, 63, 62))
    assert [tuple(m.shape[1:]) for m in maps] == [(c, n, n) for c, n in zip(spec.C, sides, strict=True)]
    assert [part.size for part in network_parts(spec, (63, 62))][1:-1] == [(n, n) for n in sides]


@pytest.mark.parametrize(("stem_stride", "least"), [(2, 16), (4, 32)])
def test_maps_that_vanish_are_an_error(stem_stride: int, least: int) -> None:
    spec = CONVNEXT.replace(stem_stride=stem_stride)
    assert network_parts(spec, least)[-2].size == (1, 1)
    with pytest.raises(SpecError, match=f"needs images of {least} pixels a side, and these have {least - 1}"):
        network_cost(spec, (64, least - 1))


# Both


@pytest.mark.parametrize("name", ["mobilenet_v2_nano", "convnext_nano"])
@pytest.mark.parametrize("change", [{}, {"shortcut": False}, {"depthwise": False}, {"K": 13, "reparam": 3}], ids=str)
def test_every_parameter_gets_a_finite_gradient(name: str, change: dict[str, Any]) -> None:
    network = build(PRESETS[name].replace(**change), seed=0).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    network(images).square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", ["mobilenet_v2_nano", "convnext_nano"])
def test_the_head_follows_the_features(name: str) -> None:
    network: Any = build(PRESETS[name], seed=0).eval()
    images = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(network(images), network.forward_head(network.forward_features(images)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_refuses_what_it_lacks_and_stems_that_it_has_not(family: str) -> None:
    spec = next(spec for spec in PRESETS.values() if spec.family == family)
    with pytest.raises(
        SpecError, match=rf"`stem_stride` must be {' or '.join(map(str, FAMILIES[family].stem_strides))}"
    ):
        spec.replace(stem_stride=8)
    for name in FAMILIES[family].unsupported_fields:
        with pytest.raises(SpecError, match=f"`{name}` must keep its default where it changes nothing: in {family}"):
            spec.replace(**{name: 1.5})


def test_a_mobilenet_has_seven_stages() -> None:
    with pytest.raises(SpecError, match="one value per stage, 7 in all"):
        NetworkSpec.from_mapping({"family": "mobilenet_v2", "B": [1, 1, 1, 1], "C": 8, "K": 3, "stem_stride": 1})
