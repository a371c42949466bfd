"""Writes the results of a study as files: `summary.json` for programs, `summary.txt` for people."""

import io
from pathlib import Path

from rich.console import Console

from harness.analysis.formatting import json_text
from harness.analysis.results import StudyResults
from harness.report.study import results_view
from harness.system.atomic_write import atomic_write_text

WIDTH = 160
"""Width of the summary as text, in columns."""


def write_summary(folder: Path, results: StudyResults) -> None:
    """Write `summary.json` and `summary.txt` into the study's folder, each atomically."""
    atomic_write_text(folder / "summary.json", json_text(results.to_dict()) + "\n", is_shared=True)
    text = io.StringIO()
    Console(file=text, width=WIDTH, markup=False, highlight=False, emoji=False).print(results_view(results))
    lines = "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
    atomic_write_text(folder / "summary.txt", lines, is_shared=True)
