"""The results of a study as plain values, every metric with its n, seeds, device and versions; and the summary's files.

`summary.json` has these values, `summary.txt` the page of results; `harness.report.study` writes both.
"""

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.analysis.claims import ClaimResult
from harness.analysis.conclusions import conclusions, conditions_text
from harness.analysis.configuration_result import ConfigurationResult, RunResult, latency_values
from harness.analysis.effect_values import effects_values
from harness.analysis.objective import spread_of
from harness.analysis.pareto import pareto_values
from harness.analysis.results import StudyResults, noise_line
from harness.analysis.reuse import environment_values, other_environments
from harness.analysis.trust_values import trust_values
from harness.config.recipe_axes import is_recipe_axis
from harness.config.recipes.proxy import REVISION
from harness.storage import FullScaleRow
from harness.training.environment import Environment
from harness.training.full_scale.folder import WEIGHTS, is_locked
from harness.training.run import RunState

SUMMARY_FILES = ("summary.json", "summary.txt")
CLAIMS_PLOT_FILE = "claims.png"
"""Plot of the claims in the same folder, if the study has claims; drawn by `harness.report.plots.claims`."""


def results_values(results: StudyResults) -> dict[str, Any]:
    """The results for JSON."""
    best = results.best
    return {
        "study": results.study,
        "objective": {"name": results.metric, "direction": results.direction},
        **({} if results.pareto is None else {"pareto": pareto_values(results.pareto)}),
        "best_trial": None if best is None else best.trials[0],
        "verdict": conclusions(results),
        "conditions": conditions_text(results),
        "data": list(results.data),
        "limit": results.limit,
        "search": dict(results.search),
        "search_ended": results.ended,
        "budget": None
        if results.budget is None
        else results.budget.values() | {"is_used_up": results.is_out_of_budget},
        "racing": None if results.race is None else race_values(results),
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
        "claims": [
            claim_values(result, results.environment)
            | {"is_undecided_by_budget": result.claim.name in results.open_by_budget}
            for result in results.claims
        ],
        "effects": None if results.effects is None else effects_values(results.effects),
        "trust": None if results.trust is None else trust_values(results.trust),
        "full_scale": [_full_scale_values(row, results) for row in results.full_scale],
        "configurations": [
            configuration_values(configuration, results.metric)
            | ({"recipe": configuration.recipe.model_dump(mode="json")} if _has_recipe_axes(results) else {})
            for configuration in results.rows
        ],
    }


def race_values(results: StudyResults) -> dict[str, Any]:
    """The race of a study for JSON; configurations are named by their first trials."""
    race = results.race
    assert race is not None, "a study with racing"
    trials = {row.fingerprint: row.trials[0] for row in results.rows}
    rates = race.rates()
    return {
        **asdict(race.rule),
        "is_decided": race.is_decided,
        "not_ruled_out": [trials[name] for name in race.rivals],
        "runs": race.runs,
        "runs_of_all": race.runs_of_all,
        "noise": race.noise,
        "spread": race.spread,
        "estimates": {trials[name]: bound.estimate for name, bound in race.bounds.items()},
        "simulated": None if rates is None else rates._asdict(),
    }


def _revision(results: StudyResults) -> int | None:
    """The current revision of the recipe's meaning if all runs have it; None if any run has an earlier one."""
    rows = (facts.row for configuration in results.rows for facts in configuration.runs)
    return REVISION if all(row.id == row.run.id for row in rows) else None


def _recipe(results: StudyResults) -> dict[str, Any] | None:
    """The recipe of the runs of the study, with all defaults; None if each configuration has its own."""
    if _has_recipe_axes(results):
        return None
    recipes = (facts.row.run.recipe for configuration in results.rows for facts in configuration.runs)
    return next((recipe.model_dump(mode="json") for recipe in recipes), None)


def _has_recipe_axes(results: StudyResults) -> bool:
    return any(map(is_recipe_axis, results.axes))


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
        **({"derived": configuration.derived} if configuration.derived else {}),
        **({"enqueued_as": configuration.enqueued_as} if configuration.enqueued_as else {}),
        "state": configuration.state,
        "reason": configuration.reason,
        "mean": configuration.mean,
        **({} if configuration.bound is None else {"bound": configuration.bound}),
        "sd": configuration.spread,
        **further_values(configuration),
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


