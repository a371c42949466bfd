"""The driver of a study: asks for a configuration, trains its runs, reports, prunes, and tells; it can be resumed.

One process drives a study and is the only writer of its database. Optuna proposes configurations, the executor trains
them; the driver uses neither torch nor Ray. Seeds are paired: every configuration is trained with the seeds
`search.seed`, `search.seed + 1`, ... When all are trained, the claims are evaluated. The configurations of undecided
claims get one more seed each, as new trials, until no claim is undecided or `search.max_seeds` is reached. With
`search.racing`, so do the configurations that may be the best, round by round (`harness.search.race`).

Order: a grid trains every configuration with its first seed before any gets its second, so that an early look covers
all configurations. A sampler finishes one configuration first, because it learns from finished ones; so does a study
with the pruners median and wilcoxon, which compare with finished ones. A pruner of epochs decides on a screening run,
whose seed is in no mean; after it passes, all seeds of the configuration are trained to the end. So no run in a mean
was selected by its own outcome. The pruner wilcoxon gives up further seeds instead (`harness.search.wilcoxon`).

A run is started only within the study's budget (`harness.search.study_budget`). When the budget allows no further run,
those that are running end. A grid closes its open trials with the seeds that they have; other open trials return to the
queue. With a larger budget, the same command trains what is missing.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.objective import compares_times, curve_value
from harness.analysis.reuse import ReuseRule, study_environment
from harness.analysis.run_times import RunTimeEstimator
from harness.config.space import Space
from harness.config.study import Study
from harness.executors.base import Executor
from harness.search.admission import Admission, is_breadth_first, unpaused
from harness.search.enqueue import Enqueued
from harness.search.events import (
    DataNoteAdded,
    EpochEnded,
    Progress,
    RunEnded,
    RunQueued,
    RunStarted,
    StudyEnded,
    StudyEvent,
    StudyStarted,
    TrialStarted,
)
from harness.search.first_rung import first_rung_of
from harness.search.history import StudyHistory
from harness.search.outcomes import PASSED_PRUNER, FailureTracker, OutcomeRecorder
from harness.search.pareto_pruner import ParetoPruner
from harness.search.promotion import PAUSED_AT_RUNG, Promoter
from harness.search.proposals import ClaimMonitor, Proposals
from harness.search.race import RaceMonitor
from harness.search.runs import Remeasurement, RunDispatcher, StoredRuns, TimeLeftEstimator
from harness.search.search_log import SearchLog
from harness.search.study_budget import BudgetKeeper
from harness.search.trial import OpenTrial
from harness.search.wilcoxon import SeedPruner
from harness.storage import RunRow, Store, reap_undriven
from harness.storage.transitions import SETTLED
from harness.training.run import DataNote, Ended, Epoch, Record, Run, RunState, Started

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

UNHARMED = (RunState.STOPPED, RunState.COMPLETE, RunState.LOST)
"""How the run of a paused trial may end, so that it can be resumed or is known to its end."""
MAX_ATTEMPTS = 3
"""Number of times that a driver submits a run before a lost worker counts as the run's own failure."""
FOREIGN_RUN_POLL_S = 5.0
"""Time between two checks of a run that the driver of another study is training."""


@dataclass(frozen=True, slots=True)
class DriverContext:
    """The inputs of a driver."""

    study: Study
    space: Space
    store: Store
    trials: "optuna.Study"
    """Optuna's study in the same database."""
    folder: Path
    """The study's folder, for logs and checkpoints."""
    start_executor: Callable[[], Executor]
    """Called only when there is something to train."""
    reuse: ReuseRule | None = None
    """How runs of another environment are used; by default, their accuracy is taken and their times are remeasured."""
    enqueued: Sequence[Enqueued] = ()
    """The configurations that the study file lists, which are tried first."""
    failed_before: frozenset[str] = frozenset()
    """Runs that failed in finished trials; see `reopen_outdated`. If they fail again, the study is not aborted."""
    sampler_of: "Callable[[int], BaseSampler] | None" = None
    """The sampler with random numbers that depend on this number of trials, for `search.deterministic`."""
    checks_limits: bool = True
    """Whether there is no race where all configurations are at chance or at the ceiling, as the stored runs have it."""


