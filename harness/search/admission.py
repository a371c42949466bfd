"""Decides whether a study opens a further trial: within its budget, before its plateau, and with its race's share kept.

A driver asks for the next trial whenever a worker is free. What the open trials have yet to train is reserved, so that
every trial that is opened can be trained; a paused trial reserves nothing until it is promoted.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.analysis.formatting import plural
from harness.analysis.plateau import plateau_reason
from harness.config.study import Study
from harness.search.history import StudyHistory
from harness.search.proposals import PlannedRuns, Proposals
from harness.search.study_budget import BudgetKeeper
from harness.search.trial import OpenTrial
from harness.storage.rows import BUDGET_ENDED, PLATEAU_REACHED, SEARCH_ENDED

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

COMPARING = ("median", "wilcoxon")
"""Pruners that compare with complete configurations."""


def is_breadth_first(study: Study) -> bool:
    """Whether every configuration is trained with its first seed before any is with its second."""
    return study.search.sampler == "grid" and study.search.pruner not in COMPARING


def unpaused(trials: Iterable[OpenTrial]) -> list[OpenTrial]:
    """The trials that are not paused."""
    return [trial for trial in trials if not trial.is_paused]


@dataclass(slots=True)
class Admission:
    """Opens the trials of a study one after another, and gives the reasons why it opens no more."""

    study: Study
    trials: "optuna.Study"
    proposals: Proposals
    history: StudyHistory
    budget: BudgetKeeper
    open_trials: Mapping[int, OpenTrial]
    """By number, as the driver keeps them."""
    sampler_of: "Callable[[int], BaseSampler] | None" = None
    """The sampler with random numbers that depend on this number of trials, for `search.deterministic`."""
    is_out_of_budget: bool = False
    """Whether the budget allows no further trial."""
    runs_planned_at_end: int = 0
    """Number of runs of the whole study, those included that the budget does not allow."""
    _plateau: tuple[int, str | None] = field(default=(-1, None))
    """Number of finished trials at the last evaluation of the plateau rule, and why the search ends, if it does."""

    def open_next(self) -> OpenTrial | None:
        """Open the next trial, unless the search is at its plateau or the budget does not allow the trial's runs."""
        in_progress = len(self.open_trials)
        if not self.proposals.has_next(in_progress=in_progress):
            return None
        if not self.proposals.may_open(self.open_trials):
            return None  # a worker waits, so that the proposal does not depend on the order in which trials end
        runs = self.proposals.next_runs()
        if runs is None and (self._has_left_for_race_only() or self._why_at_plateau() is not None):
            if in_progress or not self.proposals.queue_race():
                self.is_out_of_budget = not self.open_trials and self._has_left_for_race_only()
                return None
            runs = self.proposals.next_runs()
        if self.budget.is_limited and not self._affords(runs):
            self.is_out_of_budget = not self.open_trials  # open trials may use less than what is reserved for them
            return None
        if self.study.search.deterministic and self.sampler_of is not None:
            self.trials.sampler = self.sampler_of(len(self.trials.get_trials(deepcopy=False)))
        opened = self.proposals.open(in_progress=in_progress)
        if opened is None and not in_progress and self.proposals.has_next(in_progress=0):
            return self.open_next()  # the space is exhausted, and a race follows
        return opened

    def runs_planned(self) -> int:
        """Number of finished runs, runs of open trials, and runs of trials that may still be opened."""
        open_runs = sum(len(trial.todo) + len(trial.active) for trial in unpaused(self.open_trials.values()))
        return self.history.runs_done + open_runs + self.proposals.runs_left(in_progress=len(self.open_trials))

    def reasons_ended(self) -> list[tuple[str, str]]:
        """The reasons why the search ended before everything was trained, each with the kind of its event."""
        reasons = []
        if self.is_out_of_budget and (text := self._why_out_of_budget()) is not None:
            reasons.append((BUDGET_ENDED, text))
        elif self.proposals.has_next(in_progress=0) and (plateau := self._why_at_plateau()) is not None:
            reasons.append((PLATEAU_REACHED, plateau))
        if (other := self.proposals.why_ended()) is not None:
            reasons.append((SEARCH_ENDED, other))
        return reasons

    def _why_out_of_budget(self) -> str | None:
        status = self.budget.status()
        if status is None:
            return None
        planned = self.runs_planned_at_end
        left = f"{planned - self.history.runs_done:,} of {plural(planned, 'run')}"
        next_one, most = ("run", "") if self.study.search.sampler == "grid" else ("configuration", "at most ")
        kept = ""
        if (racing := self.study.search.racing) is not None:
            next_one, most = ("run of the race", "") if self.proposals.is_racing else (next_one, most)
            left += " before the race is decided" if self.proposals.is_racing else ", and those of the race,"
            if next_one == "configuration" and racing.share > 0:
                kept = f", and {racing.share:.3g} of the budget was kept for the race"
        return (
            f"`search.budget` does not allow the next {next_one}: {status.text} are used{kept}; {most}{left} remain, "
            "which a larger budget trains"
        )

    def _why_at_plateau(self) -> str | None:
        """Why the search ends by `search.plateau`, from the finished trials; None if it does not."""
        if self.study.search.plateau is None:
            return None
        if self._plateau[0] != self.history.trials:
            trials = self.proposals.visible(self.trials.get_trials(deepcopy=False))
            self._plateau = self.history.trials, plateau_reason(self.study, trials)
        return self._plateau[1]

    def _has_left_for_race_only(self) -> bool:
        """Whether what is left of the budget is kept for the race."""
        return self.study.search.racing is not None and self.budget.is_limited and not self._affords(None)

    def _affords(self, planned: PlannedRuns | None) -> bool:
        """Whether the budget allows a further trial, after what the open trials have yet to train.

        Of a study with racing, a share is kept: `planned` is None for a proposal, which must leave it.

        A grid reserves one run of each trial, since it closes trials with the seeds that they have.
        """
        open_trials = unpaused(self.open_trials.values())
        opened = [run for trial in open_trials for run in trial.todo]
        if planned is None:
            racing = self.study.search.racing
            costs = [*self.budget.costs_of(opened), *self.budget.costs_of_proposal()]
            return self.budget.allows(costs, share=1.0 if racing is None else 1.0 - racing.share)
        costs = self.budget.costs_of(planned.all)
        if is_breadth_first(self.study):
            opened, costs = [trial.opening for trial in open_trials if trial.opening in trial.todo], costs[:1]
        return not costs or self.budget.allows([*self.budget.costs_of(opened), *costs])
