"""A read-only Optuna storage that shows the studies of a database with the results of the harness.

optuna-dashboard computes best trials, plots, importances and tables from a storage; with this one, all of them show the
values of `harness best` and `harness show`.

This module imports Optuna; it is imported where the dashboard is served, not before.
"""

import copy
import json
import math
import statistics
import threading
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from harness.analysis.configuration_result import ConfigurationResult, RunResult
from harness.analysis.objective import curve_value, spread_of
from harness.analysis.results import StudyResults, study_results
from harness.analysis.run_status import OPEN, trial_status
from harness.analysis.study_reader import rejected_proposals
from harness.config.study import Study
from harness.config.yaml_file import parse_stored
from harness.errors import SpecError, StudyError, UserError
from harness.storage import Store
from harness.storage.delegation import delegated

CONSTRAINTS = "constraints"
"""Optuna 4's system attribute, a list; Optuna 5 keeps each constraint under a key with this prefix and its name."""
OPEN_STATES = (*OPEN, "pruned")
"""States of a configuration in which its feasibility is unknown."""


@dataclass(frozen=True)
class DashboardTrials:
    """The trials of one study, with the results of their configurations."""

    trials: list[FrozenTrial]
    best: FrozenTrial | None
    """The best trial of the results; without results, the best trial within its constraints. None for several
    objectives."""
    results: StudyResults | None = None
    """The results; None if the study's file cannot be read. Then each trial is shown alone."""
    rows: Mapping[int, ConfigurationResult] = field(default_factory=dict)
    """The configurations by trial number; rejected proposals have none."""
    has_several_objectives: bool = False
    front: tuple[FrozenTrial, ...] = ()
    """A complete trial of each configuration on the front of several objectives."""


