"""A storage of Optuna that shows the studies of a database as the harness answers them, and writes nothing.

optuna-dashboard computes best trials, plots, importances and tables from a storage; with this one in between, all of
them show the values that `harness best` and `harness show` go by.

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
"""For how long an answer is shown before it is computed anew."""
REFRESH_RATIO = 5
"""An answer that takes long to compute is shown for that many times as long."""


@dataclass(frozen=True, slots=True)
class _Computed:
    shown: DashboardTrials
    until: float
    """On the monotonic clock."""


class DashboardStorage(BaseStorage):
    """The studies of a store, for reading; `studies` are those whose files are at hand, by name.

    The other studies are read from the copies of their files that the database keeps. Each method that writes raises
    `RuntimeError`; the others do what `BaseStorage` says of them, and may be called in any thread.
    """

    def __init__(self, rows: RDBStorage, store: Store, studies: Mapping[str, Study]) -> None:
        self._rows = rows
        self._store = store
        self._studies = dict(studies)
        self._computed: dict[int, _Computed] = {}
        self._lock = threading.RLock()

    def trials_of(self, study_id: int) -> DashboardTrials:
        """The study as it is answered now. Raises `KeyError` for a study that does not exist."""
        with self._lock:
            known, start = self._computed.get(study_id), time.monotonic()
            if known is None or known.until < start:
                known = self._compute(study_id, start)
                self._computed[study_id] = known
            return known.shown

    def _compute(self, study_id: int, start: float) -> _Computed:
        name = self._rows.get_study_name_from_id(study_id)
        trials = self._rows.get_all_trials(study_id, deepcopy=False)
        answered = self._answer(name, trials)
        if answered is None:
            shown = trials_without_results(trials, self._rows.get_study_directions(study_id)[0])
        else:
            shown = trials_with_results(trials, answered)
        end = time.monotonic()
        return _Computed(shown, end + max(REFRESH_S, REFRESH_RATIO * (end - start)))

    def _answer(self, name: str, trials: list[FrozenTrial]) -> StudyResults | None:
        """The answer of a study; None where its file or its networks cannot be read."""
        study = self._study(name)
        try:
            return None if study is None else study_results(study, self._store, trials, _ruled_out(trials))
        except (SpecError, StudyError, ValidationError):
            return None

    def _study(self, name: str) -> Study | None:
        """The study's file; None where it is not of this harness, or of a version whose files this one cannot read."""
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
        """As they are shown."""
        trials = [trial for trial in self.trials_of(study_id).trials if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As it is shown, where its study has been shown."""
        with self._lock:
            trials = [trial for known in self._computed.values() for trial in known.shown.trials]
        return next((trial for trial in trials if trial._trial_id == trial_id), None) or self._rows.get_trial(trial_id)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The best of the answer; where that has none, the best value of all, for which `trials_of` has no best.

        The dashboard asks for a best trial as soon as one is complete, and has no page where there is none.
        """
        return self.trials_of(study_id).best or super().get_best_trial(study_id)

    def remove_session(self) -> None:
        """Close what Optuna keeps open for this thread."""
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
    """How many proposals were never trained, by the first rule or budget that each breaks."""
    rejected = [trial.constraints for trial in trials if "rejected" in trial.user_attrs]
    return Counter(next(iter(constraints), "a rule") for constraints in rejected)