def further_values(configuration: ConfigurationResult) -> dict[str, Any]:
    """The further objectives of a configuration for JSON; empty in a study with one objective."""
    if not configuration.further:
        return {}
    further = {
        name: {"mean": statistics.fmean(values) if values else None, "sd": spread_of(values), "values": list(values)}
        for name, values in configuration.further.items()
    }
    return {"further_objectives": further}


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


def claim_values(result: ClaimResult, environment: Environment | None = None) -> dict[str, Any]:
    """One claim for JSON."""
    claim, estimate = result.claim, result.estimate
    return {
        **claim.model_dump(mode="json"),
        "pairing": result.pairing,
        "verdict": str(result.verdict),
        "values": list(result.values),
        "seeds": list(result.seeds),
        "effect": None if estimate is None else estimate.effect,
        "sd": None if estimate is None else estimate.sd,
        "variance_removed_by_pairing": result.variance_removed,
        "interval": None if estimate is None else estimate.repeated_interval,
        "interval_of_one_look": None if estimate is None else estimate.interval,
        "interval_bca": None if estimate is None else estimate.bootstrap_interval,
        "p_permutation": None if estimate is None else estimate.permutation_p,
        "n": len(result.values),
        "n_trained": result.pairs,
        "lost": [pair.text for pair in result.lost_pairs],
        "p": result.p,
        "seeds_to_decide": result.seeds_needed,
        "exploratory": exploratory_values(result),
        "note": result.note,
        "missing": result.missing_reason,
        "other_environments": [origin.text for origin in other_environments(result.runs, environment)],
        "limit": result.limit,
        "arms": [
            {"choices": arm.params, "weight": weight, "seeds": list(values), "values": list(values.values())}
            for arm, weight, values in zip(result.arms, claim.contrast.values(), result.arm_values, strict=True)
        ],
    }


def exploratory_values(result: ClaimResult) -> dict[str, Any] | None:
    """The exploratory verdict for JSON, with the reason why it has no error rate; None without one."""
    explored = result.exploratory
    return None if explored is None else {"verdict": str(explored.verdict), "p": explored.p, "reason": explored.reason}


def full_scale_status(row: FullScaleRow) -> str:
    """The state of a training, as text; a running one whose folder is not locked was interrupted."""
    if row.state == RunState.RUNNING and not is_locked(row.folder):
        return "interrupted"
    return str(row.state).replace("_", " ")


def _full_scale_values(row: FullScaleRow, results: StudyResults) -> dict[str, Any]:
    """One training at full scale for JSON."""
    proxy = None if row.trial is None else results.row_of(row.trial)
    best = row.folder / WEIGHTS["best"]
    return {
        "id": row.id,
        "name": row.name,
        "trial": row.trial,
        "state": full_scale_status(row),
        "cause": row.cause,
        "recipe": row.recipe_name,
        "recipe_fingerprint": row.recipe_fingerprint,
        "seed": row.recipe.get("seed"),
        "epochs": row.epochs,
        "epochs_done": row.epochs_done,
        "metric": row.metric,
        "best": row.best,
        "best_epoch": row.best_epoch,
        "proxy": None if proxy is None else {"mean": proxy.mean, "sd": proxy.spread, "n": len(proxy.values)},
        "weights": str(best) if best.exists() else None,
        "folder": str(row.folder),
        "host": row.host,
        "device": row.device,
        "versions": row.versions,
        "environment": None if row.environment is None else row.environment.values(),
        "earlier_environments": [None if environment is None else environment.values() for environment in row.earlier],
        "spec": row.spec.canonical(),
    }


def has_summary(folder: Path) -> bool:
    """Whether the folder has both files."""
    return all((folder / name).is_file() for name in SUMMARY_FILES)


def remove_summary(folder: Path) -> None:
    """Delete both files and the plot, which become outdated when a study continues."""
    for name in (*SUMMARY_FILES, CLAIMS_PLOT_FILE):
        (folder / name).unlink(missing_ok=True)
