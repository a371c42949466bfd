"""Closed-form cost: the paper's figures, and agreement to the unit with a count on the meta device."""

import inspect
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
from block_arguments import arguments, side_after
from counting import count
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_specs import specs_and_sizes

from harness.blocks import BLOCKS
from harness.cost import Cost, Part, network_cost, network_parts
from harness.cost.kernels import large_kernel
from harness.cost.layers import _taps_in_bounds
from harness.kernels import KINDS
from harness.network import build
from harness.presets import PRESETS
from harness.spec import NetworkSpec

PAPER = [
    ("replknet_3", 224, 71_906_408, 71_894_376, 12.939, 12.939),
    ("replknet_7", 224, 72_712_552, 72_375_656, 13.141, 13.063),
    ("replknet_13", 224, 74_156_392, 73_819_496, 13.514, 13.436),
    ("replknet_25", 224, 78_709_096, 78_372_200, 14.887, 14.809),
    ("replknet_31b", 224, 79_864_168, 79_527_272, 15.431, 15.354),
    ("replknet_31b", 384, 79_864_168, 79_527_272, 45.347, 45.119),
    ("replknet_31l", 384, 172_671_016, 172_165_672, 96.332, 95.989),
    ("replknet_xl", 320, 335_435_752, 335_399_656, 128.730, 128.730),
]
"""Preset, resolution, parameters in training and merged form, giga-MACs in training and merged form."""


@pytest.mark.parametrize(("name", "resolution", "train", "merged", "train_gmacs", "merged_gmacs"), PAPER)
def test_the_papers_networks(
    name: str, resolution: int, train: int, merged: int, train_gmacs: float, merged_gmacs: float
) -> None:
    training = network_cost(PRESETS[name], resolution, merged=False)
    deployed = network_cost(PRESETS[name], resolution)
    assert (training.params, deployed.params) == (train, merged)
    assert round(training.macs / 1e9, 3) == pytest.approx(train_gmacs, abs=1e-9)
    assert round(deployed.macs / 1e9, 3) == pytest.approx(merged_gmacs, abs=1e-9)


def test_large_kernels_raise_macs_and_params_by_little() -> None:
    """Guideline 1: [3,3,3,3] to [31,29,27,13] at +18.6 % FLOPs and +10.4 % parameters, by the paper's rounding."""
    small, large = (network_cost(PRESETS[name], 224) for name in ("replknet_3", "replknet_31b"))
    assert round(100 * (large.macs / small.macs - 1), 2) == 18.66
    assert round(100 * (large.params / small.params - 1), 2) == 10.62


def _large_kernels(resolution: int) -> Cost:
    return sum((part.large_kernels for part in network_parts(PRESETS["replknet_31b"], resolution)), Cost())


def test_the_share_of_the_large_kernels() -> None:
    kernels, whole = _large_kernels(224), network_cost(PRESETS["replknet_31b"], 224)
    assert kernels.params == 7_753_216
    assert round(kernels.macs / 1e9, 3) == 2.443
    assert round(100 * kernels.macs / whole.macs, 1) == 15.9


@pytest.mark.parametrize(("resolution", "percent"), [(224, 45.7), (384, 64.9), (1024, 85.7)])
def test_taps_that_fall_inside_the_map(resolution: int, percent: float) -> None:
    kernels = _large_kernels(resolution)
    assert round(100 * kernels.macs_in_bounds / kernels.macs, 1) == percent


def test_the_parts_of_31b_in_their_order() -> None:
    parts = {part.name: part for part in network_parts(PRESETS["replknet_31b"], 224)}
    stages = [f"stage {i}" for i in range(1, 5)]
    order = ["stem", "stage 1", "transition 1", "stage 2", "transition 2", "stage 3", "transition 3", "stage 4", "head"]
    assert list(parts) == order
    assert [parts[name].size for name in stages] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert [round(parts[name].cost.params / 1e6, 2) for name in stages] == [0.58, 1.75, 54.08, 21.36]
    assert [round(parts[name].cost.macs / 1e9, 3) for name in stages] == [1.799, 1.365, 10.565, 1.045]
    assert [round(_in_bounds_percent(parts[name]), 1) for name in stages] == [74.3, 55.0, 26.9, 29.0]


def _in_bounds_percent(part: Part) -> float:
    return 100 * part.large_kernels.macs_in_bounds / part.large_kernels.macs


@pytest.mark.parametrize("merged", [False, True], ids=["training", "merged"])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_agree_with_the_count(name: str, merged: bool) -> None:
    for size in ((224, 224), (160, 96)):
        with torch.device("meta"):
            network = build(PRESETS[name], merged=merged)
        assert network_cost(PRESETS[name], size, merged) == count(network, 3, size)


@given(drawn=specs_and_sizes(), merged=st.booleans())
@settings(max_examples=200, deadline=None)
def test_random_networks_agree_with_the_count(drawn: tuple[NetworkSpec, tuple[int, int]], merged: bool) -> None:
    spec, size = drawn
    with torch.device("meta"):
        network = build(spec, merged=merged)
    assert network_cost(spec, size, merged) == count(network, spec.in_channels, size)


@pytest.mark.parametrize("name", BLOCKS)
@given(data=st.data(), size=st.tuples(st.integers(1, 20), st.integers(1, 20)))
@settings(max_examples=40, deadline=None)
def test_every_block_agrees_with_the_count(name: str, data: st.DataObject, size: tuple[int, int]) -> None:
    block: Any = BLOCKS[name]
    values: dict[str, Any] = data.draw(arguments(block))
    assume(all(side_after(block, values, n) for n in size))
    priced = {name: value for name, value in values.items() if name in inspect.signature(block.cost).parameters}
    with torch.device("meta"):
        network = block(**values)
    assert block.cost(*size, **priced) == count(network, values.get("c_in", values["c"]), size)


def test_a_square_may_be_given_by_its_side() -> None:
    spec = PRESETS["replknet_nano"]
    assert network_cost(spec, 64) == network_cost(spec, (64, 64))


def test_costs_add_up_and_multiply() -> None:
    one = Cost(1, 2, 3, 4)
    assert one + one == one * 2 == Cost(2, 4, 6, 8)
    assert one * 0 == Cost()


@pytest.mark.parametrize("merged", [False, True], ids=["training", "merged"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["replknet_31b", "replknet_nano"])
def test_a_new_spec_is_priced_in_under_a_millisecond(name: str, kind: str, merged: bool) -> None:
    spec = PRESETS[name].replace(kernel=kind, reparam=None, dilation=KINDS[kind].dilations[0])

    def seconds() -> float:
        large_kernel.cache_clear()
        _taps_in_bounds.cache_clear()
        start = time.perf_counter()
        network_parts.__wrapped__(spec, 224, merged)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(20)) < 1e-3


def test_prices_come_without_torch() -> None:
    program = (
        "import sys; from harness.cost import network_cost; from harness.presets import PRESETS;"
        "network_cost(PRESETS['replknet_31b'], 224); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
