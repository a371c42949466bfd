"""The search itself: ask for a configuration, have its runs trained, report, prune, tell; and take up where it stopped.

One process drives a study and is the only writer of its database. What next is Optuna's question, who trains is the
executor's; the driver knows neither torch nor Ray. Seeds are paired: every configuration is trained with the seeds
`search.seed`, `search.seed + 1`, ... When all are trained, the claims are judged, and the configurations of those that
are undecided get one seed more, as new trials of theirs, until none is left or `search.max_seeds` is spent.

The order: a grid visits every configuration with its first seed before any gets its second, so that an early look sees
the whole field; a sampler finishes a configuration first, because it learns from finished ones, and so does the median
pruner, which compares with them. Only the first seed of a configuration can be pruned; the others wait for it.
"""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError, StudyAborted
from harness.executors.base import Executor
from harness.run import Ended, Epoch, Job, Record, Run, RunState, Started
from harness.search.estimate import Estimate
from harness.search.events import (
    EpochEnded,
    Progress,
    RunEnded,
    RunQueued,
    RunStarted,
    StudyEnded,
    StudyEvent,
    StudyStarted,
    TrialEnded,
    TrialStarted,
)
from harness.search.ledger import Ledger
from harness.search.looks import Looks
from harness.search.objective import curve_value, final_value
from harness.search.proposals import Proposals
from harness.search.trial import OpenTrial, Outcome
from harness.space import Space
from harness.store import DriverLock, RunRow, Store
from harness.study import Study
from harness.study.model import CURVES

if TYPE_CHECKING:
    import optuna

ATTEMPTS = 3
"""How often one driver gives a run to a worker before a lost worker counts as the run's own failure."""
FAILURES_IN_A_ROW = 3
"""As many failed runs without a complete one between them end the study: something is wrong with it, not with them."""
ELSEWHERE_S = 5.0
"""How long to leave a run alone that another study's driver is having trained."""
STOP_S = 20.0
"""How long an interrupted driver waits for its workers to end their step."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a driver is given."""

    study: Study
    space: Space
    store: Store
    trials: "optuna.Study"
    """Optuna's study in the same database."""
    folder: Path
    """The study's folder, for logs and checkpoints."""
    start_executor: Callable[[], Executor]
    """Called when there is something to train, and only then."""


