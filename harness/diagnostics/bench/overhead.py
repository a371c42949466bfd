"""What the harness itself costs, measured on this machine and compared with its targets, as a table and as CSV."""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from harness.analysis.formatting import DASH
from harness.diagnostics.bench.base import FULL_SIZE, QUICK_SIZE, ROOT, BenchResult, BenchSize
from harness.diagnostics.bench.driver_cost import driver_cost
from harness.diagnostics.bench.machine import Conditions, bench_conditions, disturbed_lines
from harness.diagnostics.bench.proxies import peak_memory, proxies
from harness.diagnostics.bench.startup import first_step, help_time
from harness.diagnostics.bench.train_step import training_step
from harness.report.console import make_console
from harness.system.device_slot import counting_measurements

HEADINGS = ("figure", "median", "target", "ratio", "", "n", "smallest", "largest")
OVERHEAD_NOTE = (
    "Each figure is the median of n repeats. The ratio is that of the figure to its target: at most 1 where less is "
    "better, at least 1 where more is. Indented rows are what the figure above them consists of, or was made from."
)
SECTIONS: dict[str, Callable[[BenchSize], Iterator[BenchResult]]] = {
    "help": help_time,
    "start": first_step,
    "driver": driver_cost,
    "step": training_step,
    "proxies": proxies,
    "memory": peak_memory,
}
"""What can be measured, in the order in which it is."""


def results_table(bench_results: Sequence[BenchResult]) -> Table:
    """For the terminal."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for position, heading in enumerate(HEADINGS):
        shown.add_column(heading, justify="left" if position == 0 else "right", no_wrap=True)
    for figure in bench_results:
        style = "dim" if figure.is_part else "red" if figure.is_met is False else ""
        shown.add_row(*_cells(figure), style=style)
    return shown


def write_results(folder: Path, bench_results: Sequence[BenchResult], made: Conditions) -> None:
    """Write `study.md` for people and `study.csv` for programs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.md").write_text(_markdown(bench_results, made), encoding="utf-8")
    with (folder / "study.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("figure", "unit", "median", "at_most", "at_least", "ratio", "is_met", "n", "values"))
        above = ""
        for figure in bench_results:
            above = above if figure.is_part else figure.name
            name = f"{above}: {figure.name}" if figure.is_part else figure.name
            values = " ".join(f"{value:.6g}" for value in figure.values)
            numbers = (figure.median, figure.at_most, figure.at_least, figure.ratio)
            cells = ["" if number is None else f"{number:.6g}" for number in numbers]
            is_met = "" if figure.is_met is None else str(figure.is_met).lower()
            writer.writerow((name, figure.unit, *cells, is_met, len(figure.values), values))


def _markdown(bench_results: Sequence[BenchResult], made: Conditions) -> str:
    rows = [_cells(figure) for figure in bench_results]
    rows = [[row[0].replace("  ", "&nbsp;&nbsp;"), *row[1:]] for row in rows]
    lines = [HEADINGS, ["---"] + ["---:"] * (len(HEADINGS) - 1), *rows]
    return "\n".join(
        [
            "# What the harness itself costs",
            "",
            "Made by `make bench`.",
            "",
            *(f"- {line}" for line in made.lines()),
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            OVERHEAD_NOTE,
            "",
        ]
    )


def _cells(figure: BenchResult) -> list[str]:
    sign = "≤" if figure.at_most is not None else "≥"
    return [
        f"{'  ' if figure.is_part else ''}{figure.name}",
        _amount(figure.median, figure.unit),
        DASH if figure.target is None else f"{sign} {_short(figure.target)} {figure.unit}",
        DASH if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.is_met is None else "met" if figure.is_met else "missed",
        str(len(figure.values)),
        _amount(min(figure.values), figure.unit),
        _amount(max(figure.values), figure.unit),
    ]


def _amount(value: float, unit: str) -> str:
    return f"{_short(value)} {unit}"


def _short(value: float) -> str:
    """Three digits or so: 0.093, 5.35, 48.2, 912."""
    size = abs(value)
    return (
        f"{value:.3f}"
        if size < 1
        else f"{value:.2f}"
        if size < 10
        else f"{value:.1f}"
        if size < 100
        else f"{value:.0f}"
    )


def bench(only: Sequence[str], output: Path | None, *, is_quick: bool) -> list[BenchResult]:
    """Measure, print the table, and write it; a run that is quick or leaves something out is written if told where."""
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
