"""Tables of curves for tests: synthetic, with true means that are known, for a small search space."""

import random
from pathlib import Path
from typing import Any

from tiny_studies import write_study

from harness.analysis.curve_table import CurveTable, RecordedConfiguration
from harness.analysis.study_reader import open_space
from harness.config.space import Candidate, Space
from harness.config.study_file import StudyFile, load_study, resolved_yaml

EPOCHS = 4
SPACE: dict[str, Any] = {
    "study": "replayed",
    "base": "replknet_nano",
    "axes": {
        "B[2]": [1, 2],
        "K[0]": [7, 15, 23, 31],
        "K[1]": [7, 13, 29],
        "shortcut": [True, False],
        "reparam": [None, 5],
    },
    "when": {"reparam": "min(K) >= 7"},
    "search": {"seeds": 3},
    "proxy": {"epochs": EPOCHS, "schedule": {"warmup_epochs": 0}},
}
"""Ninety-six networks."""


def space_file(folder: Path, **overrides: Any) -> StudyFile:
    folder.mkdir(exist_ok=True)
    return load_study(write_study(folder, SPACE, **overrides))


def true_mean(cell: Candidate) -> float:
    """What a network is worth: large kernels, the shortcut and the second block help; the small kernel does not."""
    choices: dict[str, Any] = dict(cell.params)
    worth = 2.0 * (choices["B[2]"] == 2) + 4.0 * choices["shortcut"] - 1.0 * (choices["reparam"] == 5)
    return float(60.0 + worth + 0.3 * choices["K[0]"] + 0.1 * choices["K[1]"])


def synthetic_table(file: StudyFile, *, seeds: int = 3, noise: float = 0.0, early_noise: float = 2.0) -> CurveTable:
    """A table whose curves rise to the true mean and noise; the networks take different times."""
    space = open_space(file)
    generator = random.Random(1)
    cells = [cell for cell in space.grid() if cell.is_feasible]
    return CurveTable(
        study=file.study.study,
        question="Which one?",
        study_file=resolved_yaml(file),
        recipe=file.study.proxy.fingerprint(),
        axes=tuple(space.axes),
        classes=space.base.classes,
        channels=space.base.in_channels,
        data=None,
        seeds=tuple(range(seeds)),
        epochs=EPOCHS,
        environments=({"runs": seeds * len(cells), "machine": "made up"},),
        recorded="2026-12-01",
        configurations=tuple(_entry(cell, space, seeds, noise, early_noise, generator) for cell in cells),
    )


def _entry(
    cell: Candidate, space: Space, seeds: int, noise: float, early_noise: float, generator: random.Random
) -> RecordedConfiguration:
    assert cell.cost is not None and space.data is None
    finals = [true_mean(cell) + generator.gauss(0, noise) for _ in range(seeds)]
    top1 = [
        [final * (n / EPOCHS) ** 0.5 + generator.gauss(0, early_noise * (n < EPOCHS)) for n in range(1, EPOCHS + 1)]
        for final in finals
    ]
    params = {name: list(value) if isinstance(value, tuple) else value for name, value in cell.params.items()}
    return RecordedConfiguration(
        params=params,
        fingerprint=cell.fingerprint,
        parameters=cell.cost.params,
        macs=cell.cost.macs,
        top1=top1,
        val_loss=[[2.0 - value / 100 for value in curve] for curve in top1],
        seconds=[[cell.cost.macs / 1e7] * EPOCHS for _ in range(seeds)],
    )
