"""What a study with `search.deterministic` decides by: the results up to the last few trials, in any order of ending.

With several workers, trials end in an order that depends on their times. So that proposals do not, each is made without
the results of the `HIDDEN` trials that were opened last, and not before all earlier ones have ended: then it is the
same for any number of workers. A worker waits only where a trial takes as long as the `HIDDEN` after it. Samplers see
the hidden trials as running, and pruners do not see them. A sampler is built again for each proposal, so that its
random numbers depend on the number of trials alone.

This module imports Optuna; it is imported only when such a study is driven.
"""

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING

from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from harness.storage.storage_view import StorageView

if TYPE_CHECKING:
    from harness.search.history import StudyHistory

HIDDEN = 7
"""Number of trials whose results a proposal does not use, so up to eight trials are open at once."""


def hidden_before(trials: Sequence[FrozenTrial], number: int) -> set[int]:
    """The numbers of the trials whose results the trial `number` does not use, the first of those that were opened."""
    opened = [trial.number for trial in trials if trial.number < number and "fingerprint" in trial.user_attrs]
    return set(opened[-HIDDEN:])


class ProposalLag:
    """Decides when a further trial may be opened, and which pruned trials have given their seeds back by then."""

    def __init__(self, history: "StudyHistory") -> None:
        self._history = history
        self._history.is_deferred = True
        self._opened: list[int] = []

    def read(self, trials: Sequence[FrozenTrial]) -> None:
        """Read the trials of earlier calls, and the study's history."""
        self._opened = [trial.number for trial in trials if "fingerprint" in trial.user_attrs]
        self._history.read(trials, hidden_before(trials, len(trials)))

    def visible(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The trials whose results the next proposal may use."""
        hidden = hidden_before(trials, len(trials))
        return [trial for trial in trials if trial.number not in hidden]

    def add(self, number: int) -> None:
        """Count a trial that is opened."""
        if number not in self._opened[-2 * HIDDEN :]:
            self._opened.append(number)

    def may_open(self, running: Iterable[int]) -> bool:
        """Whether all but the last few trials have ended; `running` are those that have not."""
        earlier = self._opened[:-HIDDEN]
        if earlier and min(running, default=earlier[-1] + 1) <= earlier[-1]:
            return False
        self._history.give_back_until(earlier[-1] if earlier else -1)
        return True


class LaggedPruner(BasePruner):
    """One of Optuna's pruners, which compares a trial with those that are not hidden from it."""

    def __init__(self, pruner: BasePruner) -> None:
        self.pruner = pruner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """As in `BasePruner`."""
        view = Study(study.study_name, _EarlierTrials(study, trial.number), study.sampler, self.pruner)
        return self.pruner.prune(view, trial)


class _EarlierTrials(StorageView):
    """A storage with a trial and those before it that are not hidden from it."""

    def __init__(self, study: Study, number: int) -> None:
        super().__init__(study._storage)
        self._number = number

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trial itself and the earlier ones that are not hidden."""
        trials = self.source.get_all_trials(study_id, deepcopy=deepcopy)
        hidden = hidden_before(trials, self._number)
        return [
            trial
            for trial in trials
            if trial.number <= self._number and trial.number not in hidden and (states is None or trial.state in states)
        ]
