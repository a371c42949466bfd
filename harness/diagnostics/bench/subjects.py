"""The actions of `harness bench dwconv` and `harness bench network`: measure, print and write."""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from harness.diagnostics.bench.base import ROOT, ResultTable, markdown, table_text
from harness.diagnostics.bench.machine import bench_conditions, device_lines, disturbed_lines, slug
from harness.diagnostics.bench.options import DwconvOptions, NetworkOptions
from harness.report.console import make_console
from harness.system.device_slot import computing, counting_measurements
from harness.training.device import find_device

BENCH_RESULTS = ROOT / "results" / "bench"
Result = TypeVar("Result")


def bench_dwconv(options: DwconvOptions, output: Path | None, *, is_quick: bool) -> None:
    """Measure and print the tables; write them, the CSV and the plot to `output`, or a default run to results/bench."""
    from harness.diagnostics.bench.dwconv import measure_dwconv
    from harness.diagnostics.bench.dwconv_report import DWCONV_NOTE, dwconv_tables, plot
    from harness.diagnostics.bench.dwconv_results import COLUMNS, write_csv

    device = find_device(options.device)
    conditions, results = _measure(partial(measure_dwconv, options, device), device, is_quick=is_quick)
    tables = list(dwconv_tables(results, device.type))
    _print(tables, DWCONV_NOTE)
    folder = output or (BENCH_RESULTS if options.is_whole and not is_quick else None)
    if folder is not None:
        path = _named(folder, f"dwconv_{slug(device)}")
        write_csv(path.with_suffix(".csv"), COLUMNS, results)
        plot(path.with_suffix(".png"), [result for result in results if result.block == "table 1"])
        after = f"![Time against the side of the kernel]({path.name}.png)"
        text = markdown("The large depth-wise convolution", conditions, tables, DWCONV_NOTE, after)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        print(f"written: {path}.md, .csv, .png")


def bench_network(options: NetworkOptions, output: Path | None, *, is_quick: bool) -> None:
    """Measure and print the tables; write them and the CSV to `output`, or to results/bench unless the run is quick."""
    from harness.diagnostics.bench.dwconv_results import write_csv
    from harness.diagnostics.bench.network import measure_networks
    from harness.diagnostics.bench.network_report import COLUMNS, NETWORK_NOTE, network_tables

    device = find_device(options.device)
    conditions, results = _measure(partial(measure_networks, options, device), device, is_quick=is_quick)
    tables = list(network_tables(results, device.type))
    _print(tables, NETWORK_NOTE)
    folder = output or (None if is_quick else BENCH_RESULTS)
    if folder is not None:
        path = _named(folder, f"network_{slug(device)}")
        write_csv(path.with_suffix(".csv"), COLUMNS, results)
        text = markdown("Whole networks", conditions, tables, NETWORK_NOTE)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        print(f"written: {path}.md, .csv")


def _measure(
    measure: Callable[..., Iterator[Result]], device: torch.device, *, is_quick: bool
) -> tuple[list[str], list[Result]]:
    """The conditions and the results of a bench; both, and its progress, are printed on standard error."""
    conditions: list[str] = []

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        if not line.startswith("measuring: "):
            conditions.append(line)

    for line in (*bench_conditions(is_quick=is_quick).lines(), *device_lines(device)):
        log(line)
    with computing(device), counting_measurements() as watch:
        results = list(measure(log, is_quick=is_quick))
    for line in disturbed_lines(watch):
        log(line)
    return conditions, results


def _print(tables: Iterable[ResultTable], reading: str) -> None:
    console = make_console()
    for table in tables:
        console.print(table_text(table))
        console.print()
    console.print(reading)


def _named(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
