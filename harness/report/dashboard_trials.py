"""The trials of a study for Optuna's dashboard: the results of the study in Optuna's form.

Optuna stores a value per trial, and optuna-dashboard 0.21 supports neither configurations with several trials nor the
constraints of Optuna 5. So the value and the curve that are shown are means over all seeds of a configuration, and the
constraints are a list of numbers, one of which is above 0 if the configuration does not count in the results.

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
"""States of a configuration in which its feasibility is unknown."""


@dataclass(frozen=True)
class DashboardTrials:
    """The trials of one study, with the results of their configurations."""

    trials: list[FrozenTrial]
    best: FrozenTrial | None
    """The best trial of the results; without results, the best trial within its constraints."""
    answer: StudyResults | None = None
    """The results; None if the study's file cannot be read. Then each trial is shown alone."""
    rows: Mapping[int, ConfigurationResult] = field(default_factory=dict)
    """The configurations by trial number; rejected proposals have none."""


def trials_without_results(trials: Sequence[FrozenTrial], direction: StudyDirection) -> DashboardTrials:
    """The trials of a study without results, each with its own value and constraints."""
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


def trials_with_results(trials: Sequence[FrozenTrial], results: StudyResults) -> DashboardTrials:
    """The trials with the values, curves, constraints and attributes of their configurations."""
    rows = {number: configuration for configuration in results.rows for number in configuration.trials}
    violations: dict[tuple[int, ...], dict[str, float]] = {}
    for trial in trials:
        if trial.number in rows:
            largest = violations.setdefault(rows[trial.number].trials, {})
            largest |= {name: max(value, largest.get(name, value)) for name, value in trial.constraints.items()}
    shown = []
    for trial in trials:
        configuration = rows.get(trial.number)
        constraints = (
            trial.constraints if configuration is None else _agreeing(violations[configuration.trials], configuration)
        )
        shown.append(_dashboard_trial(trial, configuration, constraints, results.metric))
    best = () if results.best is None else results.best.trials
    named = (trial for trial in shown if trial.number in best and trial.state == TrialState.COMPLETE)
    return DashboardTrials(shown, next(named, None), results, rows)


def state_text(trial: FrozenTrial, configuration: ConfigurationResult | None) -> str:
    """The state of a trial, with the reason; that of its configuration if the trial itself is complete."""
    is_whole = trial.state == TrialState.COMPLETE
    state, reason = (
        (configuration.state, configuration.reason)
        if configuration is not None and is_whole
        else trial_status(trial)[:2]
    )
    return state if reason is None or state == "complete" else f"{state}: {reason}"


def mean_curve(configuration: ConfigurationResult, metric: str) -> dict[int, float]:
    """The metric by epoch: the mean over the completed seeds; if there are none, that of the first started seed."""
    curves = seed_curves(configuration, metric)
    averaged = [curve for seed, curve in curves.items() if seed in configuration.seeds] or list(curves.values())[:1]
    if not averaged:
        return {}
    epochs = set.intersection(*(set(curve) for curve in averaged))
    return {epoch: statistics.fmean(curve[epoch] for curve in averaged) for epoch in sorted(epochs)}


def seed_curves(configuration: ConfigurationResult, metric: str) -> dict[int, dict[int, float]]:
    """The metric by seed and epoch; seeds without an epoch are omitted."""
    curves = {facts.row.run.seed: _curve(facts, metric) for facts in configuration.runs}
    return {seed: curve for seed, curve in sorted(curves.items()) if curve}


def _curve(facts: RunResult, metric: str) -> dict[int, float]:
    values = ((epoch.epoch, curve_value(metric, epoch)) for epoch in facts.curve)
    return {epoch: value for epoch, value in values if value is not None}


def _agreeing(violations: Mapping[str, float], configuration: ConfigurationResult) -> dict[str, float]:
    """The constraints of a configuration, changed so that its feasibility agrees with the results."""
    if configuration.state == "complete":
        return {name: min(value, 0.0) for name, value in violations.items()}
    if configuration.state in OPEN_STATES or any(value > 0 for value in violations.values()):
        return dict(violations)
    return {**violations, configuration.state: 1.0}


def _dashboard_trial(
    trial: FrozenTrial, configuration: ConfigurationResult | None, constraints: Mapping[str, float], metric: str
) -> FrozenTrial:
    """A copy of the trial as the dashboard shows it."""
    shown = copy.copy(trial)
    system_attrs = {key: value for key, value in trial.system_attrs.items() if not key.startswith(CONSTRAINTS)}
    shown._system_attrs = {**system_attrs, CONSTRAINTS: [constraints[name] for name in sorted(constraints)]}
    attributes = {"state": state_text(trial, configuration)}
    if constraints:
        attributes["constraints"] = json.dumps({name: constraints[name] for name in sorted(constraints)})
    shown.user_attrs = {**attributes, **trial.user_attrs}
    if configuration is None:
        return shown
    shown.user_attrs |= _attributes(configuration, metric)
    if curve := mean_curve(configuration, metric):
        shown.intermediate_values = curve
    if trial.state == TrialState.COMPLETE and configuration.mean is not None and math.isfinite(configuration.mean):
        shown.values = [configuration.mean]
    return shown


def _attributes(configuration: ConfigurationResult, metric: str) -> dict[str, Any]:
    """User attributes of a configuration: numbers that can be sorted, and the values and curves by seed."""
    curves = {
        seed: [round(value, 4) for value in curve.values()]
        for seed, curve in seed_curves(configuration, metric).items()
    }
    return {
        "configuration": configuration.trials[0],
        "n": len(configuration.values),
        **({} if configuration.spread is None else {"sd": configuration.spread}),
        **({} if configuration.latency_ms is None else {"latency_ms_p50": configuration.latency_ms}),
        "value_by_seed": json.dumps(dict(zip(configuration.seeds, configuration.values, strict=True))),
        "curve_by_seed": json.dumps(curves),
    }
