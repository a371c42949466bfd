"""One trial in detail: its network, the cost of the network, and each of its runs."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.configuration_result import RunResult, trial_choices, trial_recipe, trial_spec
from harness.analysis.formatting import (
    DASH,
    format_duration,
    format_mean_and_spread,
    format_metric,
    format_params,
    printable,
    si,
    sparkline,
)
from harness.analysis.objective import spread_of
from harness.analysis.proposal_origin import ENQUEUED_AS, PROPOSED_BY
from harness.analysis.reuse import difference, study_environment
from harness.analysis.run_status import trial_status
from harness.analysis.summary import run_values
from harness.config.network_file import dump_network_spec
from harness.config.recipe_axes import recipe_changes
from harness.config.study import Study
from harness.report.network import network_values, network_view
from harness.report.shape_bias import shape_bias_line
from harness.search.samplers import seed_text
from harness.storage import RunRow
from harness.training.environment import Environment, describe_environment
from harness.training.run import Job, RunState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def trial_view(trial: "FrozenTrial", runs: Sequence[RunResult], study: Study) -> RenderableType:
    """The details of a trial for a terminal."""
    metric = next(iter(study.objectives))
    state, reason, _ = trial_status(trial)
    head = Text(f"trial {trial.number}", style="bold")
    head.append(
        f"  {format_params(trial_choices(trial, study.axes))}  {state}{f', {printable(reason)}' if reason else ''}",
        style="not bold",
    )
    if "spec" not in trial.user_attrs:
        return Group(head, Text("  It was never trained."))
    spec, recipe = trial_spec(trial), trial_recipe(trial, study)
    changes = recipe_changes(recipe, study.proxy)
    listed = trial.user_attrs.get(ENQUEUED_AS)
    parts: list[RenderableType] = [
        head,
        *([Text(f"  enqueued by the study file: {printable(listed)}")] if listed else []),
        *([Text(f"  recipe: the proxy with {format_params(changes)}")] if changes else []),
        Text(),
        Text(dump_network_spec(spec).rstrip()),
        Text(),
        network_view(spec, recipe.resolution),
    ]
    values = [value for facts in runs if (value := facts.value(metric)) is not None]
    if values:
        mean = format_mean_and_spread(statistics.fmean(values), spread_of(values), metric)
        parts += [Text(), Text(f"{metric} {mean} (n = {len(values)})", style="bold")]
    for facts in runs:
        parts += [Text(), *run_view(facts, metric, study_environment(study))]
    return Group(*parts)


def trial_values(trial: "FrozenTrial", runs: Sequence[RunResult], study: Study) -> dict[str, Any]:
    """The details of a trial for JSON."""
    metric = next(iter(study.objectives))
    state, reason, _ = trial_status(trial)
    values: dict[str, Any] = {
        "trial": trial.number,
        "state": state,
        "reason": reason,
        "choices": trial_choices(trial, study.axes),
        "proposed_by": trial.user_attrs.get(PROPOSED_BY),
        "enqueued_as": trial.user_attrs.get(ENQUEUED_AS),
    }
    if "spec" in trial.user_attrs:
        recipe = trial_recipe(trial, study)
        values["recipe_changes"] = recipe_changes(recipe, study.proxy)
        values["network"] = network_values(trial_spec(trial), recipe.resolution)
    values["runs"] = [run_values(facts, metric) for facts in runs]
    return values


def run_view(facts: RunResult, metric: str, environment: Environment) -> list[RenderableType]:
    """A run: its state, curve and measures, where it was trained, and the path of its log."""
    row = facts.row
    is_training = row.run.recipe.epochs > 0
    value = facts.value(metric)
    head = f"{seed_text(row.run.seed)}: {str(row.state).replace('_', ' ')}"
    head += f", {metric} {format_metric(value, metric)}" if value is not None else ""
    head += f", {format_duration(row.wall_s)}" if row.wall_s else ""
    lines = [
        Text(head, style="bold"),
        Text(f"  run        {row.id}, {row.attempts} attempt{'s' * (row.attempts != 1)}"),
    ]
    if row.cause:
        lines.append(Text(f"  cause      {printable(row.cause)}"))
    if facts.curve:
        last = facts.curve[-1]
        epochs = f"{last.epoch}/{row.run.recipe.epochs}"
        lines.append(_curve("top1", [e.top1 for e in facts.curve], f"{last.top1:.2f} after epoch {epochs}"))
        lines.append(_curve("val loss", [e.val_loss for e in facts.curve], f"{last.val_loss:.3f}"))
        lines.append(_curve("train loss", [e.train_loss for e in facts.curve], f"{last.train_loss:.3f}"))
    if facts.measures:
        output = ", ".join(f"{name} {_measure(name, value)}" for name, value in facts.measures.items())
        lines.append(Text(f"  measured   {output}"))
        lines += [Text(f"  shape bias {line}") for line in shape_bias_line(facts.measures)]
    if row.device:
        versions = ", ".join(f"{name} {version}" for name, version in row.versions.items())
        done = "trained" if is_training else "untrained"
        lines.append(Text(f"  {done:<10} on {row.host}, {row.device}; {versions}"))
    if row.state == RunState.COMPLETE:
        lines += environment_lines(row, environment)
    if row.folder is not None:
        job = Job(row.run, row.folder)
        lines.append(Text(f"  log        {_where(job.log)}"))
        weights = _where(job.checkpoint) if is_training else f"untrained: the initial weights of seed {row.run.seed}"
        lines.append(Text(f"  weights    {weights}"))
    return list(lines)


def environment_lines(row: RunRow, environment: Environment) -> list[Text]:
    """The environment of a run, its difference from this one, and the origin of its times."""
    lines = [Text(f"  computed   {describe_environment(row.environment)}")]
    if changes := difference(row, environment):
        lines.append(Text(f"  not here   {changes}"))
    if row.timed is not None and row.timed != row.environment:
        lines.append(Text(f"  times      measured again: {describe_environment(row.timed)}"))
    return lines


def _curve(name: str, values: list[float], last: str) -> Text:
    return Text(f"  {name:<10} {sparkline(values)} {last}")


def _measure(name: str, value: float) -> str:
    return f"{si(value)}B" if name.endswith("_bytes") else f"{value:.4g}"


def _where(path: Path) -> str:
    return str(path) if path.exists() else f"{DASH} (none at {path})"
