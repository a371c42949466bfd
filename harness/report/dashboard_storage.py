"""A read-only Optuna storage that shows the studies of a database with the results of the harness.

optuna-dashboard computes best trials, plots, importances and tables from a storage; with this one, all of them show the
values of `harness best` and `harness show`.

This module imports Optuna; it is imported where the dashboard is served, not before.
"""

import copy
import threading
import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from harness.analysis.results import StudyResults, study_results
from harness.config.study import Study
from harness.errors import SpecError, StudyError, UserError
from harness.report.dashboard_trials import DashboardTrials, trials_with_results, trials_without_results
from harness.storage import Store

REFRESH_S = 2.0
"""Seconds for which results are shown before they are computed again."""
REFRESH_RATIO = 5
"""Results are shown for at least this many times the time that their computation took."""


@dataclass(frozen=True, slots=True)
class _Computed:
    shown: DashboardTrials
    until: float
    """Time on the monotonic clock until which this is shown."""


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
            shown = trials_without_results(trials, self._rows.get_study_directions(study_id)[0])
        else:
            shown = trials_with_results(trials, results)
        end = time.monotonic()
        return _Computed(shown, end + max(REFRESH_S, REFRESH_RATIO * (end - start)))

    def _results(self, name: str, trials: list[FrozenTrial]) -> StudyResults | None:
        """The results of a study; None if its file or its networks cannot be read."""
        study = self._study(name)
        try:
            return None if study is None else study_results(study, self._store, trials, _ruled_out(trials))
        except (SpecError, StudyError, ValidationError):
            return None

    def _study(self, name: str) -> Study | None:
        """The study's file; None if it is not of the harness, or of a version whose files this one cannot read."""
        if name not in self._studies:
            try:
                self._studies[name] = Study.model_validate(yaml.safe_load(self._store.study(name).resolved))
            except (UserError, ValidationError):
                return None
        return self._studies[name]

    # Studies

    def get_study_id_from_name(self, study_name: str) -> int:
        """Read from the database."""
        return self._rows.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Read from the database."""
        return self._rows.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Read from the database."""
        return self._rows.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Read from the database."""
        return self._rows.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Read from the database."""
        return self._rows.get_study_system_attrs(study_id)

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

    def remove_session(self) -> None:
        """Close the database session that Optuna has opened for this thread."""
        self._rows.remove_session()

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


def _ruled_out(trials: Sequence[FrozenTrial]) -> Counter[str]:
    """The number of proposals that were never trained, by the first rule or budget that each violates."""
    rejected = [trial.constraints for trial in trials if "rejected" in trial.user_attrs]
    return Counter(next(iter(constraints), "a rule") for constraints in rejected)
