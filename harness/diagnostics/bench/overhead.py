"""What the harness itself costs, measured on this machine and held against its targets."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.diagnostics.bench.base import FULL, QUICK, ROOT, Effort, Figure
from harness.diagnostics.bench.driver_cost import driver_cost
from harness.diagnostics.bench.machine import conditions, disturbed_lines
from harness.diagnostics.bench.overhead_tables import READING, table, write
from harness.diagnostics.bench.proxies import peak_memory, proxies
from harness.diagnostics.bench.startup import first_step, help_time
from harness.diagnostics.bench.train_step import training_step
from harness.report.console import make_console
from harness.system.device_slot import watched

SECTIONS: dict[str, Callable[[Effort], Iterator[Figure]]] = {
    "help": help_time,
    "start": first_step,
    "driver": driver_cost,
    "step": training_step,
    "proxies": proxies,
    "memory": peak_memory,
}
"""What can be measured, in the order in which it is."""


def bench(only: Sequence[str], output: Path | None, *, is_quick: bool) -> list[Figure]:
    """Measure, print the table, and write it; a run that is quick or leaves something out is written if told where."""
    made = conditions(is_quick=is_quick)
    for line in made.lines():
        print(line, file=sys.stderr)
    figures: list[Figure] = []
    with watched() as watch:
        for name, section in SECTIONS.items():
            if not only or name in only:
                print(f"measuring: {name}", file=sys.stderr, flush=True)
                figures += section(QUICK if is_quick else FULL)
    for line in disturbed_lines(watch):
        print(line, file=sys.stderr)
    console = make_console()
    console.print(table(figures))
    console.print(f"\n{READING}")
    if output is None and not only and not is_quick:
        output = ROOT / "results" / "bench"
    if output is not None:
        write(output, figures, replace(made, watch=watch))
        console.print(f"written: {output / 'study.md'}, {output / 'study.csv'}")
    return figures
