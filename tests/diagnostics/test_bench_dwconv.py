"""The bench of the depth-wise convolution on tiny stacks: nothing is left out, every figure follows from its row."""

import csv
import math
from collections import defaultdict
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import pytest
import torch

from harness.cli import main
from harness.cli.bench import PRECISIONS
from harness.diagnostics.bench.base import (
    CHOSEN,
    CONV2D,
    KERNELS,
    LAYOUTS,
    MODES,
    ROWS,
    SIDES,
    TUNED,
    DwconvOptions,
    StackShape,
)
from harness.diagnostics.bench.dwconv import dwconv_candidates, fitting, measure_dwconv
from harness.diagnostics.bench.dwconv_results import (
    COLUMNS,
    DwconvResult,
    gains,
    growth,
    memory,
    targets,
    write_csv,
)
from harness.diagnostics.bench.machine import at_precision, measure_peak
from harness.diagnostics.bench.reports import dwconv_tables, plot, styles
from harness.measures.speed import extra_bytes
from harness.models.cost.layers import conv
from harness.ops.dispatch import ALGORITHMS
from harness.ops.timing import TimingBudget, Timings, time_interleaved
from harness.training.device import find_device

CPU = torch.device("cpu")
TINY = DwconvOptions(device="cpu", batch=2, channels=4, layers=2, sides=(6,), kernels=(3, 31))
TINY_FLAGS = [
    "--device",
    "cpu",
    "--batch",
    "1",
    "--channels",
    "2",
    "--layers",
    "1",
    "--sides",
    "4",
    "--kernels",
    "3",
    "--quick",
]


@pytest.fixture(scope="module")
def progress_lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def rows(progress_lines: list[str]) -> list[DwconvResult]:
    return list(measure_dwconv(TINY, CPU, progress_lines.append, is_quick=True))


def made(shape: StackShape = ROWS[0], **fields: Any) -> DwconvResult:
    defaults: dict[str, Any] = {
        "block": "rows",
        "device": "a device",
        "precision": "float32",
        "mode": "forward+backward",
    }
    defaults |= {"algorithm": CHOSEN, "layout": "default", "extra_bytes": 0, "element_bytes": 4}
    ms = {"n": 3, "median_ms": 2.0, "q1_ms": 1.5, "q3_ms": 3.0, "conv2d_ms": 20.0, "conv2d_channels_last_ms": 10.0}
    peaks = {"peak_macs_per_s": 1e12, "peak_bytes_per_s": 1e11}
    return DwconvResult(**{**defaults, **ms, **peaks, **shape._asdict(), **fields})


def pair(shape: StackShape, layout: str, ours_ms: float, conv2d_ms: float, **fields: Any) -> list[DwconvResult]:
    """A contender of ours and PyTorch's in one layout."""
    times = {CHOSEN: ours_ms, CONV2D: conv2d_ms}
    return [made(shape, algorithm=name, layout=layout, median_ms=ms, **fields) for name, ms in times.items()]


@pytest.mark.long
def test_every_algorithm_that_fits_is_measured_in_both_layouts_and_modes(rows: list[DwconvResult]) -> None:
    for kernel in TINY.kernels:
        algorithms = set(fitting(torch.zeros(2, 4, 6, 6), torch.zeros(4, 1, kernel, kernel)))
        assert algorithms <= set(ALGORITHMS) and "three_way" in algorithms
        names = algorithms - {"stock"} | {CONV2D, CHOSEN, TUNED}
        measured = [(result.algorithm, result.layout, result.mode) for result in rows if result.kernel == kernel]
        assert sorted(measured) == sorted(
            (name, layout, mode) for name in names for layout in LAYOUTS for mode in MODES
        )


def test_each_figure_follows_from_its_row(rows: list[DwconvResult]) -> None:
    for result in rows:
        assert result.n >= 1
        assert (
            result.median_ms and result.q1_ms and result.q3_ms and result.conv2d_ms and result.conv2d_channels_last_ms
        )
        assert 0 < result.q1_ms <= result.median_ms <= result.q3_ms
        assert result.speedup == pytest.approx(result.conv2d_ms / result.median_ms)
        assert result.speedup_channels_last == pytest.approx(result.conv2d_channels_last_ms / result.median_ms)
        cost = conv(6, 6, 4, 4, k=result.kernel, groups=4)
        layers = 2 * 2 * {"forward": 1, "forward+backward": 3}[result.mode]
        assert (result.macs, result.macs_in_bounds) == (layers * cost.macs, layers * cost.macs_in_bounds)
        rate = result.macs_in_bounds / (result.median_ms / 1000)
        assert result.share_of_product == pytest.approx(rate / result.peak_macs_per_s)
        assert result.bound in ("product", "copy")
        assert result.extra_bytes is not None and result.extra_bytes >= 0
        activations = {"forward": 2, "forward+backward": 4}[result.mode] * 2 * 4 * 6 * 6 * 4
        assert result.extra_over_activations == pytest.approx(result.extra_bytes / activations)


