"""The cost of the harness itself on this machine, compared with its targets, as a table and as CSV."""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from harness.analysis.formatting import DASH
from harness.diagnostics.bench.base import (
    FULL_SIZE,
    QUICK_SIZE,
    ROOT,
    BenchResult,
    BenchSize,
    empty_table,
    markdown_rows,
)
from harness.diagnostics.bench.driver import driver_cost, first_step, help_time
from harness.diagnostics.bench.machine import Conditions, bench_conditions, disturbed_lines
from harness.diagnostics.bench.proxies import peak_memory, proxies, training_step
from harness.report.console import make_console
from harness.system.device_slot import counting_measurements

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
}
"""The sections of the bench, in the order in which they are measured."""


def results_table(bench_results: Sequence[BenchResult]) -> Table:
    """The results as a table for the terminal."""
    table = empty_table(HEADINGS)
    for result in bench_results:
        style = "dim" if result.is_part else "red" if result.is_met is False else ""
        table.add_row(*_cells(result), style=style)
    return table


def write_results(folder: Path, bench_results: Sequence[BenchResult], made: Conditions) -> None:
    """Write `study.md` for people and `study.csv` for programs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.md").write_text(_markdown(bench_results, made), encoding="utf-8")
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


def _markdown(bench_results: Sequence[BenchResult], made: Conditions) -> str:
    rows = [[name.replace("  ", "&nbsp;&nbsp;"), *cells] for name, *cells in map(_cells, bench_results)]
    head = ["# The cost of the harness itself", "", "Made by `make bench`.", ""]
    lines = (f"- {line}" for line in made.lines())
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
    made = bench_conditions(is_quick=is_quick)
    for line in made.lines():
        print(line, file=sys.stderr)
    bench_results: list[BenchResult] = []
    with counting_measurements() as watch:
        for name, section in SECTIONS.items():
            if not only or name in only:
                print(f"measuring: {name}", file=sys.stderr, flush=True)
                bench_results += section(QUICK_SIZE if is_quick else FULL_SIZE)
    for line in disturbed_lines(watch):
        print(line, file=sys.stderr)
    console = make_console()
    console.print(results_table(bench_results))
    console.print(f"\n{OVERHEAD_NOTE}")
    if output is None and not only and not is_quick:
        output = ROOT / "results" / "bench"
    if output is not None:
        write_results(output, bench_results, replace(made, watch=watch))
        console.print(f"written: {output / 'study.md'}, {output / 'study.csv'}")
    return bench_results
