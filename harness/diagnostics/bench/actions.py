"""The actions of `harness bench`: measure, print and write.

Without a subject: the cost of the harness itself, compared with its targets, as a table and as CSV.
"""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from rich.console import RenderableType
from rich.table import Table

from harness.analysis.formatting import DASH
from harness.diagnostics.bench.base import (
    FULL_SIZE,
    QUICK_SIZE,
    ROOT,
    BenchResult,
    BenchSize,
    DwconvOptions,
    NetworkOptions,
    ProgressCallback,
    empty_table,
    markdown,
    table_text,
)
from harness.diagnostics.bench.certainty import (
    CERTAINTY_NOTE,
    PAIRS,
    QUICK_PAIRS,
    certainty_tables,
    write_certainty_study,
)
from harness.diagnostics.bench.driver import driver_cost, first_step, help_time
from harness.diagnostics.bench.machine import condition_lines, device_lines, disturbed_lines, slug
from harness.diagnostics.bench.proxies import peak_memory, proxies, training_step
from harness.diagnostics.bench.trials import trial_overhead
from harness.errors import HarnessError
from harness.report.console import make_console
from harness.report.tables import ResultTable, markdown_rows
from harness.search.calibration import CalibrationResult
from harness.system.device_slot import computing, counting_measurements
from harness.training.device import find_device

HEADINGS = ("metric", "median", "target", "ratio", "", "n", "smallest", "largest")
OVERHEAD_NOTE = (
    "Each value is the median of n repeats. The ratio is that of the value to its target: it should be at most 1 if "
    "less is better, and at least 1 if more is better. Indented rows are parts of the row above them, or the values "
    "from which it was computed."
)
SECTIONS: dict[str, Callable[[BenchSize], Iterator[BenchResult]]] = {
    "help": help_time,
    "start": first_step,
    "driver": driver_cost,
    "step": training_step,
    "proxies": proxies,
    "memory": peak_memory,
    "trials": trial_overhead,
}
"""The sections of the bench, in the order in which they are measured."""
BENCH_RESULTS = ROOT / "results" / "bench"
Result = TypeVar("Result")


def results_table(bench_results: Sequence[BenchResult]) -> Table:
    """The results as a table for the terminal."""
    table = empty_table(HEADINGS)
    for result in bench_results:
        style = "dim" if result.is_part else "red" if result.is_met is False else ""
        table.add_row(*_cells(result), style=style)
    return table