def trials_without_results(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> DashboardTrials:
    """The trials of a study without results, each with its own value and constraints."""
    shown = [_dashboard_trial(trial, None, trial.constraints, "") for trial in trials]
    if len(directions) > 1:
        return DashboardTrials(shown, None, has_several_objectives=True)
    direction = directions[0]
    sign = 1 if direction == StudyDirection.MAXIMIZE else -1
    complete = (trial for trial in shown if trial.state == TrialState.COMPLETE and len(trial.values) == 1)
    feasible = [trial for trial in complete if max(trial.constraints.values(), default=0) <= 0]
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
        constraints = trial.constraints
        if configuration is not None:
            constraints = _agreeing(violations[configuration.trials], configuration)
        shown.append(_dashboard_trial(trial, configuration, constraints, results.curve_metric))
    if results.pareto is not None:
        complete = {trial.number: trial for trial in shown if trial.state == TrialState.COMPLETE}
        firsts = (next((complete[i] for i in row.trials if i in complete), None) for row in results.front)
        front = tuple(trial for trial in firsts if trial is not None)
        return DashboardTrials(shown, None, results, rows, has_several_objectives=True, front=front)
    best = () if results.best is None else results.best.trials
    named = (trial for trial in shown if trial.number in best and trial.state == TrialState.COMPLETE)
    return DashboardTrials(shown, next(named, None), results, rows)


def state_text(trial: FrozenTrial, configuration: ConfigurationResult | None) -> str:
    """The state of a trial, with the reason; that of its configuration if the trial itself is complete."""
    state, reason = trial_status(trial)[:2]
    if configuration is not None and trial.state == TrialState.COMPLETE:
        state, reason = configuration.state, configuration.reason
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
    if trial.state == TrialState.COMPLETE and configuration.values and all(map(math.isfinite, configuration.means)):
        shown.values = list(configuration.means)
    return shown


def _attributes(configuration: ConfigurationResult, metric: str) -> dict[str, Any]:
    """User attributes of a configuration: numbers that can be sorted, and the values and curves by seed."""
    by_seed = seed_curves(configuration, metric)
    curves = {seed: [round(value, 4) for value in curve.values()] for seed, curve in by_seed.items()}
    return {
        "configuration": configuration.trials[0],
        "n": len(configuration.values),
        **({} if configuration.spread is None else {"sd": configuration.spread}),
        **{f"{name}_sd": spread_of(values) for name, values in configuration.further.items() if len(values) > 1},
        **({} if configuration.latency_ms is None else {"latency_ms_p50": configuration.latency_ms}),
        "value_by_seed": json.dumps(dict(zip(configuration.seeds, configuration.values, strict=True))),
        "curve_by_seed": json.dumps(curves),
    }


REFRESH_S = 2.0
"""Seconds for which results are shown before they are computed again."""
REFRESH_RATIO = 5
"""Results are shown for at least this many times the time that their computation took."""


@dataclass(frozen=True, slots=True)
class _Computed:
    shown: DashboardTrials
    until: float
    """Time on the monotonic clock until which this is shown."""


_as_stored = delegated("_rows")
"""Methods that call those of `RDBStorage`."""


class DashboardStorage(BaseStorage):
    """The studies of a store, read only; `studies` are those with a loaded study file, by name.

    The other studies are read from the copies of their files in the database. Each method that writes raises
    `RuntimeError`; the others behave as documented in `BaseStorage`, and may be called from any thread.
    """

    def __init__(self, rows: RDBStorage, store: Store, studies: Mapping[str, Study]) -> None:
        self._rows = rows
        self._store = store
        self._studies = dict(studies)
        self._computed: dict[int, _Computed] = {}
        self._lock = threading.RLock()

    def trials_of(self, study_id: int) -> DashboardTrials:
        """The current trials of a study. Raises `KeyError` for a study that does not exist."""
        with self._lock:
            computed, start = self._computed.get(study_id), time.monotonic()
            if computed is None or computed.until < start:
                computed = self._compute(study_id, start)
                self._computed[study_id] = computed
            return computed.shown

    def _compute(self, study_id: int, start: float) -> _Computed:
        name = self._rows.get_study_name_from_id(study_id)
        trials = self._rows.get_all_trials(study_id, deepcopy=False)
        results = self._results(name, trials)
        if results is None:
            shown = trials_without_results(trials, self._rows.get_study_directions(study_id))
        else:
            shown = trials_with_results(trials, results)
        end = time.monotonic()
        return _Computed(shown, end + max(REFRESH_S, REFRESH_RATIO * (end - start)))

    def _results(self, name: str, trials: list[FrozenTrial]) -> StudyResults | None:
        """The results of a study; None if its file or its networks cannot be read."""
        study = self._study(name)
        try:
            return None if study is None else study_results(study, self._store, trials, rejected_proposals(trials))
        except (SpecError, StudyError, ValidationError):
            return None

    def _study(self, name: str) -> Study | None:
        """The study's file; None if it is not of the harness, or of a version whose files this one cannot read."""
        if name not in self._studies:
            try:
                self._studies[name] = Study.model_validate(parse_stored(self._store.study(name).resolved))
            except (UserError, ValidationError):
                return None
        return self._studies[name]

    # Studies

    get_study_id_from_name = _as_stored("get_study_id_from_name")
    get_study_name_from_id = _as_stored("get_study_name_from_id")
    get_study_directions = _as_stored("get_study_directions")
    get_study_user_attrs = _as_stored("get_study_user_attrs")
    get_study_system_attrs = _as_stored("get_study_system_attrs")
    remove_session = _as_stored("remove_session")

    def get_all_studies(self) -> list[FrozenStudy]:
        """Read from the database."""
        return sorted(self._rows.get_all_studies(), key=lambda study: study._study_id)

    # Trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials as they are shown."""
        trials = [trial for trial in self.trials_of(study_id).trials if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """The trial as it is shown; as stored if its study has not been shown."""
        with self._lock:
            trials = [trial for computed in self._computed.values() for trial in computed.shown.trials]
        return next((trial for trial in trials if trial._trial_id == trial_id), None) or self._rows.get_trial(trial_id)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The best trial of the results; if there is none, the trial with the best value.

        The dashboard requires a best trial as soon as one trial is complete; without one it has no page.
        """
        return self.trials_of(study_id).best or super().get_best_trial(study_id)

    # Writing

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Raise `RuntimeError`."""
        raise RuntimeError("this storage is for reading only")

    create_new_study = _refuse
    delete_study = _refuse
    set_study_user_attr = _refuse
    set_study_system_attr = _refuse
    create_new_trial = _refuse
    set_trial_param = _refuse
    set_trial_state_values = _refuse
    set_trial_intermediate_value = _refuse
    set_trial_user_attr = _refuse
    set_trial_system_attr = _refuse