class Driver:
    """Runs a study to its end: iterate over `events()`. Closing that iterator requeues open trials; nothing is lost."""

    def __init__(self, inputs: DriverContext) -> None:
        self._context = inputs
        self._study = inputs.study
        self._curve = inputs.study.curve_objective
        """The objective whose learning curve is stored."""
        self._history = StudyHistory()
        self._reuse = inputs.reuse or ReuseRule(inputs.study, inputs.store, study_environment(inputs.study))
        self._claim_monitor = ClaimMonitor(self._reuse, inputs.space, self._history)
        self._promoter = Promoter.of(inputs.study)
        self._proposals = Proposals(
            inputs.study,
            inputs.space,
            inputs.trials,
            self._history,
            self._claim_monitor.configurations_needing_seeds,
            inputs.enqueued,
            first_rung_of(inputs.study, inputs.space.data, inputs.folder.parent / "data"),
            RaceMonitor(self._reuse, inputs.space, inputs.trials, self._history, checks_limits=inputs.checks_limits),
            self._promoter,
        )
        self._is_breadth_first = is_breadth_first(inputs.study)
        compared = [*inputs.study.objectives, *(claim.metric for claim in inputs.study.claims)]
        self._dispatch = RunDispatcher(
            inputs.study,
            inputs.folder,
            inputs.start_executor,
            shares_times=not compares_times(compared),
            resumes_any=self._reuse.mode == "any",
        )
        self._first_epoch: dict[str, int] = {}
        """The first epoch that the last attempt of each run trains."""
        self._elsewhere: dict[str, float] = {}
        """When to check again the runs that another study's driver is training."""
        self._notes: set[str] = set()
        """Notes that were emitted; all runs of a study have the same ones."""
        self._trained = 0
        self._timing = Remeasurement(inputs.study.study, inputs.store, self._reuse.environment)
        self._stored = StoredRuns(self._reuse, self._timing, tuple(inputs.study.objectives))
        self._log = SearchLog(inputs.study)
        self._failures = FailureTracker(inputs.failed_before)
        self._pareto_pruner = ParetoPruner(inputs.study) if inputs.study.has_several_objectives else None
        self._seed_pruner = SeedPruner(inputs.study.direction)
        self._outcomes = OutcomeRecorder(
            inputs.study, inputs.store, inputs.trials, self._history, self._stored, self._failures, self._seed_pruner
        )
        self._open = self._outcomes.open_trials
        self._budget = BudgetKeeper(
            inputs.study, inputs.store, lambda recipe: self._estimate.run_s(self._work_of(recipe))
        )
        self._admission = Admission(
            *(inputs.study, inputs.trials, self._proposals, self._history, self._budget, self._open),
            sampler_of=inputs.sampler_of,
        )

    def events(self) -> Generator[StudyEvent]:
        """Train until nothing is left, and yield all events."""
        yield from self._log.counted(self._events())

    def _events(self) -> Generator[StudyEvent]:
        start = time.monotonic()
        self._context.store.mark_lost_runs(self._study.study)
        self._proposals.load_history()
        earlier = self._context.trials.get_trials(deepcopy=False)
        self._seed_pruner.add(earlier)
        if self._promoter is not None:
            self._promoter.read(earlier)
        times = RunTimeEstimator(self._study, self._context.store, self._context.space, self._reuse.environment)
        self._work_of = times.work_of
        self._estimate = TimeLeftEstimator(times.seconds_per_work)
        self._budget.read()
        if self._budget.is_limited:
            self._proposals.take_stored_first(self._budget.settled)
        yield StudyStarted(self._study.study, runs_total=self._runs_total(), runs_done=self._history.runs_done)
        try:
            while True:
                yield from self._fill()
                if len(self._open) == len(self._failures.suspects):
                    if not self._open:
                        break
                    yield from self._outcomes.finish_suspects()
                    continue
                if not self._dispatch.owners:
                    if paused := self._paused_at_end():
                        yield from self._end_pauses(paused)
                        continue
                    if self._has_only_unaffordable():
                        yield from self._outcomes.finish_suspects()
                        yield from self._close_partial()
                        break
                    time.sleep(1.0)  # all remaining runs are being trained for another study
                    continue
                arrived = self._dispatch.poll()
                self._log.polled(self._dispatch.slots)
                for run_id, records in arrived.items():
                    yield from self._handle_records(run_id, records)
            self._admission.runs_planned_at_end = max(
                self._admission.runs_planned_at_end, self._admission.runs_planned()
            )
        except BaseException:
            self._log.stopped(self._context.store)
            raise
        finally:
            self._requeue()
        reasons = self._admission.reasons_ended()
        for kind, text in reasons:
            self._context.store.event(self._study.study, kind, text)
        reason = "; ".join(text for _, text in reasons) or None
        yield StudyEnded(self._study.study, trained=self._trained, wall_s=time.monotonic() - start, reason=reason)

    # Submission of runs

    def _fill(self) -> Iterator[StudyEvent]:
        """Submit a run for every free worker."""
        while self._dispatch.has_room:
            ready = self._next_ready()
            if ready is None and (promoted := self._next_promotion()) is not None:
                yield from self._promote(promoted)
                continue
            is_later = ready is not None and ready[1] is not ready[0].opening
            if ready is None or (is_later and self._is_breadth_first):
                opened = self._admission.open_next()
                if look := self._claim_monitor.pending_event():
                    yield look
                if opened is not None:
                    yield from self._begin(opened)
                    continue
            if ready is None:
                return
            yield from self._submit(*ready)

    def _has_only_unaffordable(self) -> bool:
        """Whether the budget allows none of the runs that open trials have yet to train."""
        ready = [run for trial in self._open.values() if (run := trial.ready()) is not None]
        return self._budget.is_limited and bool(ready) and not any(run.id in self._elsewhere for run in ready)

    def _close_partial(self) -> Iterator[StudyEvent]:
        """Close the open trials of a grid with the seeds that they have; the others can be trained later."""
        self._admission.is_out_of_budget = True
        self._admission.runs_planned_at_end = self._admission.runs_planned()
        for trial in [trial for trial in self._open.values() if trial.values and self._is_breadth_first]:
            untrained = trial.give_back_seeds()
            self._context.store.unlink_runs(self._study.study, trial.number, (run.id for run in untrained))
            self._history.give_back_seeds(trial.configuration, (run.seed for run in untrained))
            yield self._outcomes.finish_trial(trial, "complete")

    def _next_ready(self) -> tuple[OpenTrial, Run] | None:
        """The next run to train: lowest seed first, then lowest trial; of those that the budget allows."""
        now = time.monotonic()
        ready = [
            (trial, run)
            for trial in self._open.values()
            if (run := trial.ready()) is not None and self._elsewhere.get(run.id, now) <= now
        ]
        if self._budget.is_limited:
            costs = {cost.run_id: cost for cost in self._budget.costs_of(run for _, run in ready)}
            ready = [
                (trial, run)
                for trial, run in ready
                if run.id in self._elsewhere or run.id not in costs or self._budget.allows([costs[run.id]])
            ]
        return min(ready, key=lambda pair: (pair[0].all_runs.index(pair[1]), pair[0].number), default=None)

    def _begin(self, opened: OpenTrial) -> Iterator[StudyEvent]:
        """Open a configuration: take its finished runs from the store, and queue the others."""
        self._open[opened.number] = opened
        rows = []
        for run in opened.all_runs:
            rows.append(self._stored.ensure(run))
            position = len(opened.runs) if run is opened.screening else opened.runs.index(run)
            self._context.store.link(self._study.study, opened.number, run.id, position)
            opened.todo.append(run)
        is_repeat = opened.first.seed != self._study.search.seed
        yield TrialStarted(
            opened.number, opened.params, opened.spec, is_repeat=is_repeat, configuration=opened.configuration
        )
        for epoch in self._context.store.epochs(opened.opening.id) if rows[0].attempts else ():
            yield from self._report_epoch(opened, opened.opening, epoch)
        screening = opened.screening
        if screening is not None and opened.is_screened:
            opened.todo.remove(screening)
            yield from self._outcomes.finish_run(
                opened, screening, RunState.STOPPED, cause=PASSED_PRUNER, is_reused=True
            )
        for run, row in zip(opened.all_runs, rows, strict=True):
            if run in opened.todo and not (opened.is_paused and run is screening) and not self._stored.is_to_time(row):
                yield from self._take_stored(opened, run, row)

    def _take_stored(self, owner: OpenTrial, run: Run, row: RunRow) -> Iterator[StudyEvent]:
        """Take a run's outcome from the store, if it has a final one."""
        if row.state in SETTLED and owner.number in self._open:
            owner.todo.remove(run)
            yield from self._finish_run(owner, run, row.state, row.cause, is_reused=True)

    def _submit(self, owner: OpenTrial, run: Run) -> Iterator[StudyEvent]:
        """Submit a run, unless another study's driver is training it or has just finished it."""
        costs = self._budget.costs_of([run]) if self._budget.is_limited else []
        if not self._budget.allows(costs):  # it waits for the driver of another study
            yield from self._wait_for_other(owner, run)
            return
        claimed = self._context.store.claim(run.id, self._study.study, self._context.folder)
        if claimed is None:
            row = self._context.store.run(run.id)
            if self._stored.is_to_time(row):
                self._timing.begin(row)
                attempt = self._dispatch.submit(owner, run, row.folder, only_times=True)
                yield RunQueued(owner.number, run.id, run.seed, run.spec, attempt, only_times=True)
                return
            yield from self._wait_for_other(owner, run)
            return
        for cost in costs:
            self._budget.submitted(cost)
        attempt = self._dispatch.submit(owner, run, claimed.folder)
        yield RunQueued(owner.number, run.id, run.seed, run.spec, attempt)

    def _wait_for_other(self, owner: OpenTrial, run: Run) -> Iterator[StudyEvent]:
        """Check a run that another study's driver trains: take it if it is finished, and free it if its driver died."""
        row = self._context.store.run(run.id)
        self._elsewhere[run.id] = time.monotonic() + FOREIGN_RUN_POLL_S
        if row.owner not in (None, self._study.study) and reap_undriven(self._context.store, row.owner):
            self._context.store.event(self._study.study, "runs freed", f"the driver of `{row.owner}` is gone")
        if row.owner in (None, self._study.study) and row.state not in SETTLED and self._budget.is_limited:
            del self._elsewhere[run.id]
        yield from self._take_stored(owner, run, row)

    # Records of runs

    def _handle_records(self, run_id: str, records: list[Record]) -> Iterator[StudyEvent]:
        """Store the records of a run, then process them as they were written."""
        if self._timing.is_under_way(run_id):
            yield from self._handle_times(run_id, records)
            return
        records = self._context.store.record(run_id, records, self._log.entry(records))
        owner = self._dispatch.owners.get(run_id)
        if owner is None:
            return
        run = owner.active[run_id]
        for record in records:
            self._budget.count(run_id, record)
            if isinstance(record, Started):
                self._stored.run_ids.add(run_id)
                self._first_epoch[run_id] = record.first_epoch
                work = self._work_of(run.recipe)
                self._estimate.started(run_id, record.first_epoch, epochs=run.recipe.epochs, work=work)
                if owner.rungs_passed and run is owner.screening and record.first_epoch == 1:
                    note = "promoted without a checkpoint, so it is trained again from its first epoch"
                    self._context.store.event(self._study.study, "checkpoint", note, trial=owner.number, run_id=run_id)
                for note in record.notes:
                    self._context.store.event(self._study.study, "checkpoint", note, trial=owner.number, run_id=run_id)
                yield RunStarted(owner.number, run_id, run.seed, record)
            elif isinstance(record, DataNote) and record.text not in self._notes:
                self._notes.add(record.text)
                yield DataNoteAdded(owner.number, run_id, run.seed, record.text)
            elif isinstance(record, Epoch):
                self._estimate.advanced(run_id, record)
                if record.epoch >= self._first_epoch.get(run_id, 1):  # earlier ones come from the checkpoint
                    yield EpochEnded(owner.number, run_id, run.seed, record, run.recipe.epochs)
                yield from self._report_epoch(owner, run, record)
            elif isinstance(record, Ended):
                yield from self._end(owner, run, record)

    def _handle_times(self, run_id: str, records: list[Record]) -> Iterator[StudyEvent]:
        """Handle the remeasured times of a stored run; after the last record, take its outcome from the store."""
        if not self._timing.add_records(run_id, records):
            return
        owner, run = self._dispatch.withdraw(run_id)
        owner.todo.insert(0, run)
        yield from self._take_stored(owner, run, self._context.store.run(run_id))

    def _report_epoch(self, owner: OpenTrial, run: Run, epoch: Epoch) -> Iterator[StudyEvent]:
        """Report an epoch of the opening run to Optuna, and end a screening run that is pruned or has passed."""
        value = curve_value(self._curve, epoch)
        is_decided = owner.is_pruned or owner.is_paused or owner.is_screened
        if run is not owner.opening or value is None or is_decided or owner.is_raced:
            return  # a pruner must not compare with curves that were selected by their results
        reason = None
        if run is owner.screening and self._pareto_pruner is not None:
            reason = self._pareto_pruner.reason_to_stop(owner, epoch)  # before the epoch counts as decided
        owner.report(value, epoch.epoch)
        if run is not owner.screening:
            return
        if self._pareto_pruner is None and self._promoter is None and owner.trial.should_prune():
            reason = f"behind the others after epoch {epoch.epoch}"
        if self._promoter is not None:
            if not self._promoter.pause_at(owner, epoch.epoch, value):
                return
        elif reason is not None:
            owner.is_pruned = True
            owner.failures[run.id] = reason
        elif epoch.epoch >= owner.screening_epochs:
            owner.is_screened = True
        else:
            return
        if run.id in owner.active:
            self._dispatch.stop(run.id)
        elif owner.is_pruned:
            yield self._outcomes.finish_trial(owner, "pruned")

    def _end(self, owner: OpenTrial, run: Run, ended: Ended) -> Iterator[StudyEvent]:
        """Handle the end of a run: finish it, or submit it again if its worker was lost."""
        self._dispatch.withdraw(run.id)
        if owner.is_paused and run is owner.screening and ended.state in UNHARMED:
            yield self._put_back(owner, run, ended)
            return
        self._estimate.ended(run.id, ended.wall_s if ended.state == RunState.COMPLETE else None)
        if ended.state == RunState.LOST and self._dispatch.attempts[run.id] < MAX_ATTEMPTS:
            owner.todo.insert(0, run)
            self._context.store.event(self._study.study, "retry", f"{ended.cause}", trial=owner.number, run_id=run.id)
            yield RunEnded(
                owner.number, run.id, run.seed, ended.state, None, ended.wall_s, ended.cause, will_retry=True
            )
            return
        if ended.state == RunState.COMPLETE:
            self._trained += 1
        self._failures.count(run.id, ended.state)
        yield from self._finish_run(owner, run, ended.state, ended.cause, wall_s=ended.wall_s)
        if ended.state == RunState.COMPLETE:
            yield from self._outcomes.finish_suspects()
        self._failures.require_few(ended.cause, str(self._context.folder / "logs" / f"{run.id}.log"))

    def _finish_run(
        self,
        owner: OpenTrial,
        run: Run,
        state: RunState,
        cause: str | None,
        *,
        wall_s: float = 0.0,
        is_reused: bool = False,
    ) -> Iterator[StudyEvent]:
        """Record the outcome of a run, and stop the other runs of its trial if their seeds are given up."""
        was_pruned = owner.is_pruned
        yield from self._outcomes.finish_run(owner, run, state, cause=cause, wall_s=wall_s, is_reused=is_reused)
        if owner.is_pruned and not was_pruned:
            for run_id in owner.active:
                self._dispatch.stop(run_id)

    # Pausing and promoting screening runs

    def _next_promotion(self) -> OpenTrial | None:
        """The trial to promote next, once all trials of an earlier call are open again."""
        if self._promoter is None or self._proposals.has_parked:
            return None
        return self._promoter.next(self._open.values())

    def _promote(self, owner: OpenTrial) -> Iterator[StudyEvent]:
        """Let a paused trial continue; epochs that its run had trained beyond the rung count for the next one."""
        assert self._promoter is not None and owner.screening is not None
        self._promoter.promote(owner)
        if owner.is_screened:
            owner.todo.remove(owner.screening)
            yield from self._finish_run(owner, owner.screening, RunState.STOPPED, PASSED_PRUNER, is_reused=True)
            return
        for epoch in self._context.store.epochs(owner.screening.id):
            yield from self._report_epoch(owner, owner.screening, epoch)

    def _put_back(self, owner: OpenTrial, run: Run, ended: Ended) -> StudyEvent:
        """Keep the run of a paused trial, which resumes from its checkpoint if the trial is promoted."""
        self._estimate.ended(run.id, None)
        self._dispatch.attempts.pop(run.id)
        owner.todo.insert(0, run)
        return RunEnded(owner.number, run.id, run.seed, RunState.STOPPED, None, ended.wall_s, PAUSED_AT_RUNG)

    def _paused_at_end(self) -> list[OpenTrial]:
        """The paused trials, if nothing can be trained any more, so that no further result can promote one."""
        is_waiting = any(run.id in self._elsewhere for trial in unpaused(self._open.values()) for run in trial.todo)
        return [] if is_waiting else [trial for trial in self._open.values() if trial.is_paused]

    def _end_pauses(self, paused: Sequence[OpenTrial]) -> Iterator[StudyEvent]:
        """Promote the best of a rung, or end all paused trials as pruned if the best are promoted."""
        assert self._promoter is not None
        if (promoted := self._promoter.next(paused, is_end=True)) is not None:
            yield from self._promote(promoted)
            return
        for owner in paused:
            assert owner.screening is not None
            owner.is_paused, owner.is_pruned = False, True
            owner.failures[owner.screening.id] = self._promoter.reason(owner)
            self._history.runs_done += 1
            yield self._outcomes.finish_trial(owner, "pruned")

    # Progress

    def progress(self) -> Progress:
        """The current progress of the study."""
        total, planned = self._runs_total(), self._admission.runs_planned()
        done = self._history.runs_done
        share = (total - done) / (planned - done) if planned > done else 1.0
        return Progress(
            runs_done=done,
            runs_total=total,
            eta_s=self._estimate.left_s(share * self._work_left(), self._dispatch.slots),
        )

    def _runs_total(self) -> int:
        """Number of finished runs, and of those that may still be trained, as far as the budget allows them."""
        planned, left = self._admission.runs_planned(), self._budget.runs_left()
        return planned if left is None else min(planned, self._history.runs_done + len(self._dispatch.owners) + left)

    def _work_left(self) -> float:
        """The work of the runs of open trials, and of trials that may still be opened, in runs of the study's proxy."""
        open_runs = [run for trial in unpaused(self._open.values()) for run in (*trial.todo, *trial.active.values())]
        left = self._proposals.work_left(self._work_of, in_progress=len(self._open))
        return sum(self._work_of(run.recipe) for run in open_runs) + left

    def _requeue(self) -> None:
        """Stop all runs at their next step, and put the open trials back into the queue."""
        self._dispatch.shut_down(self._keep)
        self._context.store.mark_lost_runs(self._study.study)
        self._proposals.requeue()

    def _keep(self, run_id: str, records: list[Record]) -> None:
        """Store the records that a run still yields while it is stopped."""
        if not self._timing.is_under_way(run_id):
            self._context.store.record(run_id, records, self._log.entry(records, is_last=True))
