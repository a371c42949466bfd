"""Closed-form cost: agreement to the unit with a count on the meta device, and the share of the large kernels.

The other figures of papers, and the count of every preset, are checks of `harness verify`.
"""

import inspect
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
from block_arguments import BLOCKS, arguments, side_after
from hypothesis import assume, given
from hypothesis import strategies as st
from properties import examples
from random_specs import specs_and_sizes

from harness.diagnostics.verify.costs import count
from harness.models.build import build
from harness.models.cost import Cost, Part, network_cost, network_parts
from harness.models.cost.large_kernels import large_kernel
from harness.models.cost.layers import _taps_in_bounds
from harness.models.spec.kernel import KERNEL_KINDS
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS


def test_large_kernels_raise_macs_and_params_by_little() -> None:
    """Guideline 1: [3,3,3,3] to [31,29,27,13] at +18.6 % FLOPs and +10.4 % parameters, by the paper's rounding."""
    small, large = (network_cost(PRESETS[name], 224) for name in ("replknet_3", "replknet_31b"))
    assert round(100 * (large.macs / small.macs - 1), 2) == 18.66
    assert round(100 * (large.params / small.params - 1), 2) == 10.62


def test_the_share_of_the_large_kernels() -> None:
    spec = PRESETS["replknet_31b"]
    kernels = sum((part.large_kernels for part in network_parts(spec, 224)), Cost())
    whole = network_cost(spec, 224)
    assert kernels.params == 7_753_216
    assert round(kernels.macs / 1e9, 3) == 2.443
    assert round(100 * kernels.macs / whole.macs, 1) == 15.9


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


@pytest.mark.long
@given(drawn=specs_and_sizes(), merged=st.booleans())
@examples(60)
def test_random_networks_agree_with_the_count(drawn: tuple[NetworkSpec, tuple[int, int]], merged: bool) -> None:
    spec, size = drawn
    with torch.device("meta"):
        network = build(spec, merged=merged)
    assert network_cost(spec, size, merged) == count(network, spec.in_channels, size)


@pytest.mark.parametrize("name", BLOCKS)
@given(data=st.data(), size=st.tuples(st.integers(1, 20), st.integers(1, 20)))
@examples(40)
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
@pytest.mark.parametrize("kind", KERNEL_KINDS)
@pytest.mark.parametrize("name", ["replknet_31b", "replknet_nano"])
def test_a_new_spec_is_priced_in_under_a_millisecond(name: str, kind: str, merged: bool) -> None:
    spec = PRESETS[name].replace(kernel=kind, reparam=None, dilation=KERNEL_KINDS[kind].dilations[0])

    def seconds() -> float:
        large_kernel.cache_clear()
        _taps_in_bounds.cache_clear()
        start = time.perf_counter()
        network_parts.__wrapped__(spec, 224, merged)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(20)) < 1e-3


def test_prices_come_without_torch() -> None:
    program = (
        "import sys; from harness.models.cost import network_cost; from harness.models.spec.presets import PRESETS;"
        "network_cost(PRESETS['replknet_31b'], 224); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
