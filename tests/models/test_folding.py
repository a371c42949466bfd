"""Batch norms folded into adjacent layers: the network computes the same, and its cost is counted as in the paper."""

from typing import Any

import pytest
import timm
import torch
from block_arguments import BLOCKS, arguments, side_after
from hypothesis import assume, given
from hypothesis import strategies as st
from properties import examples
from random_specs import specs_and_sizes
from random_statistics import randomize
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.models.batchnorm_folding import fold_into_next
from harness.models.build import build, fold, merge
from harness.models.cost import Cost, network_cost
from harness.models.layers import ConvBN, LayerNorm2d
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS


def _trained(network: nn.Module) -> nn.Module:
    randomize(network, seed=1)
    return network.double().eval()


def _images(channels: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(2, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _norms(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, _BatchNorm)]


def _params(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _assert_fold_is_exact(network: nn.Module, x: Tensor) -> nn.Module:
    """The folded network, which computes what the network computes, and has no batch norm."""
    names = _norms(network)
    folded = fold(network)
    with torch.no_grad():
        before, after = network(x), folded(x)
    assert (after - before).abs().max() <= 1e-10 * before.abs().max()
    assert not _norms(folded) and _norms(network) == names
    return folded


@pytest.mark.parametrize("name", BLOCKS)
@given(data=st.data(), size=st.tuples(st.integers(1, 12), st.integers(1, 12)))
@examples(60)
def test_every_block_without_batch_norms_computes_the_same(
    name: str, data: st.DataObject, size: tuple[int, int]
) -> None:
    values: dict[str, Any] = data.draw(arguments(BLOCKS[name]))
    assume(all(side_after(BLOCKS[name], values, n) for n in size))
    block = _trained(BLOCKS[name](**values))
    _assert_fold_is_exact(block, _images(values.get("c_in", values["c"]), size))


@given(drawn=specs_and_sizes(least=8), seed=st.integers(0, 9))
@examples(40)
def test_random_networks_without_batch_norms_compute_the_same(
    drawn: tuple[NetworkSpec, tuple[int, int]], seed: int
) -> None:
    spec, size = drawn
    folded = _assert_fold_is_exact(_trained(build(spec, seed=seed)), _images(spec.in_channels, size))
    assert network_cost(spec, 64).params_folded == _params(folded)


@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith(("nano", "tiny"))])
def test_the_proxies_without_batch_norms_compute_the_same(name: str) -> None:
    _assert_fold_is_exact(_trained(build(PRESETS[name], seed=0)), _images(3, (64, 64)))


@pytest.mark.long
@pytest.mark.parametrize("name", PRESETS)
def test_the_closed_form_counts_the_folded_network(name: str) -> None:
    with torch.device("meta"):
        folded = fold(build(PRESETS[name]))
    assert network_cost(PRESETS[name], 224).params_folded == _params(folded)
    assert not _norms(folded)


def test_the_folded_network_has_the_papers_parameters() -> None:
    """Table 5: 79.3M."""
    assert network_cost(PRESETS["replknet_31b"], 224).params_folded == 79_388_776


def test_saved_parameters_add_up_and_multiply() -> None:
    assert (Cost(params=5, params_saved=2) * 2 + Cost(params=1)).params_folded == 7


@pytest.mark.parametrize("merged", [False, True], ids=["training", "merged"])
def test_folding_twice_changes_nothing(merged: bool) -> None:
    once = fold(_trained(build(PRESETS["replknet_nano"], seed=0, merged=merged)))
    twice = fold(once).state_dict()
    assert list(twice) == list(once.state_dict())
    assert all(torch.equal(value, twice[name]) for name, value in once.state_dict().items())


def test_folding_keeps_type_mode_and_layout_and_leaves_no_trace() -> None:
    network = build(PRESETS["replknet_nano"], seed=0).to(memory_format=torch.channels_last).eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold(network)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert {p.dtype for p in folded.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in folded.parameters()) and not any(m.training for m in folded.modules())
    entries = folded.state_dict()
    assert not [name for name in entries if "bn" in name or name.startswith("norm.")]
    assert entries["stages.0.blocks.1.pw1.conv.weight"].is_contiguous(memory_format=torch.channels_last)


def test_synchronised_batch_norms_fold_as_well() -> None:
    plain = _trained(build(PRESETS["replknet_nano"], seed=0))
    network: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(plain)  # type: ignore[no-untyped-call]
    assert any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
    _assert_fold_is_exact(network, _images(3, (32, 32)))


@pytest.mark.parametrize(("pool", "left"), [("avg", []), ("max", ["norm"])])
def test_timms_poolings_other_than_the_mean_keep_the_heads_norm(pool: str, left: list[str]) -> None:
    network = _trained(timm.create_model("replknet_nano", global_pool=pool))
    x = _images(3, (32, 32))
    folded = fold(network)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), network(x), rtol=1e-10, atol=1e-10)
    assert _norms(folded) == left


def test_layer_norms_stay() -> None:
    folded = fold(build(PRESETS["convnext_t_31"].replace(B=1), seed=0))
    assert any(isinstance(module, LayerNorm2d) for module in folded.modules())
    assert any(isinstance(module, _BatchNorm) for module in build(PRESETS["convnext_t_31"].replace(B=1)).modules())


def test_a_norm_ahead_of_a_padded_convolution_is_refused() -> None:
    with pytest.raises(AssertionError):
        fold_into_next(nn.BatchNorm2d(4), ConvBN(4, 4, 3).conv)


def test_merging_alone_keeps_the_batch_norms_that_are_not_in_a_branch() -> None:
    network = build(PRESETS["replknet_nano"], seed=0)
    assert 0 < len(_norms(merge(network))) < len(_norms(network))
