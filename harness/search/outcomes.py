"""The outcomes of runs in their trials: values and failures, and the end of a trial once its runs decide it."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.analysis.objective import spread_of
from harness.analysis.run_status import DIVERGED, configuration_status
from harness.config.study import CURVES, Study
from harness.errors import StudyAborted
from harness.search.events import RunEnded, StudyEvent, TrialEnded
from harness.search.history import StudyHistory
from harness.search.runs import StoredRuns
from harness.search.samplers import seed_text
from harness.search.trial import OpenTrial, TrialOutcome
from harness.search.wilcoxon import SeedPruner
from harness.storage import Store
from harness.training.run import Run, RunState

if TYPE_CHECKING:
    import optuna

MAX_FAILURES_IN_A_ROW = 3
"""Number of failed runs, without a complete one between them, that abort the study as wrong itself."""
PASSED_PRUNER = "passed the pruner"


@dataclass(slots=True)
class FailureTracker:
    """Counts failed runs in a row; a trial that a failed run would end stays open until another run is complete.

    If all runs fail instead, the study is aborted, and the same command trains them again.
    """

    before: Container[str]
    """Runs that failed in finished trials. If they fail again, they are not counted."""
    suspects: list[OpenTrial] = field(default_factory=list)
    _in_a_row: int = 0

    def is_new(self, run_id: str, state: RunState) -> bool:
        """Whether a run failed for the first time."""
        return state == RunState.FAILED and run_id not in self.before

    def count(self, run_id: str, state: RunState) -> None:
        """Count the end of a run."""
        if state == RunState.COMPLETE:
            self._in_a_row = 0
        elif self.is_new(run_id, state):
            self._in_a_row += 1

    def require_few(self, cause: str | None, log: str) -> None:
        """Raise `StudyAborted` after too many failed runs in a row; `cause` and `log` are those of the last one."""
        if self._in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise StudyAborted(
                f"{MAX_FAILURES_IN_A_ROW} runs in a row failed, the last with: {cause}",
                place=log,
                remedy="Fix the cause and run the same command again; nothing is lost.",
            )

    def release(self) -> list[OpenTrial]:
        """Return and clear the trials that were kept open; their failures are their own."""
        doubted, self.suspects = self.suspects, []
        return doubted


@dataclass(slots=True)
class OutcomeRecorder:
    """Records the outcomes of runs in the open trials, and closes the trials that they decide."""

    study: Study
    store: Store
    trials: "optuna.Study"
    """Optuna's study in the same database."""
    history: StudyHistory
    stored: StoredRuns
    failures: FailureTracker
    seed_pruner: SeedPruner
    open_trials: dict[int, OpenTrial] = field(default_factory=dict)
    """By number; the driver adds them, and closing removes them."""

    def finish_suspects(self) -> Iterator[StudyEvent]:
        """Close the trials with a failed run, after another run has completed: the failures are their own."""
        for owner in self.failures.release():
            if (outcome := owner.outcome()) is not None:
                yield self.finish_trial(owner, outcome)

    def finish_run(
        self,
        owner: OpenTrial,
        run: Run,
        state: RunState,
        *,
        cause: str | None,
        wall_s: float = 0.0,
        is_reused: bool = False,
    ) -> Iterator[StudyEvent]:
        """Add the outcome of a run to its trial, and finish the trial if it is decided."""
        recorded = self.stored.recorded(run) if state == RunState.COMPLETE and run is not owner.screening else None
        values = None if recorded is None else self.stored.values(recorded)
        self.history.runs_done += 1
        if run is owner.screening and owner.is_screened:
            cause = PASSED_PRUNER
        yield RunEnded(
            *(owner.number, run.id, run.seed, state, None if values is None else values[0], wall_s, cause),
            is_reused=is_reused,
            recorded=recorded,
            further=() if values is None else values[1:],
        )
        if values is not None:
            owner.add_values(run, values)
            if run is not owner.opening and self.stored.metric in CURVES:
                owner.report(owner.mean(), len(owner.values) * run.recipe.epochs)
            self._compare_seeds(owner, run)
        elif run is owner.screening and owner.is_screened:
            pass  # the screening is decided, however the run ended
        elif state == RunState.COMPLETE:
            lacking = self.stored.metric if recorded is None else self.stored.lacking(recorded)
            owner.failures[run.id] = f"no metric is called `{lacking}`"
        elif not owner.is_pruned:
            owner.failures[run.id] = f"{seed_text(run.seed)} {str(state).replace('_', ' ')}: {cause}"
            if state == RunState.DIVERGED:
                owner.mark_diverged()
        outcome = owner.outcome()
        if outcome is not None and not is_reused and self.failures.is_new(run.id, state):
            self.failures.suspects.append(owner)
        elif outcome is not None and owner not in self.failures.suspects:
            yield self.finish_trial(owner, outcome)

    def _compare_seeds(self, owner: OpenTrial, run: Run) -> None:
        """Give up the further seeds of a trial that is worse than the best configuration."""
        if not owner.is_judged or owner.is_pruned or not (owner.todo or owner.active):
            return
        values = {other.seed: owner.values[other.id] for other in owner.runs if other.id in owner.values}
        reason = self.seed_pruner.reason_to_give_up(values)
        if reason is not None:
            owner.give_up(run, reason)

    def finish_trial(self, owner: OpenTrial, outcome: TrialOutcome) -> TrialEnded:
        """Close a trial: store its facts as attributes, and tell the sampler its value."""
        del self.open_trials[owner.number]
        trials = self.history.configurations.get(owner.configuration)
        if trials and owner.values and configuration_status(trials).state == DIVERGED:
            owner.mark_diverged()  # its configuration has diverged with another seed
        over = owner.finish(self.trials, outcome, self.stored.facts(owner), self.study.budgets.latency_ms)
        frozen = owner.frozen()
        status = self.history.end(frozen)
        self.seed_pruner.add([frozen])
        reason = over or next(iter(owner.failures.values()), None)
        self.store.event(self.study.study, f"trial {outcome}", reason or "", trial=owner.number)
        return TrialEnded(
            owner.number,
            outcome,
            value=owner.mean() if outcome == "complete" else None,
            further=owner.means()[1:] if outcome == "complete" else (),
            spread=spread_of(owner.values.values()),
            seeds=len(owner.values),
            reason=reason,
            status=status,
            seeds_asked=len(owner.runs),
        )
