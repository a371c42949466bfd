"""Fields with one value for all stages or one per stage: kernel, shortcut, depthwise, dw_ratio, ffn_ratio."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from properties import examples
from random_specs import specs

from harness.config.space import fields_by_stage, plain_fields
from harness.errors import SpecError
from harness.measures.kernel_weights import large_kernels
from harness.models.build import build
from harness.models.convnext import ConvNeXtBlock
from harness.models.cost import network_cost
from harness.models.mobilenet_v2 import InvertedResidual
from harness.models.replknet import ConvFFN, RepLKBlock
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.report.network import network_costs, network_view

NANO = PRESETS["replknet_nano"]
MIXED = NANO.replace(
    K=[5, 7, 13, 13],
    reparam=[None, 5, 5, None],
    kernel=["plain", "stripes", "peripheral", "bands"],
    shortcut=[True, False, True, False],
    dw_ratio=[1, 1.5, 1, 0.5],
    ffn_ratio=[4, 2, 4, 1],
)
BEFORE = json.loads((Path(__file__).parent / "specs_before_stages.json").read_text(encoding="utf-8"))
"""Presets and random networks as the version wrote them in which these fields had one value for all stages."""


def _parameters(spec: NetworkSpec) -> list[tuple[int, ...]]:
    with torch.device("meta"):
        return sorted(tuple(parameter.shape) for parameter in build(spec).parameters())


@pytest.mark.parametrize("row", BEFORE, ids=lambda row: row["fingerprint"])
def test_specs_of_equal_stages_are_written_and_identified_as_before(row: dict[str, Any]) -> None:
    """Stored runs are found by the fingerprint: a change here orphans them."""
    spec = NetworkSpec.from_mapping(row["canonical"])
    assert json.dumps(spec.canonical()) == json.dumps(row["canonical"])
    assert spec.fingerprint() == row["fingerprint"]
    assert hashlib.sha256(json.dumps(plain_fields(spec)).encode()).hexdigest()[:16] == row["written"]
    cost = network_cost(spec, 64)
    assert (cost.params, cost.macs) == (row["params"], row["macs"])
    assert NetworkSpec.from_mapping(fields_by_stage(spec)) == spec, "equal values in a list are the single value"


def test_the_presets_are_among_them() -> None:
    assert {spec.fingerprint() for spec in PRESETS.values()} <= {row["fingerprint"] for row in BEFORE}


def test_a_network_of_equal_stages_has_the_same_bits_in_both_spellings() -> None:
    lists = NetworkSpec.from_mapping(fields_by_stage(NANO))
    one, other = (build(spec, seed=2).state_dict() for spec in (NANO, lists))
    assert lists == NANO and all(torch.equal(one[name], other[name]) for name in one | other)


def test_each_stage_is_built_with_its_own_values() -> None:
    network: Any = build(MIXED)
    for i, stage in enumerate(network.stages):
        block = next(m for m in stage.modules() if isinstance(m, RepLKBlock))
        ffn = next(m for m in stage.modules() if isinstance(m, ConvFFN))
        assert block.shortcut == MIXED.at("shortcut", i)
        assert block.pw2.conv.in_channels == MIXED.C[i] * MIXED.at("dw_ratio", i)
        assert ffn.pw2.conv.in_channels == MIXED.C[i] * MIXED.at("ffn_ratio", i)
    kinds = [
        type(next(m for m in stage.modules() if isinstance(m, RepLKBlock)).large_kernel) for stage in network.stages
    ]
    assert [kind.__name__ for kind in kinds] == ["ReparamConv", "StripesConv", "PeripheralConv", "BandsConv"]


def test_families_build_each_stage_with_its_own_values() -> None:
    convnext: Any = build(PRESETS["convnext_nano"].replace(shortcut=[True, False, True, True], ffn_ratio=[4, 2, 1, 4]))
    first = [next(m for m in stage.modules() if isinstance(m, ConvNeXtBlock)) for stage in convnext.stages]
    assert [block.shortcut for block in first] == [True, False, True, True]
    assert [block.mlp.fc1.out_features for block in first] == [64, 64, 64, 512]
    mobilenet: Any = build(
        PRESETS["mobilenet_v2_nano"].replace(B=2, shortcut=[True, False] * 3 + [True], ffn_ratio=[6, 1, 2, 3, 4, 5, 6])
    )
    last = [[m for m in stage.modules() if isinstance(m, InvertedResidual)][-1] for stage in mobilenet.stages]
    assert [block.shortcut for block in last] == [True, False] * 3 + [True]
    widths = [block.pw2.conv.in_channels for block in last]
    assert widths == [8, 12, 16 * 2, 24 * 3, 32 * 4, 48 * 5, 64 * 6], "the first stage does not expand"


@given(specs())
@examples(100)
def test_an_identity_builds_the_same_network(spec: NetworkSpec) -> None:
    identity = spec.identity()
    assert _parameters(identity) == _parameters(spec)
    for merged in (False, True):
        assert network_cost(identity, 40, merged) == network_cost(spec, 40, merged)


@given(specs())
@examples(200)
def test_stages_may_be_spelled_one_by_one(spec: NetworkSpec) -> None:
    """Canonical kernels, stage by stage, are another spelling of the same network."""
    kernels = [spec._canonical_kernel(i) for i in range(len(spec.K))]
    other = spec.replace(
        kernel=[kernel.kind for kernel in kernels],
        K=[kernel.k for kernel in kernels],
        reparam=[kernel.s for kernel in kernels],
        dilation=[kernel.dilation for kernel in kernels],
    )
    assert other.fingerprint() == spec.fingerprint()


SPELLINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "replknet",
        {"kernel": "dilated_reparam", "K": [3, 13, 13, 13]},
        {"kernel": ["plain"] + ["dilated_reparam"] * 3, "K": [3, 13, 13, 13], "reparam": [1, None, None, None]},
    ),
    (
        "replknet",
        {"kernel": "peripheral", "K": [7, 13, 7, 13], "reparam": [5, 5, None, 5]},
        {"kernel": ["plain", "peripheral"] * 2, "K": [7, 13, 7, 13], "reparam": [5, 5, None, 5]},
    ),
    (
        "replknet",
        {"kernel": ["peripheral", "stripes", "plain", "plain"]},
        {"kernel": ["plain", "stripes", "plain", "peripheral"]},
    ),
    ("mobilenet_v2", {"ffn_ratio": 6}, {"ffn_ratio": [1, 6, 6, 6, 6, 6, 6]}),
    ("mobilenet_v2", {"ffn_ratio": [1, 3, 6, 6, 6, 6, 6]}, {"ffn_ratio": [6, 3, 6, 6, 6, 6, 6]}),
    ("mobilenet_v2", {"shortcut": False, "B": [1] + [2] * 6}, {"shortcut": [True] + [False] * 6, "B": [1] + [2] * 6}),
    (
        "mobilenet_v2",
        {"shortcut": [True, False] + [True] * 5, "C": [8, 9, 8, 9, 8, 9, 8]},
        {"shortcut": [False, True] + [False] * 5, "C": [8, 9, 8, 9, 8, 9, 8]},
    ),
]
"""Pairs of ways to write one network."""

DIFFERENT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "convnext",
        {"kernel": ["plain", "stripes", "stripes", "stripes"]},
        {"kernel": ["peripheral", "stripes", "stripes", "stripes"]},
    ),
    ("mobilenet_v2", {"shortcut": [True] * 6 + [False], "B": 2}, {"shortcut": True, "B": 2}),
    ("mobilenet_v2", {"shortcut": [True] * 4 + [False] + [True] * 2}, {"shortcut": True}),
    ("mobilenet_v2", {"ffn_ratio": [6, 6, 6, 6, 6, 6, 3]}, {"ffn_ratio": 6}),
    ("replknet", {"shortcut": [True, True, True, False]}, {"shortcut": [False, True, True, True]}),
    ("replknet", {"depthwise": [True, False, True, True]}, {"depthwise": True}),
]
"""Two networks each; a ConvNeXt's plain kernel has no batch norm after it, and equal channels allow a shortcut."""