def test_all_rows_of_a_cell_are_held_against_the_same_rivals(rows: list[DwconvResult]) -> None:
    cells = defaultdict(list)
    for result in rows:
        cells[result.shape, result.mode].append(result)
    assert len(cells) == 4
    for cell in cells.values():
        for layout, field in zip(LAYOUTS, ("conv2d_ms", "conv2d_channels_last_ms"), strict=True):
            (rival,) = (row for row in cell if (row.algorithm, row.layout) == (CONV2D, layout))
            assert {getattr(row, field) for row in cell} == {rival.median_ms}


def test_the_peaks_are_reported(progress_lines: list[str], rows: list[DwconvResult]) -> None:
    assert progress_lines[0].startswith("Peak in float32: ") and "TFLOP/s in a matrix product" in progress_lines[0]
    assert [line for line in progress_lines[1:] if line.startswith("measuring: ")] == progress_lines[1:]
    assert len({(result.peak_macs_per_s, result.peak_bytes_per_s) for result in rows}) == 1
    assert all(0 < share < 20 for result in rows for share in (result.share_of_product, result.share_of_copy) if share)


@pytest.mark.parametrize(("side", "k"), [(6, 3), (9, 7), (6, 31)])
def test_all_contenders_compute_the_same(side: int, k: int, tmp_path: Path) -> None:
    x, weight = torch.randn(2, 4, side, side), torch.randn(4, 1, k, k) / k
    expected = torch.nn.functional.conv2d(x, weight, padding=k // 2, groups=4)
    for run in dwconv_candidates(x, weight, tmp_path).values():
        torch.testing.assert_close(run(x, weight), expected, rtol=0, atol=1e-5)


def test_calls_are_sampled_as_often_as_patience_has_it() -> None:
    counts = {"once": 0, "often": 0}

    def call(name: str) -> None:
        counts[name] += 1

    budget = TimingBudget(min_samples=2, max_samples=3, budget_s=math.inf, single_sample_s=1.0)
    times = time_interleaved({name: lambda name=name: call(name) for name in counts}, CPU, budget)  # type: ignore[misc]
    assert all(timings is not None and timings.n == 3 and timings.median > 0 for timings in times.values())
    assert all(count > 3 for count in counts.values()), "a short call is repeated within a sample"
    slow = time_interleaved({"slow": lambda: sum(range(10_000))}, CPU, TimingBudget(single_sample_s=0.0))["slow"]
    assert slow is not None and slow.n == 1 and slow.quartiles == (slow.median, slow.median)


def test_a_call_without_memory_is_left_out() -> None:
    def greedy() -> None:
        raise torch.OutOfMemoryError("too much")

    def wrong() -> None:
        raise RuntimeError("something else")

    times = time_interleaved({"greedy": greedy, "modest": lambda: None}, CPU, TimingBudget(max_samples=1))
    assert times["greedy"] is None and times["modest"] is not None
    with pytest.raises(RuntimeError, match="something else"):
        time_interleaved({"wrong": wrong}, CPU, TimingBudget(max_samples=1))


def test_quartiles() -> None:
    times = Timings((1.0, 2.0, 3.0, 4.0, 10.0))
    assert (times.n, times.median, times.quartiles) == (5, 3.0, (2.0, 4.0))


def test_memory_in_addition_to_the_results_is_counted() -> None:
    x = torch.ones(1000)

    def call() -> tuple[torch.Tensor]:
        twice = x + x
        four_times = twice + twice
        return (four_times + four_times,)  # while both before it are held

    assert extra_bytes(call, CPU) == 2 * 4000
    assert extra_bytes(lambda: (x + x,), CPU) == 0


def test_precisions() -> None:
    for precision in PRECISIONS:
        with at_precision(precision) as dtype:
            assert dtype == (torch.float32 if precision == "tf32" else getattr(torch, precision))
            assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
    assert not torch.backends.cuda.matmul.allow_tf32


def test_the_peak_of_half_precision() -> None:
    peak = measure_peak(CPU, torch.bfloat16)
    assert peak.macs_per_s > 1e8 and peak.bytes_per_s > 1e8


def test_the_default_sizes_are_the_papers_on_a_gpu() -> None:
    shapes = DwconvOptions().shapes("cuda", is_quick=False)
    assert shapes == tuple(StackShape(64, 384, side, kernel, 24) for side in SIDES for kernel in KERNELS)
    assert DwconvOptions().shapes("cpu", is_quick=False)[0] == StackShape(8, 128, 16, 3, 1)
    assert DwconvOptions().rows(is_quick=False) == ROWS
    assert DwconvOptions(sides=(8,)).rows(is_quick=False) == ()
    assert DwconvOptions().is_whole and not DwconvOptions(precisions=("tf32",)).is_whole


def test_gains_and_growth() -> None:
    at_3, at_31 = StackShape(1, 1, 16, 3), StackShape(1, 1, 16, 31)
    results = [
        *pair(at_3, "default", 1.0, 3.0),
        *pair(at_3, "channels_last", 0.5, 2.0),
        *pair(at_31, "default", 4.0, 80.0),
        *pair(at_31, "channels_last", 5.0, 20.0),
    ]
    assert gains(results, "default") == {at_3: 3.0, at_31: 20.0}
    assert gains(results, "channels_last") == {at_3: 4.0, at_31: 4.0}
    assert gains(results) == {at_3: 4.0, at_31: 5.0}
    assert (growth(results, CHOSEN), growth(results, CONV2D)) == (8.0, 10.0)
    assert growth(results[:4], CHOSEN) is None
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


def test_targets_are_held_where_they_apply() -> None:
    small, large = StackShape(32, 32, 32, 3), StackShape(32, 32, 32, 31)
    results = [*pair(large, "default", 1.0, 16.0), *pair(large, "channels_last", 2.0, 18.0)]
    results += pair(small, "default", 1.0, 0.9)
    is_met = {target.name: target.is_met for target in targets(results, "cpu")}
    assert is_met["geometric mean of the gain over 1 large single layers, default"] is True
    assert is_met["geometric mean of the gain over 1 large single layers, channels-last"] is False
    assert is_met[f"gain at {small}, better layouts"] is False
    assert len(list(targets(results, "cuda"))) == 1, "memory alone"
    on_gpu = pair(StackShape(64, 384, 16, 31, 24), "default", 1.0, 21.0, block="table 1", mode="forward")
    assert [target.is_met for target in targets(on_gpu, "cuda") if "gain" in target.name] == [True]


def test_rows_without_memory_are_shown() -> None:
    nothing = {"n": 0, "median_ms": None, "q1_ms": None, "q3_ms": None, "extra_bytes": None}
    results = [*pair(ROWS[0], "default", 1.0, 2.0), *pair(ROWS[0], "channels_last", 3.0, 4.0)]
    gone = [made(ROWS[1], algorithm=result.algorithm, layout=result.layout, **nothing) for result in results]
    times, ours, *_ = dwconv_tables([*results, *gone], "cpu")
    assert times.rows[0][3:] == ("1.00",) and times.rows[1][1:] == ("-", "-", "-")
    assert ours.rows[0][1:4] == ("1.00", "75.0 %", "3")
    assert ours.rows[1][1:4] == ("no memory", "-", "0")
    assert memory(gone) == {} and gains(gone) == {}


def test_what_is_written_can_be_read(rows: list[DwconvResult], tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", COLUMNS, [*rows, made(median_ms=None)])
    with (tmp_path / "rows.csv").open() as file:
        *read, without = csv.DictReader(file)
    assert tuple(without) == COLUMNS and len(read) == len(rows)
    assert (without["median_ms"], without["speedup"], without["bound"]) == ("", "", "")
    for cells in read:
        ratio = float(cells["conv2d_ms"]) / float(cells["median_ms"])
        assert float(cells["speedup"]) == pytest.approx(ratio, rel=1e-4)
    plot(tmp_path / "rows.png", rows)
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")
    colors = {name: style[:2] for name, style in styles(rows).items()}
    assert set(colors) >= {result.algorithm for result in rows} - {CONV2D}
    assert len(set(colors.values())) == len(colors), "no two lines look alike"


@pytest.mark.long
def test_the_command_measures_and_writes_to_its_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--output", str(tmp_path), "dwconv", "--quick", *TINY_FLAGS]) == 0
    captured = capsys.readouterr()
    assert "(1, 2, 4, 4) K=3" in captured.out and "quick run" in captured.err
    names = sorted(path.suffix for path in tmp_path.iterdir())
    assert names == [".csv", ".md", ".png"]
    (page,) = tmp_path.glob("dwconv_*.md")
    text = page.read_text()
    assert "- Peak in float32" in text and "## Targets" in text and f"({page.stem}.png)" in text
    assert "measuring" not in text


@pytest.mark.parametrize("kernel", ["4", "0", "-3"])
def test_a_kernel_must_be_odd(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "dwconv", "--kernels", kernel])
    assert "argument --kernels: must be" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "dwconv", "--device", "cuda"]) == 2
    assert "the device must be one that PyTorch can use, but got 'cuda'" in capsys.readouterr().err
    assert find_device(None) == CPU
