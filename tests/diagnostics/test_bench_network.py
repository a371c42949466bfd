"""The bench of whole networks on tiny ones: every contender takes its turn, and every figure follows from the rows."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.cli import main
from harness.diagnostics.bench.base import BASELINES, LAYOUTS, NETWORK_MODES, NetworkOptions
from harness.diagnostics.bench.network import (
    NetworkCandidate,
    baselines_at,
    depthwise_share,
    make_networks,
    measure_networks,
    with_conv2d,
)
from harness.diagnostics.bench.reports import NETWORK_COLUMNS, NetworkResult, best_layouts, network_tables
from harness.errors import UserError
from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import preset
from harness.ops import DepthwiseConv2d

CPU = torch.device("cpu")
NANO = "replknet_nano"
PEER = "test_convnext"
OPTIONS = NetworkOptions(networks={NANO: preset(NANO)}, resolutions=(32,), beside=(PEER,), device="cpu", batch=2)


@pytest.fixture(scope="module")
def rows() -> list[NetworkResult]:
    return list(measure_networks(OPTIONS, CPU, lambda _: None, is_quick=True))


def with_kernel(k: int) -> nn.Module:
    spec = NetworkSpec(B=(1, 1, 1, 1), C=(4, 4, 4, 4), K=(k,) * 4, classes=3, stem_stride=2)
    return build(spec, seed=0)


def test_every_network_takes_its_turn_in_every_form(rows: list[NetworkResult]) -> None:
    networks = [(NANO, "harness"), (NANO, "conv2d"), (PEER, "timm")]
    expected = [(*network, layout, mode) for network in networks for layout in LAYOUTS for mode in NETWORK_MODES]
    assert sorted((result.network, result.kernels, result.layout, result.mode) for result in rows) == sorted(expected)


def test_each_figure_follows_from_the_rows(rows: list[NetworkResult]) -> None:
    for result in rows:
        assert result.n >= 1 and result.images_per_s and result.slow_images_per_s and result.fast_images_per_s
        assert 0 < result.slow_images_per_s <= result.images_per_s <= result.fast_images_per_s
        rivals = [other for other in rows if (other.mode, other.kernels) == (result.mode, "conv2d")]
        fastest = max(other.images_per_s or 0 for other in rivals)
        if result.kernels == "timm":
            assert result.gain is None and result.depthwise_share is None
        else:
            assert result.gain == pytest.approx(result.images_per_s / fastest)
            rates = [
                other.images_per_s for other in rows if (other.mode, other.kernels) == (result.mode, result.kernels)
            ]
            assert (result.depthwise_share is not None) == (
                result.images_per_s == max(rates, key=lambda rate: rate or 0)
            )
            assert result.depthwise_share is None or 0 < result.depthwise_share < 1


def test_the_better_layout_is_shown(rows: list[NetworkResult]) -> None:
    shown = best_layouts([result for result in rows if result.mode == "training"])
    assert [(result.network, result.kernels) for result in shown] == [
        (NANO, "harness"),
        (NANO, "conv2d"),
        (PEER, "timm"),
    ]
    for row in shown:
        both = [result for result in rows if (result.kernels, result.mode) == (row.kernels, "training")]
        assert row.images_per_s == max(result.images_per_s or 0 for result in both)
    assert [len(table.rows) for table in network_tables(rows, "cpu")] == [3, 3]


def test_with_pytorchs_operator_a_network_computes_the_same() -> None:
    ours, twin = build(preset(NANO), seed=0).eval(), with_conv2d(build(preset(NANO), seed=0).eval())
    assert any(isinstance(module, DepthwiseConv2d) for module in ours.modules())
    assert not any(isinstance(module, DepthwiseConv2d) for module in twin.modules())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), ours(x), rtol=1e-4, atol=1e-4)


def test_networks_are_merged_for_inference_and_whole_for_training() -> None:
    spec = preset(NANO)
    for mode in NETWORK_MODES:
        networks = make_networks({NANO: spec}, (), mode)
        ours = networks[NetworkCandidate(NANO, "harness", "default")]
        assert ours.training == (mode == "training")
        assert ours.state_dict().keys() == build(spec, merged=mode == "inference").state_dict().keys()


@pytest.mark.parametrize("is_trained", [False, True])
def test_the_share_of_large_kernels(is_trained: bool) -> None:
    shares = []
    for k in (3, 31):
        network, x = with_kernel(k), torch.randn(4, 3, 64, 64)

        def step(network: nn.Module = network, x: torch.Tensor = x) -> None:
            with torch.set_grad_enabled(is_trained):
                y = network(x).sum()
            if is_trained:
                y.backward()

        shares.append(depthwise_share(step, network, CPU, passes=3))
        assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert shares[0] == 0
    assert 0.05 < shares[1] < 1


def test_peers_that_take_no_images_of_that_side_are_left_out() -> None:
    assert baselines_at(BASELINES, 224) == ("swin_base_patch4_window7_224", "convnext_base")
    assert baselines_at(BASELINES, 384) == ("swin_base_patch4_window12_384", "convnext_base")
    assert baselines_at(BASELINES, 64) == ("convnext_base",)


def test_a_peer_that_timm_lacks() -> None:
    with pytest.raises(UserError, match=r"one of timm's networks, but got 'swin_bas'\. Did you mean `swin"):
        baselines_at(("swin_bas",), 224)


def test_the_papers_figures_are_shown_with_ours() -> None:
    names = {"replknet_31b": "harness", "swin_base_patch4_window12_384": "timm"}
    results = [
        NetworkResult(
            network=name,
            kernels=kernels,
            layout="default",
            device="a device",
            precision="float32",
            mode="inference",
            resolution=384,
            batch=1,
            n=3,
            images_per_s=rate,
            slow_images_per_s=rate,
            fast_images_per_s=rate,
            depthwise_share=0.1,
            gain=3.0 if kernels == "harness" else None,
        )
        for (name, kernels), rate in zip(names.items(), (20.0, 10.0), strict=True)
    ]
    *_, ratios = network_tables(results, "cuda")
    assert ratios.rows[0][1:] == ("2.00x", "1.43x", "≥ 1.43x", "met")
    assert ratios.rows[1][1:] == ("3.00x", "-", "≥ 2.00x", "met")


def test_the_command_measures_and_writes_to_its_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--resolution", "32", "--batch", "1", "--device", "cpu", "--beside", "--quick"]
    assert main(["bench", "network", NANO, *flags]) == 0
    assert "written" not in capsys.readouterr().out
    assert main(["bench", "network", NANO, *flags, "--output", str(tmp_path)]) == 0
    assert "inference at 32x32, batch 1, float32" in capsys.readouterr().out
    (table,) = tmp_path.glob("network_*.csv")
    with table.open() as file:
        assert [tuple(row) for row in csv.DictReader(file)] == [NETWORK_COLUMNS] * 8
    assert "- Device: " in table.with_suffix(".md").read_text()


def test_an_unknown_network_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "network", "replknet_31", "--device", "cpu"]) == 2
    assert "replknet_31" in capsys.readouterr().err
