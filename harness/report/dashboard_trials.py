"""The trials of a study as Optuna's dashboard is to show them: what the answer of the study says, in Optuna's form.

Optuna stores a value per trial, and optuna-dashboard 0.21 knows neither configurations with several trials nor the
constraints of Optuna 5. So the value and the curve that are shown are means over all seeds of a configuration, and the
constraints are a list of numbers of which one is above 0 where the answer does not count the configuration.

This module imports Optuna; it is imported where the dashboard is served, not before.
"""

import copy
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from harness.analysis.objective import curve_value
from harness.analysis.results import ConfigurationResult, RunResult, StudyResults
from harness.analysis.run_status import trial_status

CONSTRAINTS = "constraints"
"""Optuna 4's system attribute, a list; Optuna 5 keeps each constraint under a key with this prefix and its name."""
OPEN_STATES = ("running", "waiting", "pruned")
"""States of a configuration that say nothing about its budgets."""


@dataclass(frozen=True)
class DashboardTrials:
    """The trials of one study, and what is known of their configurations."""

    trials: list[FrozenTrial]
    best: FrozenTrial | None
    """The trial that the answer calls best; without an answer, the best trial within its constraints."""
    answer: StudyResults | None = None
    """None where the study's file cannot be read any more; then each trial is shown by itself."""
    rows: Mapping[int, ConfigurationResult] = field(default_factory=dict)
    """The configuration of a trial, by the trial's number; proposals that were rejected have none."""


def trials_without_results(trials: Sequence[FrozenTrial], direction: StudyDirection) -> DashboardTrials:
    """The trials of a study that cannot be answered: each with its own value and constraints."""
    shown = [_dashboard_trial(trial, None, trial.constraints, "") for trial in trials]
    sign = 1 if direction == StudyDirection.MAXIMIZE else -1
    feasible = [
        trial
        for trial in shown
        if trial.state == TrialState.COMPLETE
        and len(trial.values) == 1
        and max(trial.constraints.values(), default=0) <= 0
    ]
    return DashboardTrials(shown, max(feasible, key=lambda trial: sign * trial.values[0], default=None))


def trials_with_results(trials: Sequence[FrozenTrial], answer: StudyResults) -> DashboardTrials:
    """The trials with the values, curves, constraints and attributes of their configurations."""
    rows = {number: row for row in answer.rows for number in row.trials}
    violations: dict[tuple[int, ...], dict[str, float]] = {}
    for trial in trials:
        if trial.number in rows:
            known = violations.setdefault(rows[trial.number].trials, {})
            known |= {name: max(value, known.get(name, value)) for name, value in trial.constraints.items()}
    shown = []
    for trial in trials:
        row = rows.get(trial.number)
        constraints = trial.constraints if row is None else _agreeing(violations[row.trials], row)
        shown.append(_dashboard_trial(trial, row, constraints, answer.metric))
    best = () if answer.best is None else answer.best.trials
    named = (trial for trial in shown if trial.number in best and trial.state == TrialState.COMPLETE)
    return DashboardTrials(shown, next(named, None), answer, rows)


def state_text(trial: FrozenTrial, row: ConfigurationResult | None) -> str:
    """What became of a trial, with the reason; of its whole configuration where the trial itself is complete."""
    is_whole = trial.state == TrialState.COMPLETE
    state, reason = (row.state, row.reason) if row is not None and is_whole else trial_status(trial)[:2]
    return state if reason is None or state == "complete" else f"{state}: {reason}"


def mean_curve(row: ConfigurationResult, metric: str) -> dict[int, float]:
    """The metric by epoch: the mean over the completed seeds; of the first seed that began, where none is completed."""
    curves = seed_curves(row, metric)
    averaged = [curve for seed, curve in curves.items() if seed in row.seeds] or list(curves.values())[:1]
    if not averaged:
        return {}
    epochs = set.intersection(*(set(curve) for curve in averaged))
    return {epoch: statistics.fmean(curve[epoch] for curve in averaged) for epoch in sorted(epochs)}


def seed_curves(row: ConfigurationResult, metric: str) -> dict[int, dict[int, float]]:
    """The metric by seed and epoch; seeds without an epoch are left out."""
    curves = {facts.row.run.seed: _curve(facts, metric) for facts in row.runs}
    return {seed: curve for seed, curve in sorted(curves.items()) if curve}


def _curve(facts: RunResult, metric: str) -> dict[int, float]:
    values = ((epoch.epoch, curve_value(metric, epoch)) for epoch in facts.curve)
    return {epoch: value for epoch, value in values if value is not None}


def _agreeing(violations: Mapping[str, float], row: ConfigurationResult) -> dict[str, float]:
    """The constraints of a configuration, which must say of its feasibility what the answer says."""
    if row.state == "complete":
        return {name: min(value, 0.0) for name, value in violations.items()}
    if row.state in OPEN_STATES or any(value > 0 for value in violations.values()):
        return dict(violations)
    return {**violations, row.state: 1.0}


def _dashboard_trial(
    trial: FrozenTrial, row: ConfigurationResult | None, constraints: Mapping[str, float], metric: str
) -> FrozenTrial:
    """A copy of the trial in the form that is shown."""
    shown = copy.copy(trial)
    own = {key: value for key, value in trial.system_attrs.items() if not key.startswith(CONSTRAINTS)}
    shown._system_attrs = {**own, CONSTRAINTS: [constraints[name] for name in sorted(constraints)]}
    attributes = {"state": state_text(trial, row)}
    if constraints:
        attributes["constraints"] = json.dumps({name: constraints[name] for name in sorted(constraints)})
    shown.user_attrs = {**attributes, **trial.user_attrs}
    if row is None:
        return shown
    shown.user_attrs |= _attributes(row, metric)
    if curve := mean_curve(row, metric):
        shown.intermediate_values = curve
    if trial.state == TrialState.COMPLETE and row.mean is not None and math.isfinite(row.mean):
        shown.values = [row.mean]
    return shown


def _attributes(row: ConfigurationResult, metric: str) -> dict[str, Any]:
    """What is known of a configuration: numbers that can be sorted, and the seeds one by one."""
    curves = {seed: [round(value, 4) for value in curve.values()] for seed, curve in seed_curves(row, metric).items()}
    return {
        "configuration": row.trials[0],
        "n": len(row.values),
        **({} if row.spread is None else {"sd": row.spread}),
        **({} if row.latency_ms is None else {"latency_ms_p50": row.latency_ms}),
        "value_by_seed": json.dumps(dict(zip(row.seeds, row.values, strict=True))),
        "curve_by_seed": json.dumps(curves),
    }