def write_results(folder: Path, bench_results: Sequence[BenchResult], conditions: Sequence[str]) -> None:
    """Write `study.md` for people and `study.csv` for programs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.md").write_text(_markdown(bench_results, conditions), encoding="utf-8")
    with (folder / "study.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("figure", "unit", "median", "at_most", "at_least", "ratio", "is_met", "n", "values"))
        above = ""
        for result in bench_results:
            above = above if result.is_part else result.name
            name = f"{above}: {result.name}" if result.is_part else result.name
            values = " ".join(f"{value:.6g}" for value in result.values)
            numbers = (result.median, result.at_most, result.at_least, result.ratio)
            cells = ["" if number is None else f"{number:.6g}" for number in numbers]
            is_met = "" if result.is_met is None else str(result.is_met).lower()
            writer.writerow((name, result.unit, *cells, is_met, len(result.values), values))


def _markdown(bench_results: Sequence[BenchResult], conditions: Sequence[str]) -> str:
    rows = [[name.replace("  ", "&nbsp;&nbsp;"), *cells] for name, *cells in map(_cells, bench_results)]
    head = ["# The cost of the harness itself", "", "Made by `make bench`.", ""]
    lines = (f"- {line}" for line in conditions)
    return "\n".join([*head, *lines, "", *markdown_rows(HEADINGS, rows), "", OVERHEAD_NOTE, ""])


def _cells(result: BenchResult) -> list[str]:
    return [
        f"{'  ' if result.is_part else ''}{result.name}",
        _amount(result.median, result.unit),
        DASH if result.target is None else f"{result.sign} {_short(result.target)} {result.unit}",
        DASH if result.ratio is None else f"{result.ratio:.2f}",
        "" if result.is_met is None else "met" if result.is_met else "missed",
        str(len(result.values)),
        _amount(min(result.values), result.unit),
        _amount(max(result.values), result.unit),
    ]


def _amount(value: float, unit: str) -> str:
    return f"{_short(value)} {unit}"


def _short(value: float) -> str:
    """A number with about three digits: 0.093, 5.35, 48.2, 912."""
    digits = next((digits for limit, digits in ((1, 3), (10, 2), (100, 1)) if abs(value) < limit), 0)
    return f"{value:.{digits}f}"


def bench(only: Sequence[str], output: Path | None, *, is_quick: bool) -> list[BenchResult]:
    """Measure, print the table, and write it; a quick or partial run is written only if `output` is given."""

    def measure(log: ProgressCallback) -> Iterator[BenchResult]:
        for name, section in SECTIONS.items():
            if not only or name in only:
                log(f"measuring: {name}")
                yield from section(QUICK_SIZE if is_quick else FULL_SIZE)

    conditions, bench_results = _measure(measure, is_quick=is_quick)
    _print([results_table(bench_results)], OVERHEAD_NOTE)
    folder = output or (None if only or is_quick else BENCH_RESULTS)
    if folder is not None:
        write_results(folder, bench_results, conditions)
        print(f"written: {folder / 'study.md'}, {folder / 'study.csv'}")
    return bench_results


def bench_dwconv(options: DwconvOptions, output: Path | None, *, is_quick: bool) -> None:
    """Measure and print the tables; write them, the CSV and the plot to `output`, or a default run to results/bench."""
    from harness.diagnostics.bench.dwconv import measure_dwconv
    from harness.diagnostics.bench.dwconv_results import COLUMNS, write_csv
    from harness.diagnostics.bench.reports import DWCONV_NOTE, dwconv_tables, plot

    device = find_device(options.device)
    measure = partial(measure_dwconv, options, device, is_quick=is_quick)
    conditions, results = _measure(measure, device, is_quick=is_quick)
    tables = list(dwconv_tables(results, device.type))
    _print(map(table_text, tables), DWCONV_NOTE)
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
    from harness.diagnostics.bench.reports import NETWORK_COLUMNS, NETWORK_NOTE, network_tables

    device = find_device(options.device)
    measure = partial(measure_networks, options, device, is_quick=is_quick)
    conditions, results = _measure(measure, device, is_quick=is_quick)
    tables = list(network_tables(results, device.type))
    _print(map(table_text, tables), NETWORK_NOTE)
    folder = output or (None if is_quick else BENCH_RESULTS)
    if folder is not None:
        path = _named(folder, f"network_{slug(device)}")
        write_csv(path.with_suffix(".csv"), NETWORK_COLUMNS, results)
        text = markdown("Whole networks", conditions, tables, NETWORK_NOTE)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        print(f"written: {path}.md, .csv")


def bench_certainty(
    calibrate: Callable[[Path, Path], CalibrationResult], output: Path | None, *, is_quick: bool
) -> None:
    """Print core-minutes to a decision, and write them; a quick run is written only if `output` is given.

    `calibrate` trains the candidates of a study file in a results folder.
    """
    with TemporaryDirectory() as folder:

        def measure(log: ProgressCallback) -> Iterator[CalibrationResult]:
            log("measuring: certainty")
            yield calibrate(write_certainty_study(Path(folder), QUICK_PAIRS if is_quick else PAIRS), Path(folder))

        conditions, (result,) = _measure(measure, is_quick=is_quick)
        tables = list(certainty_tables(result))
    _print(map(table_text, tables), CERTAINTY_NOTE)
    folder_written = output or (None if is_quick else BENCH_RESULTS)
    if folder_written is not None:
        path = _named(folder_written, "certainty.md")
        path.write_text(markdown("Core-minutes to a decision", conditions, tables, CERTAINTY_NOTE), encoding="utf-8")
        print(f"written: {path}")


def bench_search(output: Path | None, *, is_quick: bool) -> None:
    """Print the regret of simulated searches on the shipped table, and write it unless the run is quick."""
    from harness.diagnostics.bench.search import SEARCH_TABLE, search_results, simulate_searches
    from harness.report.simulation import note_lines, simulation_tables
    from harness.search.rehearsal import RehearsalResult

    def measure(log: ProgressCallback) -> Iterator[RehearsalResult]:
        log("measuring: search")
        yield simulate_searches(is_quick=is_quick)

    conditions, (result,) = _measure(measure, is_quick=is_quick)
    results = search_results(result)
    targets = ResultTable("Targets", HEADINGS, [tuple(_cells(each)) for each in results])
    simulated, note = simulation_tables(result), " ".join(note_lines(result))
    _print([*map(table_text, simulated), results_table(results)], note)
    folder = output or (None if is_quick else BENCH_RESULTS)
    if folder is not None:
        path = _named(folder, "search.md")
        text = markdown(f"Searches of {SEARCH_TABLE.name}", conditions, [*simulated, targets], note)
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}")


def bench_torture(only: Sequence[str], times: int | None, seed: int, output: Path | None, *, is_quick: bool) -> None:
    """Inject faults into studies, print what was lost, and write it unless the run is quick.

    Raises `HarnessError` if a study has lost anything.
    """
    from harness.diagnostics.torture import TORTURE_HEADINGS, TORTURE_NOTE, chosen_faults, torture, torture_cells

    faults, repeats = chosen_faults(only), times or (1 if is_quick else 30)
    conditions, results = _measure(lambda log: torture(faults, repeats, seed, log), is_quick=is_quick)
    table = ResultTable("Faults", TORTURE_HEADINGS, list(map(torture_cells, results)))
    _print([table_text(table)], TORTURE_NOTE)
    folder = output or (None if is_quick or only else BENCH_RESULTS)
    if folder is not None:
        path = _named(folder, "torture.md")
        path.write_text(markdown("Nothing lost", conditions, [table], TORTURE_NOTE), encoding="utf-8")
        print(f"written: {path}")
    lost = [f"{result.fault.name}, {result.fault.executor}" for result in results if not result.is_well]
    if lost:
        raise HarnessError(f"a study must lose nothing, but did: {'; '.join(lost)}")


def _measure(
    measure: Callable[[ProgressCallback], Iterator[Result]], device: torch.device | None = None, *, is_quick: bool
) -> tuple[list[str], list[Result]]:
    """The conditions and the results of a bench; both, and its progress, are printed on standard error.

    With a device, all of the bench computes there; otherwise its parts take the slots that they need.
    """
    conditions: list[str] = []

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        if not line.startswith("measuring: "):
            conditions.append(line)

    for line in (*condition_lines(is_quick=is_quick), *(() if device is None else device_lines(device))):
        log(line)
    with nullcontext() if device is None else computing(device), counting_measurements() as watch:
        results = list(measure(log))
    for line in disturbed_lines(watch):
        log(line)
    return conditions, results


def _print(tables: Iterable[RenderableType], reading: str) -> None:
    console = make_console()
    for table in tables:
        console.print(table)
        console.print()
    console.print(reading)


def _named(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
