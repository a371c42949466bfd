"""Core-minutes until the first claim of `kernel_size.yaml` is decided: with its proxy, and with the one before.

Both recipes are trained by the code as it is now, with the same seeds, which no claim uses; so the ratio is what the
recipe gained. What the code gained since is in the steps of `harness bench`.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.analysis.calibration import CandidateResult
from harness.config.yaml_file import read_document, write_yaml
from harness.diagnostics.bench.base import ROOT
from harness.report.calibration import tables_of
from harness.report.tables import ResultTable
from harness.search.calibration import CalibrationResult

FLAGSHIP = ROOT / "search_spaces" / "kernel_size.yaml"
BEFORE: dict[str, Any] = {"batch_size": 16, "optimizer.lr": 0.2, "epochs": 3}
"""What was different in its proxy until 2026-11-30, and on 2026-12-01."""
PAIRS, QUICK_PAIRS = 6, 2
"""Pairs of seeds of each recipe."""
CERTAINTY_NOTE = (
    "core-min to decide: mean computing until the claim is decided with a power of 80 %, for effect and spread as "
    "measured, with the interval that the pairs leave; a few pairs leave a wide one."
)


def write_certainty_study(folder: Path, seeds: int) -> Path:
    """Write the first claim of the flagship with both recipes, to be calibrated with this number of pairs."""
    study = read_document(FLAGSHIP).data
    calibrate = {"together": [BEFORE], "seeds": seeds, "max_seeds": seeds}
    written = study | {"study": "certainty", "claims": study["claims"][:1], "calibrate": calibrate}
    path = folder / "certainty.yaml"
    path.write_text(write_yaml(written), encoding="utf-8")
    return path


def certainty_tables(result: CalibrationResult) -> Iterator[ResultTable]:
    """The ratio of both recipes' core-minutes, then the claim's tables."""
    before = next((each for each in result.results if each.recipe.change.values), None)
    if result.own is not None and before is not None:
        yield ResultTable(
            "Core-minutes to a decision", ("recipe", "before", "now", "ratio"), [_row(before, result.own)]
        )
    yield from tables_of(result)


def _row(before: CandidateResult, own: CandidateResult) -> tuple[str, ...]:
    old, new = before.core_minutes.value, own.core_minutes.value
    ratio = f"{old / new:.2f}" if math.isfinite(old) and math.isfinite(new) and new > 0 else "-"
    return "kernel_size.yaml", f"{old:.3g}", f"{new:.3g}", ratio