@pytest.mark.parametrize(("family", "one", "other"), SPELLINGS, ids=str)
def test_two_spellings_have_one_fingerprint(family: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = (
        NetworkSpec.from_mapping({"family": family, "B": 1, "C": 8, "K": 7, "stem_stride": 2} | each)
        for each in (one, other)
    )
    assert first != second and first.fingerprint() == second.fingerprint()
    assert first.identity() == second.identity() == first.identity().identity()
    assert _parameters(first) == _parameters(second)


@pytest.mark.parametrize(("family", "one", "other"), DIFFERENT, ids=str)
def test_different_networks_have_different_fingerprints(
    family: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    first, second = (
        NetworkSpec.from_mapping({"family": family, "B": 1, "C": 8, "K": 7, "stem_stride": 2} | each)
        for each in (one, other)
    )
    assert first.fingerprint() != second.fingerprint()


def test_a_field_of_one_kind_counts_if_one_stage_has_the_kind() -> None:
    kinds = ["plain", "stripes", "plain", "plain"]
    assert NANO.replace(kernel=kinds, reparam=None, stripe=3).stripe == 3
    with pytest.raises(
        SpecError, match="must keep its default where it changes nothing: in replknet with kernel plain and stripes"
    ):
        NANO.replace(kernel=kinds, reparam=None, band_ratio=0.2)


def test_reports_show_the_fields_that_differ() -> None:
    from rich.console import Console

    def shown(spec: NetworkSpec) -> str:
        console = Console(width=200)
        with console.capture() as capture:
            console.print(network_view(spec, 32))
        return capture.get()

    assert not any(name in shown(NANO) for name in ("shortcut", "depthwise", "dw_ratio", "ffn_ratio", "plain"))
    text = shown(MIXED)
    assert all(word in text for word in ("kernel", "stripes", "shortcut", "false", "dw_ratio", "ffn_ratio", "bands"))
    assert "depthwise" not in text
    assert len(network_costs(MIXED, 32).merged_rows()[0]) == 7


def test_the_measure_of_kernel_weights_reads_mixed_networks() -> None:
    sides = [(kernel.stage, kernel.k) for kernel in large_kernels(build(MIXED, seed=0).eval())]
    assert sides == [(1, 5), (2, 7), (3, 13), (3, 13), (4, 13)]


def test_timm_builds_a_mixed_network_with_the_same_logits() -> None:
    import timm

    import harness  # noqa: F401  (registers the presets)

    fields = {name: value for name, value in MIXED.canonical().items() if name not in ("classes", "in_channels")}
    model = timm.create_model("replknet_nano", num_classes=10, **fields).eval()
    ours = build(MIXED, seed=0).eval()
    model.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(x), ours(x))
    with pytest.raises(SpecError, match="`output_stride` needs plain large kernels"):
        timm.create_model("replknet_nano", num_classes=10, output_stride=8, **fields)
