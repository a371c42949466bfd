"""Every block has one form, and merges exactly where it merges; and what the blocks are made of."""

import copy
import inspect
from typing import Any

import pytest
import torch
from block_arguments import BLOCKS, arguments, side_after
from hypothesis import assume, given
from hypothesis import strategies as st
from properties import examples
from random_statistics import randomize
from torch import Tensor, nn

from harness.models.large_kernels.reparam import Mergeable, ReparamConv
from harness.models.layers import DropPath
from harness.models.replknet import ConvFFN, RepLKBlock
from harness.models.spec.kernel import Kernel

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
MERGEABLE = [name for name, block in BLOCKS.items() if "merged" in inspect.signature(block).parameters]


def _input(values: dict[str, Any], size: tuple[int, int]) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, values.get("c_in", values["c"]), *size, dtype=torch.float64, generator=g)


def _trained(block: nn.Module) -> nn.Module:
    randomize(block, seed=1)
    return block.double().eval()


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_has_the_same_members_in_the_same_order(name: str) -> None:
    members = [member for member in vars(BLOCKS[name]) if not member.startswith("_") or member == "__init__"]
    first = ["__init__", "cost"] if issubclass(BLOCKS[name], nn.Sequential) else ["__init__", "forward", "cost"]
    assert members[: len(first)] == first
    assert set(members[len(first) :]) <= {"merge", "fold", "equivalent_kernel"}


@pytest.mark.parametrize("name", BLOCKS)
def test_cost_takes_arguments_of_the_constructor(name: str) -> None:
    block: Any = BLOCKS[name]
    cost_parameters, block_parameters = (inspect.signature(f).parameters for f in (block.cost, block))
    assert list(cost_parameters)[:2] == ["h", "w"]
    names = [argument for argument in block_parameters if argument in cost_parameters]
    assert list(cost_parameters)[2:] == names
    assert all(cost_parameters[argument].default == block_parameters[argument].default for argument in names)


@pytest.mark.parametrize("name", BLOCKS)
@given(data=st.data(), size=sizes)
@examples(25)
def test_the_output_has_c_channels_and_the_stride_of_the_block(
    name: str, data: st.DataObject, size: tuple[int, int]
) -> None:
    values = data.draw(arguments(BLOCKS[name]))
    sides = tuple(side_after(BLOCKS[name], values, n) for n in size)
    assume(all(sides))
    with torch.no_grad():
        y = _trained(BLOCKS[name](**values))(_input(values, size))
    assert y.shape == (2, values["c"], *sides)
    assert y.isfinite().all()


@pytest.mark.parametrize("name", MERGEABLE)
@given(data=st.data(), size=sizes)
@examples(80)
def test_merged_equals_unmerged(name: str, data: st.DataObject, size: tuple[int, int]) -> None:
    values = data.draw(arguments(BLOCKS[name])) | {"merged": False}
    block = _trained(BLOCKS[name](**values))
    merged = _merged(block)
    with torch.no_grad():
        before, after = (form(_input(values, size)) for form in (block, merged))
    assert (after - before).abs().max() < 1e-10 * before.abs().max()
    fresh = BLOCKS[name](**values | {"merged": True}).double()
    fresh.load_state_dict(merged.state_dict())


def _merged(block: nn.Module) -> nn.Module:
    merged = copy.deepcopy(block)
    for module in list(merged.modules()):
        if isinstance(module, Mergeable):
            module.merge()
    return merged


@pytest.mark.parametrize(("k", "s", "depthwise"), [(31, 5, True), (13, None, True), (7, 7, True), (5, 3, False)])
def test_merging_twice_is_harmless_and_leaves_no_branch(k: int, s: int | None, depthwise: bool) -> None:
    conv = ReparamConv(4, Kernel(k, s, depthwise=depthwise))
    _trained(conv)
    conv.merge()
    kernel = conv.lkb_reparam
    conv.merge()
    assert conv.lkb_reparam is kernel
    assert conv.lkb_origin is None and conv.small_conv is None
    assert [name for name, _ in conv.named_children()] == ["lkb_reparam"]
    assert list(conv.state_dict()) == ["lkb_reparam.weight", "lkb_reparam.bias"]


def test_the_merged_kernel_keeps_type_mode_and_padding() -> None:
    conv = ReparamConv(4, Kernel(9, 3)).to(torch.float32).eval()
    conv.merge()
    assert conv.lkb_reparam is not None
    assert conv.lkb_reparam.weight.dtype == torch.float32
    assert not conv.lkb_reparam.training
    assert conv.lkb_reparam.padding == (4, 4)
    assert conv.lkb_reparam.weight.requires_grad


def test_shortcut_false_drops_the_identity_of_the_large_kernel_block_only() -> None:
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    for shortcut in (True, False):
        block = RepLKBlock(4, width=4, kernel=Kernel(5), shortcut=shortcut)
        silent = _silenced(block)
        assert torch.equal(silent(x), x if shortcut else torch.zeros_like(x))
    assert torch.equal(_silenced(ConvFFN(4, width=8))(x), x)


def _silenced(block: RepLKBlock | ConvFFN) -> nn.Module:
    """The block with nothing on its residual path."""
    nn.init.zeros_(block.pw2.bn.weight)
    return block.double().eval()


@pytest.mark.parametrize("depthwise", [True, False])
def test_dense_kernels_mix_channels_and_depthwise_ones_do_not(depthwise: bool) -> None:
    conv = ReparamConv(3, Kernel(5, 3, depthwise=depthwise)).double().eval()
    x = torch.zeros(1, 3, 5, 5, dtype=torch.float64)
    x[0, 0] = 1
    reached = conv(x).detach().abs().sum((0, 2, 3)) > 0
    assert reached.tolist() == [True, not depthwise, not depthwise]


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    y = drop(torch.ones(4000, 2, 3, 3))
    kept = y[:, 0, 0, 0] > 0
    assert torch.equal(y, kept.float().reshape(-1, 1, 1, 1).expand_as(y) / 0.75)
    assert abs(kept.float().mean().item() - 0.75) < 0.03
    x = torch.randn(3, 2, 3, 3)
    assert torch.equal(drop.eval()(x), x)
