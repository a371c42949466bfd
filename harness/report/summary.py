"""The results of a study as plain values and as files, every metric with its n, seeds, device and versions."""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.analysis.configuration_result import ConfigurationResult, RunResult, latency_values
from harness.analysis.environments import environment_values
from harness.analysis.formatting import json_safe
from harness.analysis.noise import noise_line
from harness.analysis.results import StudyResults
from harness.config.recipes.proxy import REVISION
from harness.report.claims import claim_values
from harness.report.conclusions import conclusions, conditions_text
from harness.report.full_scale import full_scale_run_values
from harness.report.study import results_view
from harness.system.atomic_write import atomic_write_text

SUMMARY_FILES = ("summary.json", "summary.txt")
CLAIMS_PLOT_FILE = "claims.png"
"""Plot of the claims in the same folder, if the study has claims; drawn by `harness.report.plots.claims`."""
WIDTH = 160
"""Width of the summary as text, in columns."""


def results_values(results: StudyResults) -> dict[str, Any]:
    """The results for JSON."""
    best = results.best
    return {
        "study": results.study,
        "objective": {"name": results.metric, "direction": results.direction},
        "best_trial": None if best is None else best.trials[0],
        "verdict": conclusions(results),
        "conditions": conditions_text(results),
        "data": list(results.data),
        "limit": results.limit,
        "search_ended": results.ended,
        "noise": noise_line(results.resampling),
        "resample": "+".join(dict.fromkeys(way for way, _ in results.resampling)) or None,
        "pareto_front": [configuration.trials[0] for configuration in results.front],
        "seeds": list(results.seeds),
        "devices": list(results.devices),
        "versions": {name: list(numbers) for name, numbers in results.versions.items()},
        "environment": None if results.environment is None else results.environment.values(),
        "other_environments": [asdict(origin) | {"text": origin.text} for origin in results.origins],
        "left_out": list(results.time_notes),
        "recipe_revision": _revision(results),
        "recipe": _recipe(results),
        "finished": finished(results),
        "ruled_out": dict(results.rejected),
        "claims": [claim_values(result, results.environment) for result in results.claims],
        "full_scale": full_scale_run_values(results),
        "configurations": [configuration_values(configuration, results.metric) for configuration in results.rows],
    }


def _revision(results: StudyResults) -> int | None:
    """The current revision of the recipe's meaning if all runs have it; None if any run has an earlier one."""
    rows = (facts.row for configuration in results.rows for facts in configuration.runs)
    return REVISION if all(row.id == row.run.id for row in rows) else None


def _recipe(results: StudyResults) -> dict[str, Any] | None:
    """The recipe of the runs of the study, with all defaults."""
    recipes = (facts.row.run.recipe for configuration in results.rows for facts in configuration.runs)
    return next((recipe.model_dump(mode="json") for recipe in recipes), None)


def finished(results: StudyResults) -> str | None:
    """When the last run was finished, ISO 8601 in UTC; None if none is finished."""
    times = [
        facts.row.finished
        for configuration in results.rows
        for facts in configuration.runs
        if facts.row.finished is not None
    ]
    return max(times).isoformat(timespec="seconds") if times else None


def configuration_values(configuration: ConfigurationResult, metric: str) -> dict[str, Any]:
    """One configuration for JSON."""
    return {
        "trials": list(configuration.trials),
        "choices": configuration.params,
        "state": configuration.state,
        "reason": configuration.reason,
        "mean": configuration.mean,
        "sd": configuration.spread,
        "n": len(configuration.values),
        "n_trained": len(configuration.values) + len(configuration.missing),
        "missing_seeds": [seed._asdict() for seed in configuration.missing],
        "val_images": configuration.val_images,
        "sampling_error": configuration.sampling_error,
        "limit": configuration.limit,
        "seeds": list(configuration.seeds),
        "params": configuration.params_count,
        "macs": configuration.macs,
        **latency_values(configuration.latency),
        "wall_s": configuration.wall_s,
        "is_on_pareto_front": configuration.is_on_front,
        "spec": configuration.spec.canonical(),
        "runs": [run_values(facts, metric) for facts in configuration.runs],
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
    """Plain values as standard JSON, without NaN and infinity."""
    return json.dumps(json_safe(values), indent=2, allow_nan=False, ensure_ascii=False)


def write_summary(folder: Path, results: StudyResults) -> None:
    """Write `summary.json` and `summary.txt` into the study's folder, each atomically."""
    atomic_write_text(folder / "summary.json", json_text(results_values(results)) + "\n", is_shared=True)
    text = io.StringIO()
    Console(file=text, width=WIDTH, markup=False, highlight=False, emoji=False).print(results_view(results))
    lines = "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
    atomic_write_text(folder / "summary.txt", lines, is_shared=True)


def has_summary(folder: Path) -> bool:
    """Whether the folder has both files."""
    return all((folder / name).is_file() for name in SUMMARY_FILES)


def remove_summary(folder: Path) -> None:
    """Delete both files and the plot, which become outdated when a study continues."""
    for name in (*SUMMARY_FILES, CLAIMS_PLOT_FILE):
        (folder / name).unlink(missing_ok=True)
