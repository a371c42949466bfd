"""Networks: as the paper defines them, named as its checkpoints, merged without a change."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from random_specs import specs_and_sizes
from random_statistics import randomize
from torch import Tensor, nn

from harness.models.build import NETWORKS, build, merge
from harness.models.cost import network_cost
from harness.models.cost.families import PARTS
from harness.models.layers import drop_path_by_stage
from harness.models.replknet import RepLKNet
from harness.models.spec.family import FAMILIES
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS

SMALL = NetworkSpec(
    B=(1, 2, 1, 1), C=(4, 6, 8, 8), K=(9, 7, 5, 31), reparam=(5, 3, None, 5), dw_ratio=1.5, classes=5, drop_path=0.2
)


def _trained(network: nn.Module) -> nn.Module:
    randomize(network, seed=1)
    return network.double().eval()


def _images(channels: int = 3, size: tuple[int, int] = (64, 48)) -> Tensor:
    return torch.randn(2, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Definition:
    """RepLKNet as section 4.1 of the paper and its released code define it, from a state dict and bare operators."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def bn(self, name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)

    def conv_bn(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.conv.weight"]
        groups = x.shape[1] // weight.shape[1]
        return self.bn(f"{name}.bn", F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups))

    def large(self, name: str, x: Tensor) -> Tensor:
        y = self.conv_bn(f"{name}.lkb_origin", x)
        return y + self.conv_bn(f"{name}.small_conv", x) if f"{name}.small_conv.conv.weight" in self.state else y

    def pair(self, stage: str, i: int, x: Tensor) -> Tensor:
        lk, ffn = f"{stage}.blocks.{2 * i}", f"{stage}.blocks.{2 * i + 1}"
        y = F.relu(self.conv_bn(f"{lk}.pw1", self.bn(f"{lk}.prelkb_bn", x)))
        x = x + self.conv_bn(f"{lk}.pw2", F.relu(self.large(f"{lk}.large_kernel", y)))
        y = F.gelu(self.conv_bn(f"{ffn}.pw1", self.bn(f"{ffn}.preffn_bn", x)))
        return x + self.conv_bn(f"{ffn}.pw2", y)

    def __call__(self, spec: NetworkSpec, x: Tensor) -> Tensor:
        for i, stride in enumerate((2, 1, 1, spec.stem_stride // 2)):
            x = F.relu(self.conv_bn(f"stem.{i}", x, stride))
        for s, blocks in enumerate(spec.B):
            if s > 0:
                x = F.relu(self.conv_bn(f"transitions.{s - 1}.0", x))
                x = F.relu(self.conv_bn(f"transitions.{s - 1}.1", x, 2))
            for i in range(blocks):
                x = self.pair(f"stages.{s}", i, x)
        x = F.adaptive_avg_pool2d(self.bn("norm", x), 1).flatten(1)
        return F.linear(x, self.state["head.weight"], self.state["head.bias"])


@pytest.mark.parametrize("stem_stride", [2, 4])
@pytest.mark.parametrize("depthwise", [True, False])
def test_the_network_computes_the_papers_definition(stem_stride: int, depthwise: bool) -> None:
    spec = SMALL.replace(stem_stride=stem_stride, depthwise=depthwise)
    network = _trained(build(spec, seed=0))
    with torch.no_grad():
        torch.testing.assert_close(
            network(_images()), Definition(network.state_dict())(spec, _images()), rtol=1e-10, atol=1e-10
        )


def test_parameters_have_the_released_checkpoints_names_and_shapes() -> None:
    with torch.device("meta"):
        training, merged = (build(PRESETS["replknet_31b"], merged=m).state_dict() for m in (False, True))
    block = "stages.2.blocks.34"
    expected = {
        "stem.0.conv.weight": (128, 3, 3, 3),
        "stem.3.conv.weight": (128, 1, 3, 3),
        "stem.3.bn.running_mean": (128,),
        f"{block}.prelkb_bn.weight": (512,),
        f"{block}.pw1.conv.weight": (512, 512, 1, 1),
        f"{block}.pw2.bn.num_batches_tracked": (),
        f"{block}.large_kernel.lkb_origin.conv.weight": (512, 1, 27, 27),
        f"{block}.large_kernel.lkb_origin.bn.bias": (512,),
        f"{block}.large_kernel.small_conv.conv.weight": (512, 1, 5, 5),
        "stages.2.blocks.35.preffn_bn.weight": (512,),
        "stages.2.blocks.35.pw1.conv.weight": (2048, 512, 1, 1),
        "transitions.0.0.conv.weight": (256, 128, 1, 1),
        "transitions.2.1.conv.weight": (1024, 1, 3, 3),
        "norm.weight": (1024,),
        "head.weight": (1000, 1024),
        "head.bias": (1000,),
    }
    assert {name: tuple(training[name].shape) for name in expected} == expected
    assert tuple(merged[f"{block}.large_kernel.lkb_reparam.weight"].shape) == (512, 1, 27, 27)
    assert tuple(merged[f"{block}.large_kernel.lkb_reparam.bias"].shape) == (512,)
    assert not [name for name in merged if "lkb_origin" in name or "small_conv" in name]


@given(drawn=specs_and_sizes(least=8), seed=st.integers(0, 9))
@examples(60)
def test_merged_equals_unmerged_for_random_networks(drawn: tuple[NetworkSpec, tuple[int, int]], seed: int) -> None:
    _assert_merge_is_exact(*drawn, seed)


@pytest.mark.parametrize("name", ["replknet_nano", "replknet_tiny", "mobilenet_v2_nano", "convnext_nano"])
def test_merged_equals_unmerged_for_the_proxies(name: str) -> None:
    _assert_merge_is_exact(PRESETS[name], (64, 64), 0)


def _assert_merge_is_exact(spec: NetworkSpec, size: tuple[int, int], seed: int) -> None:
    network = _trained(build(spec, seed=seed))
    merged = merge(network)
    images = _images(spec.in_channels, size)
    with torch.no_grad():
        before, after = network(images), merged(images)
    assert (after - before).abs().max() < 1e-10 * before.abs().max()
    direct = build(spec, merged=True).double().eval()
    direct.load_state_dict(merged.state_dict())
    with torch.no_grad():
        assert torch.equal(direct(images), after)


def _assert_one_network(spec: NetworkSpec, size: tuple[int, int]) -> None:
    """The spec as it is written and its identity, built unchanged, compute the same from the same weights."""
    as_written, identity = (NETWORKS[spec.family](variant).double().eval() for variant in (spec, spec.identity()))
    randomize(as_written, seed=1)
    identity.load_state_dict(dict(zip(identity.state_dict(), as_written.state_dict().values(), strict=True)))
    images = _images(spec.in_channels, size)
    with torch.no_grad():
        torch.testing.assert_close(identity(images), as_written(images), rtol=1e-10, atol=1e-10)
    assert list(build(spec).state_dict()) == list(identity.state_dict())
    assert network_cost(spec, 64, merged=False) == network_cost(spec.identity(), 64, merged=False)


@given(drawn=specs_and_sizes(least=8))
@examples(40)
def test_a_spec_and_its_identity_are_one_network(drawn: tuple[NetworkSpec, tuple[int, int]]) -> None:
    _assert_one_network(*drawn)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "peripheral", "K": 7, "reparam": 5},
        {"kernel": "dilated_reparam", "K": 3},
        {"kernel": "sequential", "K": 21, "dilation": 3},
        {"K": 1, "dilation": 2},
    ],
    ids=str,
)
def test_every_family_builds_one_network_from_both_spellings(family: str, change: dict[str, Any]) -> None:
    spec = NetworkSpec.from_mapping({"family": family, "B": 1, "C": 8, "stem_stride": 2, "classes": 3} | change)
    assert spec.identity() != spec
    _assert_one_network(spec, (48, 40))


