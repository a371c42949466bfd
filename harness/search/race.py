"""Asks which configurations of a study with `search.racing` get another seed; `harness.analysis.racing` decides."""

from typing import TYPE_CHECKING

from harness.analysis.racing import seeds_due
from harness.analysis.results import study_results
from harness.analysis.reuse import ReuseRule
from harness.analysis.run_status import trials_by_configuration
from harness.config.space import Candidate, Space
from harness.search.history import StudyHistory
from harness.search.trial import recorded_params

if TYPE_CHECKING:
    import optuna


class RaceMonitor:
    """The race of a study, as its stored trials decide it; without `search.racing`, no configuration gets a seed."""

    def __init__(
        self,
        rule: ReuseRule,
        space: Space,
        trials: "optuna.Study",
        history: StudyHistory,
        *,
        checks_limits: bool = True,
    ) -> None:
        self._rule = rule
        self._space = space
        self._trials = trials
        self._history = history
        self._is_at_limit: bool | None = None if checks_limits else False
        self._seen: tuple[int, list[Candidate]] | None = None
        """Number of finished runs at the last decision, and what was decided."""
        self.round = 0
        """Number of the round of these configurations."""

    def configurations_needing_seeds(self) -> list[Candidate]:
        """The configurations of the next round, or those that are missing of a round that was interrupted."""
        study = self._rule.study
        if study.search.racing is None or self._all_at_limit():
            return []
        if self._seen is None or self._seen[0] != self._history.runs_done:
            trials = self._trials.get_trials(deepcopy=False)
            due = seeds_due(study, trials)
            groups = trials_by_configuration(trials)
            self.round = due.round
            choices = [recorded_params(groups[name][0].params) for name in due.configurations]
            self._seen = self._history.runs_done, [self._space.sample(choose) for choose in choices]
        return self._seen[1]

    def _all_at_limit(self) -> bool:
        """Whether all configurations are at chance or at the ceiling with the seeds that they have: nothing is best."""
        if self._is_at_limit is None:
            trials = self._trials.get_trials(deepcopy=False)
            self._is_at_limit = study_results(self._rule.study, self._rule.store, trials, {}).limit is not None
        return self._is_at_limit