class Driver:
    """Runs one study to its end: iterate over `events()`. Closing that iterator parks what is open; nothing is lost."""

    def __init__(self, inputs: Inputs) -> None:
        self._in = inputs
        self._study = inputs.study
        self._metric, direction = next(iter(inputs.study.objectives.items()))
        self._ledger = Ledger(is_maximized=direction == "maximize")
        self._looks = Looks(inputs.study, inputs.space, inputs.store, self._ledger)
        self._proposals = Proposals(inputs.study, inputs.space, inputs.trials, self._ledger, self._looks.wanted)
        self._is_breadth_first = inputs.study.search.sampler == "grid" and inputs.study.search.pruner != "median"
        self._executor: Executor | None = None
        self._open: dict[int, OpenTrial] = {}
        self._owner: dict[str, OpenTrial] = {}
        """The trial of every run that the executor has."""
        self._attempts: dict[str, int] = {}
        self._first_epoch: dict[str, int] = {}
        """Of every run, the first epoch that is trained in its last attempt."""
        self._elsewhere: dict[str, float] = {}
        """When to look again for runs that another study's driver has."""
        self._failures_in_a_row = 0
        self._trained = 0

    def events(self) -> Generator[StudyEvent]:
        """Train until nothing is left; yields everything that happens."""
        start = time.monotonic()
        self._in.store.reap(self._study.study)
        self._proposals.take_stock(self._lost_trials())
        self._estimate = Estimate(self._in.store.wall_times(self._study.proxy), self._study.proxy.epochs)
        yield StudyStarted(self._study.study, runs_total=self._runs_total(), runs_done=self._ledger.runs_done)
        try:
            while True:
                yield from self._fill()
                if not self._open:
                    break
                if not self._owner:  # all that is left is being trained for another study
                    time.sleep(1.0)
                    continue
                for run_id, records in _by_run(self._workers().poll(timeout_s=1.0)).items():
                    yield from self._take(run_id, records)
        finally:
            self._park()
        yield StudyEnded(self._study.study, trained=self._trained, wall_s=time.monotonic() - start)

    def _lost_trials(self) -> frozenset[int]:
        """Complete trials of which the store no longer has all runs whose values they have: these are trained anew."""
        store, study = self._in.store, self._study.study
        for row in store.reopen_incomplete(study):
            store.event(study, "run reopened", f"{row.cause}", run_id=row.id)
        trials = [trial for trial in self._in.trials.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        known = store.runs(run_id for trial in trials for run_id in trial.user_attrs.get("runs", ()))
        lost = []
        for trial in trials:
            rows = [known[run_id] for run_id in trial.user_attrs.get("runs", ()) if run_id in known]
            if sum(row.state == RunState.COMPLETE for row in rows) < len(trial.user_attrs.get("values", ())):
                store.event(study, "trial lost", "the database lacks a run that it was told with", trial=trial.number)
                lost.append(trial.number)
        return frozenset(lost)

    # Handing out

    def _fill(self) -> Iterator[StudyEvent]:
        """Give every free worker a run."""
        while self._executor is None or len(self._owner) < self._executor.slots:
            ready = self._next_ready()
            is_second_seed = ready is not None and ready[1] is not ready[0].first
            if ready is None or (is_second_seed and self._is_breadth_first):
                opened = self._proposals.open(in_progress=len(self._open))
                if look := self._looks.untold():
                    yield look
                if opened is not None:
                    yield from self._begin(opened)
                    continue
            if ready is None:
                return
            yield from self._submit(*ready)

    def _next_ready(self) -> tuple[OpenTrial, Run] | None:
        """The run that waits for a worker, lowest seed first, then lowest trial."""
        now = time.monotonic()
        ready = [
            (trial, run)
            for trial in self._open.values()
            if (run := trial.ready()) is not None and self._elsewhere.get(run.id, now) <= now
        ]
        return min(ready, key=lambda pair: (pair[0].runs.index(pair[1]), pair[0].number), default=None)

    def _begin(self, opened: OpenTrial) -> Iterator[StudyEvent]:
        """Open a configuration: take what the store has of it, and queue the rest."""
        self._open[opened.number] = opened
        known = []
        for position, run in enumerate(opened.runs):
            known.append(self._in.store.ensure_run(run))
            self._in.store.link(self._study.study, opened.number, run.id, position)
            opened.todo.append(run)
        yield TrialStarted(opened.number, opened.params, opened.spec)
        for epoch in self._in.store.epochs(opened.first.id) if known[0].attempts else ():
            yield from self._judge(opened, opened.first, epoch)
        for run, row in zip(opened.runs, known, strict=True):
            yield from self._reuse(opened, run, row)

    def _reuse(self, owner: OpenTrial, run: Run, known: RunRow) -> Iterator[StudyEvent]:
        """Take a run's outcome from the store, where it has one that stands."""
        if known.state in (RunState.COMPLETE, RunState.DIVERGED) and owner.number in self._open:
            owner.todo.remove(run)
            yield from self._settle(owner, run, known.state, cause=known.cause, is_reused=True)

    def _submit(self, owner: OpenTrial, run: Run) -> Iterator[StudyEvent]:
        """Hand a run to the executor, unless another study's driver has it or has just finished it."""
        claimed = self._in.store.claim(run.id, self._study.study, self._in.folder)
        if claimed is None:
            self._elsewhere[run.id] = time.monotonic() + ELSEWHERE_S
            known = self._in.store.run(run.id)
            if known.owner is not None and known.owner != self._study.study:
                self._free_from_dead_driver(known.owner)
            yield from self._reuse(owner, run, known)
            return
        owner.todo.remove(run)
        owner.active[run.id] = run
        self._owner[run.id] = owner
        self._attempts[run.id] = self._attempts.get(run.id, 0) + 1
        grant = self._study.resources
        folder = claimed.folder or self._in.folder
        self._workers().submit(Job(run, folder, cpus=grant.cpus, gpus=grant.gpus, minutes=grant.minutes_per_run))
        yield RunQueued(owner.number, run.id, run.seed, run.spec, self._attempts[run.id])

    def _free_from_dead_driver(self, study: str) -> None:
        """Close the runs of another study whose driver is gone; its own next driver may never come."""
        try:
            with DriverLock(self._in.store, study):
                freed = self._in.store.reap(study)
        except StoreError:  # it is driven: its runs have a limit of their own
            return
        if freed:
            self._in.store.event(self._study.study, "runs freed", f"the driver of `{study}` is gone")

    def _workers(self) -> Executor:
        """The executor, started when the first run needs it."""
        if self._executor is None:
            self._executor = self._in.start_executor()
        return self._executor

    # Taking in

    def _take(self, run_id: str, records: list[Record]) -> Iterator[StudyEvent]:
        """Store the records of a run, then act on them as they were written."""
        records = self._in.store.record(run_id, records)
        owner = self._owner.get(run_id)
        if owner is None:
            return
        run = owner.active[run_id]
        for record in records:
            if isinstance(record, Started):
                self._first_epoch[run_id] = record.first_epoch
                self._estimate.started(run_id, record.first_epoch)
                for note in record.notes:
                    self._in.store.event(self._study.study, "checkpoint", note, trial=owner.number, run_id=run_id)
                yield RunStarted(owner.number, run_id, run.seed, record)
            elif isinstance(record, Epoch):
                self._estimate.advanced(run_id, record)
                if record.epoch >= self._first_epoch.get(run_id, 1):  # earlier ones come out of the checkpoint
                    yield EpochEnded(owner.number, run_id, run.seed, record, run.recipe.epochs)
                yield from self._judge(owner, run, record)
            elif isinstance(record, Ended):
                yield from self._end(owner, run, record)

    def _judge(self, owner: OpenTrial, run: Run, epoch: Epoch) -> Iterator[StudyEvent]:
        """Add an epoch of the first seed to the learning curve, and stop the run where the pruner says so."""
        value = curve_value(self._metric, epoch)
        if run is not owner.first or value is None or owner.is_pruned:
            return
        owner.report(value, epoch.epoch)
        if epoch.epoch < run.recipe.epochs and owner.trial.should_prune():
            owner.is_pruned = True
            owner.failures[run.id] = f"behind the others after epoch {epoch.epoch}"
            if run.id in owner.active:
                self._workers().stop(run.id)
            else:
                yield self._tell(owner, "pruned")

    def _end(self, owner: OpenTrial, run: Run, ended: Ended) -> Iterator[StudyEvent]:
        """A worker is through with a run: settle it, or have it trained on."""
        del owner.active[run.id], self._owner[run.id]
        self._estimate.ended(run.id, ended.wall_s if ended.state == RunState.COMPLETE else None)
        if ended.state == RunState.LOST and self._attempts[run.id] < ATTEMPTS:
            owner.todo.insert(0, run)
            self._in.store.event(self._study.study, "retry", f"{ended.cause}", trial=owner.number, run_id=run.id)
            yield RunEnded(
                owner.number, run.id, run.seed, ended.state, None, ended.wall_s, ended.cause, will_retry=True
            )
            return
        if ended.state == RunState.COMPLETE:
            self._trained += 1
            self._failures_in_a_row = 0
        yield from self._settle(owner, run, ended.state, cause=ended.cause, wall_s=ended.wall_s)
        if ended.state == RunState.FAILED:
            self._failures_in_a_row += 1
            if self._failures_in_a_row == FAILURES_IN_A_ROW:
                raise StudyAborted(
                    f"{FAILURES_IN_A_ROW} runs in a row failed, the last with: {ended.cause}",
                    place=str(self._in.folder / "logs" / f"{run.id}.log"),
                    remedy="Put the cause right and run the same command again; nothing is lost.",
                )

    def _settle(
        self,
        owner: OpenTrial,
        run: Run,
        state: RunState,
        *,
        cause: str | None,
        wall_s: float = 0.0,
        is_reused: bool = False,
    ) -> Iterator[StudyEvent]:
        """Enter the outcome of a run into its trial, and tell the trial once it is decided."""
        value = self._value(run) if state == RunState.COMPLETE else None
        self._ledger.runs_done += 1
        yield RunEnded(owner.number, run.id, run.seed, state, value, wall_s, cause, is_reused=is_reused)
        if value is not None:
            owner.values[run.id] = value
            if run is not owner.first and self._metric in CURVES:
                owner.report(owner.mean(), len(owner.values) * run.recipe.epochs)
        elif state == RunState.COMPLETE:
            owner.failures[run.id] = f"no measure is called `{self._metric}`"
        elif not owner.is_pruned:
            owner.failures[run.id] = f"{state}: {cause}"
            if state == RunState.DIVERGED:
                owner.trial.set_constraint("diverged", 1.0)
        outcome = owner.outcome()
        if outcome is not None:
            yield self._tell(owner, outcome)

    def _value(self, run: Run) -> float | None:
        """The objective of a complete run."""
        store = self._in.store
        return final_value(self._metric, run, store.epochs(run.id), store.measures(run.id))

    def _tell(self, owner: OpenTrial, outcome: Outcome) -> TrialEnded:
        """Close a trial: its facts as attributes, its value to the sampler."""
        del self._open[owner.number]
        over = owner.tell(self._in.trials, outcome, self._facts(owner), self._study.budgets.latency_ms)
        if outcome == "complete":
            self._ledger.note(
                owner.spec.fingerprint(), list(owner.values.values()), owner.number, is_feasible=over is None
            )
        self._ledger.close(owner.spec.fingerprint(), has_failed=outcome == "failed")
        reason = over or next(iter(owner.failures.values()), None)
        self._in.store.event(self._study.study, f"trial {outcome}", reason or "", trial=owner.number)
        return TrialEnded(
            owner.number,
            outcome,
            value=owner.mean() if outcome == "complete" else None,
            spread=owner.spread(),
            seeds=len(owner.values),
            reason=reason,
        )

    def _facts(self, owner: OpenTrial) -> dict[str, Any]:
        """Where and with what a trial was trained, and what was measured on its first run."""
        rows = list(self._in.store.runs(run.id for run in owner.runs).values())
        started = [row for row in rows if row.device is not None]
        return {
            "device": ", ".join(sorted({str(row.device) for row in started})),
            "versions": started[0].versions if started else {},
            "wall_s": round(sum(row.wall_s for row in rows), 1),
            **self._in.store.measures(owner.first.id),
        }

    # How far

    def progress(self) -> Progress:
        """Where the study stands now."""
        value, number = self._ledger.best or (None, None)
        total = self._runs_total()
        return Progress(
            runs_done=self._ledger.runs_done,
            runs_total=total,
            runs_active=len(self._owner),
            eta_s=self._estimate.left_s(total - self._ledger.runs_done, self._executor.slots if self._executor else 1),
            best_trial=number,
            best_value=value,
        )

    def _runs_total(self) -> int:
        """Runs done, runs of open trials, and what may still be opened."""
        open_runs = sum(len(trial.todo) + len(trial.active) for trial in self._open.values())
        return self._ledger.runs_done + open_runs + self._proposals.runs_left(in_progress=len(self._open))

    def _park(self) -> None:
        """End the workers' runs at their next step, and put the open trials back into the queue."""
        if self._executor is not None:
            try:
                self._stop_all(self._executor)
            finally:
                self._executor.shutdown()
        self._in.store.reap(self._study.study)
        self._proposals.park()

    def _stop_all(self, executor: Executor) -> None:
        """Ask all runs to end, and record what they still have to say."""
        for run_id in self._owner:
            executor.stop(run_id)
        waiting = set(self._owner)
        deadline = time.monotonic() + STOP_S
        while waiting and time.monotonic() < deadline:
            for run_id, records in _by_run(executor.poll(timeout_s=0.5)).items():
                self._in.store.record(run_id, records)
                if isinstance(records[-1], Ended):
                    waiting.discard(run_id)


def _by_run(records: list[tuple[str, Record]]) -> dict[str, list[Record]]:
    """The records of a poll, each run's together and in their order."""
    grouped: dict[str, list[Record]] = {}
    for run_id, record in records:
        grouped.setdefault(run_id, []).append(record)
    return grouped
