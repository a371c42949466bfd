"""The benches of the operator and of whole networks, as the door calls them: measure, print, write."""

import sys
from collections.abc import Iterable
from pathlib import Path

from harness.diagnostics.bench.base import ROOT
from harness.diagnostics.bench.machine import conditions, device_lines, disturbed_lines, slug
from harness.diagnostics.bench.options import DwconvOptions, NetworkOptions
from harness.diagnostics.bench.tables import Grid, markdown, shown
from harness.report.console import make_console
from harness.system.device_slot import computing, watched
from harness.training.fit import find_device

RESULTS = ROOT / "results" / "bench"


def bench_dwconv(options: DwconvOptions, output: Path | None, *, is_quick: bool) -> None:
    """Print the table; write it, the CSV and the plot where told, and where nothing was chosen, in results/bench."""
    from harness.diagnostics.bench.dwconv import measure
    from harness.diagnostics.bench.dwconv_report import READING, grids, plot
    from harness.diagnostics.bench.dwconv_results import COLUMNS, write_csv

    device = find_device(options.device)
    notes = Notes([*conditions(is_quick=is_quick).lines(), *device_lines(device)])
    with computing(device), watched() as watch:
        rows = list(measure(options, device, notes.tell, is_quick=is_quick))
    for line in disturbed_lines(watch):
        notes.tell(line)
    tables = list(grids(rows, device.type))
    _print(tables, READING)
    folder = output or (RESULTS if options.is_whole and not is_quick else None)
    if folder is not None:
        path = _named(folder, f"dwconv_{slug(device)}")
        write_csv(path.with_suffix(".csv"), COLUMNS, rows)
        plot(path.with_suffix(".png"), [row for row in rows if row.block == "table 1"])
        after = f"![Time against the side of the kernel]({path.name}.png)"
        text = markdown("The large depth-wise convolution", notes.lines, tables, READING, after)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        print(f"written: {path}.md, .csv, .png")


def bench_network(options: NetworkOptions, output: Path | None, *, is_quick: bool) -> None:
    """Print the table; write it and the CSV where told, and in results/bench unless the run is quick."""
    from harness.diagnostics.bench.dwconv_results import write_csv
    from harness.diagnostics.bench.network import measure
    from harness.diagnostics.bench.network_report import COLUMNS, READING, grids

    device = find_device(options.device)
    notes = Notes([*conditions(is_quick=is_quick).lines(), *device_lines(device)])
    with computing(device), watched() as watch:
        rows = list(measure(options, device, notes.tell, is_quick=is_quick))
    for line in disturbed_lines(watch):
        notes.tell(line)
    tables = list(grids(rows, device.type))
    _print(tables, READING)
    folder = output or (None if is_quick else RESULTS)
    if folder is not None:
        path = _named(folder, f"network_{slug(device)}")
        write_csv(path.with_suffix(".csv"), COLUMNS, rows)
        text = markdown("Whole networks", notes.lines, tables, READING)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        print(f"written: {path}.md, .csv")


class Notes:
    """What is said on standard error while a bench runs; what is not progress belongs to its conditions."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines: list[str] = []
        for line in lines:
            self.tell(line)

    def tell(self, line: str) -> None:
        """Print a line; keep it unless it says what is being measured."""
        print(line, file=sys.stderr, flush=True)
        if not line.startswith("measuring: "):
            self.lines.append(line)


def _print(tables: Iterable[Grid], reading: str) -> None:
    console = make_console()
    for table in tables:
        console.print(shown(table))
        console.print()
    console.print(reading)


def _named(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
