"""The answer as plain values and as files, every figure with its n, its seeds, its device and its versions."""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.analysis.environments import environment_values
from harness.analysis.formatting import json_safe
from harness.analysis.latency import latency_values
from harness.analysis.noise import noise_line
from harness.analysis.results import ConfigurationResult, RunResult, StudyResults
from harness.config.recipes.proxy import REVISION
from harness.report.claims import claim_values
from harness.report.conclusions import conclusions, conditions_text
from harness.report.full_scale import full_scale_run_values
from harness.report.study import results_view
from harness.system.atomic_write import atomic_write_text

SUMMARY_FILES = ("summary.json", "summary.txt")
CLAIMS_PLOT_FILE = "claims.png"
"""Beside them, where the study has claims; drawn by `harness.report.plots.claims`."""
WIDTH = 160
"""Columns of the summary as text."""


def results_values(answer: StudyResults) -> dict[str, Any]:
    """The answer for JSON."""
    best = answer.best
    return {
        "study": answer.study,
        "objective": {"name": answer.metric, "direction": answer.direction},
        "best_trial": None if best is None else best.trials[0],
        "verdict": conclusions(answer),
        "conditions": conditions_text(answer),
        "data": list(answer.data),
        "limit": answer.limit,
        "search_ended": answer.ended,
        "noise": noise_line(answer.resampling),
        "resample": "+".join(dict.fromkeys(way for way, _ in answer.resampling)) or None,
        "pareto_front": [row.trials[0] for row in answer.front],
        "seeds": list(answer.seeds),
        "devices": list(answer.devices),
        "versions": {name: list(found) for name, found in answer.versions.items()},
        "environment": None if answer.environment is None else answer.environment.values(),
        "other_environments": [asdict(origin) | {"text": origin.text} for origin in answer.origins],
        "left_out": list(answer.time_notes),
        "recipe_revision": _revision(answer),
        "recipe": _recipe(answer),
        "finished": finished(answer),
        "ruled_out": dict(answer.rejected),
        "claims": [claim_values(judged, answer.environment) for judged in answer.claims],
        "full_scale": full_scale_run_values(answer),
        "configurations": [configuration_values(row, answer.metric) for row in answer.rows],
    }


def _revision(answer: StudyResults) -> int | None:
    """Of the recipe's meaning, where all runs have the present one; None for runs of an earlier one."""
    rows = (facts.row for row in answer.rows for facts in row.runs)
    return REVISION if all(row.id == row.run.id for row in rows) else None


def _recipe(answer: StudyResults) -> dict[str, Any] | None:
    """What all runs of the study are trained with, defaults included."""
    recipes = (facts.row.run.recipe for row in answer.rows for facts in row.runs)
    return next((recipe.model_dump(mode="json") for recipe in recipes), None)


def finished(answer: StudyResults) -> str | None:
    """When the last of the answer's runs was finished, ISO 8601 in UTC; None before any was."""
    times = [facts.row.finished for row in answer.rows for facts in row.runs if facts.row.finished is not None]
    return max(times).isoformat(timespec="seconds") if times else None


def configuration_values(row: ConfigurationResult, metric: str) -> dict[str, Any]:
    """One configuration for JSON."""
    return {
        "trials": list(row.trials),
        "choices": row.params,
        "state": row.state,
        "reason": row.reason,
        "mean": row.mean,
        "sd": row.spread,
        "n": len(row.values),
        "n_trained": len(row.values) + len(row.missing),
        "missing_seeds": [each._asdict() for each in row.missing],
        "val_images": row.val_images,
        "sampling_error": row.sampling_error,
        "limit": row.limit,
        "seeds": list(row.seeds),
        "params": row.params_count,
        "macs": row.macs,
        **latency_values(row.latency),
        "wall_s": row.wall_s,
        "is_on_pareto_front": row.is_on_front,
        "spec": row.spec.canonical(),
        "runs": [run_values(facts, metric) for facts in row.runs],
    }


def run_values(facts: RunResult, metric: str) -> dict[str, Any]:
    """One run for JSON."""
    row = facts.row
    return {
        "id": row.id,
        "seed": row.run.seed,
        "data": row.run.data,
        "state": str(row.state),
        "cause": row.cause,
        "value": facts.value(metric),
        "epochs": len(facts.curve),
        "measures": dict(facts.measures),
        "wall_s": row.wall_s,
        "host": row.host,
        "device": row.device,
        "threads": row.threads,
        "versions": row.versions,
        "curve": [asdict(epoch) for epoch in facts.curve],
        **environment_values(row),
    }


def json_text(values: Any) -> str:
    """Plain values as JSON that every reader takes."""
    return json.dumps(json_safe(values), indent=2, allow_nan=False, ensure_ascii=False)


def write_summary(folder: Path, answer: StudyResults) -> None:
    """Write `summary.json` and `summary.txt` into the study's folder, each in one piece."""
    atomic_write_text(folder / "summary.json", json_text(results_values(answer)) + "\n", is_shared=True)
    text = io.StringIO()
    Console(file=text, width=WIDTH, markup=False, highlight=False, emoji=False).print(results_view(answer))
    lines = "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
    atomic_write_text(folder / "summary.txt", lines, is_shared=True)


def has_summary(folder: Path) -> bool:
    """Whether the folder has both files."""
    return all((folder / name).is_file() for name in SUMMARY_FILES)


def remove_summary(folder: Path) -> None:
    """Delete both files and the picture, which a study that goes on makes untrue."""
    for name in (*SUMMARY_FILES, CLAIMS_PLOT_FILE):
        (folder / name).unlink(missing_ok=True)