def test_merge_leaves_its_argument_alone_and_may_be_repeated() -> None:
    network = _trained(build(SMALL, seed=0))
    before, random_state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    merged = merge(network)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    again = merge(merged)
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in merged.state_dict().items()
    }
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in merged.state_dict().items())


def test_a_seed_decides_the_weights_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second, other = (build(SMALL, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])
    unseeded = build(SMALL).state_dict()
    torch.manual_seed(5)
    assert torch.equal(build(SMALL).state_dict()["head.weight"], unseeded["head.weight"])


@pytest.mark.parametrize(("stem_stride", "sides"), [(4, (16, 8, 4, 2)), (2, (32, 16, 8, 4))])
def test_features_are_the_four_stage_maps(stem_stride: int, sides: tuple[int, ...]) -> None:
    network = build(SMALL.replace(stem_stride=stem_stride), seed=0).eval()
    assert isinstance(network, RepLKNet)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = network.features(images)
        logits = network.forward_head(network.norm(maps[-1]))
        assert torch.equal(network(images), logits)
        assert torch.equal(network.forward_features(images), network.norm(maps[-1]))
    assert [tuple(m.shape) for m in maps] == [(1, c, n, n) for c, n in zip(SMALL.C, sides, strict=True)]
    assert logits.shape == (1, 5)


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    rates = drop_path_by_stage(PRESETS["replknet_31b"])
    assert [len(stage) for stage in rates] == [2, 2, 18, 2]
    flat = [p for stage in rates for p in stage]
    assert flat == pytest.approx(torch.linspace(0, 0.3, 24).tolist(), abs=1e-7)
    network = build(SMALL, seed=0)
    built = [m.p for m in network.modules() if hasattr(m, "p")]
    assert built == pytest.approx([p for stage in drop_path_by_stage(SMALL) for p in stage for _ in range(2)])


@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["default", "channels-last"])
def test_every_parameter_gets_a_finite_gradient(shortcut: bool, layout: Any) -> None:
    network = build(SMALL.replace(shortcut=shortcut, drop_path=0.0), seed=0).to(memory_format=layout)
    network(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_one_training_step_is_bitwise_the_same() -> None:
    def step() -> list[Tensor]:
        network = build(PRESETS["replknet_nano"], seed=3).to(memory_format=torch.channels_last)
        images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        network(images).square().sum().backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    assert all(torch.equal(a, b) for a, b in zip(step(), step(), strict=True))


def test_the_tables_by_family_agree() -> None:
    assert set(FAMILIES) == set(NETWORKS) == set(PARTS)
