"""Searches again from a search's log: the same driver on an empty database, with the recorded results in their order.

If the code, Optuna and the study file are those of the search, then every proposal, every decision of a pruner, every
seed and every value is the recorded one; the comparison finds the first that is not. Nothing is trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness.analysis.study_reader import open_space
from harness.config.study import Study
from harness.config.study_file import StudyFile, load_study
from harness.errors import StoreError, StudyAborted
from harness.search.search_log import Item, LoggedStart, read_log
from harness.search.session import open_for_driving
from harness.storage import RunRow, Store
from harness.storage.transitions import SETTLED
from harness.storage.workspace import Workspace
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STORED = "of other studies"
"""Name under which runs are written that the search took from the database."""


class LogEnded(Exception):
    """The log has nothing more of this start of the driver: it was stopped, or it now asks for more than it did."""


@dataclass(frozen=True, slots=True)
class ReplayedSearch:
    """Result of `replay_search`."""

    study: str
    starts: int
    records: int
    """Number of records of runs that were replayed."""
    trials: int
    """Number of trials of the study, rejected proposals included."""
    difference: str | None
    """The first difference between the study and its replay; None if they are equal."""
    code_changed: bool
    """Whether runs of the study were computed by other code or libraries than those that replay it."""

    def values(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def replay_search(file: StudyFile, store: Store, trials: "Sequence[FrozenTrial]", results: Path) -> ReplayedSearch:
    """Search again as the log of the study has it, and compare; `results` is the study's results folder.

    Raises `StudyError` if the study has no log from its first trial on.
    """
    study = file.study
    starts = read_log(store, study)
    recorded = RecordedRuns(store, study.study)
    difference = _reopened(starts)
    replayed: list[FrozenTrial] = []
    if difference is None:
        with TemporaryDirectory() as folder:
            replayed, difference = _search_again(starts, recorded, study, Path(folder), results)
    return ReplayedSearch(
        study.study,
        starts=len(starts),
        records=sum(len(items) for start in starts for poll in start.polls for items in poll.records.values()),
        trials=len(trials),
        difference=first_difference(trials, replayed) if difference is None else difference,
        code_changed=recorded.is_of_other_code(study),
    )


def _reopened(starts: Sequence[LoggedStart]) -> str | None:
    for number, start in enumerate(starts, start=1):
        if start.reopened:
            returned = f"start {number} returned {start.reopened} finished trials to the queue"
            return f"{returned}, because their runs had changed; the results that they had are no longer there"
    return None


def _search_again(
    starts: Sequence[LoggedStart], recorded: "RecordedRuns", study: Study, folder: Path, results: Path
) -> "tuple[list[FrozenTrial], str | None]":
    """The trials of the replayed study, and what it did that was not recorded."""
    workspace = Workspace(folder / "results")
    plugins = results / study.study
    if plugins.is_dir():
        copytree(plugins, folder, dirs_exist_ok=True, ignore=ignore_patterns("checkpoints", "logs", "*.json", "*.yaml"))
    logged = {run_id for start in starts for poll in start.polls for run_id in poll.records}
    with Store.open(workspace.database) as target:
        recorded.write_stored(target, logged, folder)
    trials: list[FrozenTrial] = []
    for number, start in enumerate(starts, start=1):
        path = folder / f"{study.study}.yaml"
        path.write_text(start.file, encoding="utf-8")
        runs = LoggedRuns(start, recorded)
        trials = _drive(load_study(path), start, runs, workspace, results / "data")
        if runs.unexpected is not None:
            return trials, f"start {number}: {runs.unexpected}"
    return trials, None


def _drive(
    file: StudyFile, start: LoggedStart, runs: "LoggedRuns", workspace: Workspace, data: Path
) -> "list[FrozenTrial]":
    """Drive the study as one start of its driver did; returns its trials."""
    space = open_space(file, data)
    with open_for_driving(file, space, workspace, lambda: runs, enqueued=start.candidates(space)) as driven:
        try:
            with closing(driven.driver.events()) as events:
                for count, _ in enumerate(events, start=1):
                    if count == start.stopped_after:
                        runs.is_ending = True
                        break
        except (LogEnded, StudyAborted):
            pass  # the driver was stopped or aborted; if it was not, the trials differ
        except StoreError as error:
            runs.unexpected = runs.unexpected or str(error)
        return driven.trials()


class RecordedRuns:
    """The runs of a study, as a database has them."""

    def __init__(self, store: Store, study: str) -> None:
        ids = {run_id for runs in store.trial_runs(study).values() for run_id in runs}
        self.rows: Mapping[str, RunRow] = store.runs(ids)
        self._epochs = store.epochs_of_runs(ids)
        self._metrics = store.metrics_of_runs(ids)

    def record(self, run_id: str, item: Item) -> Record | None:
        """A record of the log with its values; None if they are no longer there."""
        row = self.rows.get(run_id)
        kind, *values = item
        if row is None:
            return None
        if kind == "started":
            return _started(row, first_epoch=values[0])
        if kind == "epoch":
            return next((epoch for epoch in self._epochs.get(run_id, ()) if epoch.epoch == values[0]), None)
        if kind == "measured":
            value = self._metrics.get(run_id, {}).get(values[0])
            return None if value is None else Measured(values[0], value)
        state, wall_s, cause = values
        return Ended(RunState(state), wall_s, cause)

    def write_stored(self, target: Store, logged: set[str], folder: Path) -> None:
        """Write the runs that the search did not train, since it took them from the database, as if of `folder`."""
        for run_id, row in self.rows.items():
            if run_id in logged or row.state not in SETTLED:
                continue
            target.ensure_run(row.run)
            target.claim(run_id, STORED, folder)
            measured = [Measured(name, value) for name, value in self._metrics.get(run_id, {}).items()]
            ended = Ended(row.state, row.wall_s, row.cause)
            target.record(run_id, [_started(row), *self._epochs.get(run_id, ()), *measured, ended])

    def is_of_other_code(self, study: Study) -> bool:
        """Whether a run of the study was computed in another environment than this one."""
        from harness.analysis.reuse import study_environment

        here = study_environment(study)
        return any(not row.is_of(here) for row in self.rows.values() if row.state in SETTLED)


def _started(row: RunRow, first_epoch: int = 1) -> Started:
    place = row.host or "", row.pid or 0, row.device or "", row.threads or 1
    return Started(
        *place, row.versions, row.run.recipe.epochs, first_epoch, environment=row.environment, earlier=row.earlier
    )


class LoggedRuns:
    """An executor whose runs yield what they yielded in one start of a driver, in the order of its log."""

    def __init__(self, start: LoggedStart, recorded: RecordedRuns) -> None:
        self._polls = list(start.polls)
        self._recorded = recorded
        self._jobs: dict[str, Job] = {}
        self.is_ending = False
        """Whether the driver is stopped, so that the runs end."""
        self.slots = self._polls[0].slots if self._polls else 1
        """Number of runs that were trained at a time when the next records arrived."""
        self.unexpected: str | None = None
        """What the driver did that it had not done then."""

    def submit(self, job: Job) -> None:
        """See `Executor`, as for all methods of this class."""
        self._jobs[job.run.id] = job

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:  # noqa: ARG002
        """The records that arrived next. Raises `LogEnded` if none did, or if the driver was stopped before them."""
        if self.unexpected is not None or not self._polls or (self._polls[0].is_last and not self.is_ending):
            self.is_ending = True
            raise LogEnded
        poll = self._polls.pop(0)
        self.slots = self._polls[0].slots if self._polls else poll.slots
        return [
            (run_id, record)
            for run_id, items in poll.records.items()
            for item in items
            if (record := self._record(run_id, item)) is not None
        ]

    def stop(self, run_id: str) -> None:
        """The log has the end of the run."""

    def shutdown(self) -> None:
        """Nothing runs."""

    def _record(self, run_id: str, item: Item) -> Record | None:
        if run_id not in self._jobs:
            self.unexpected = self.unexpected or f"run {run_id} was trained, which the replay does not start"
            return None
        record = self._recorded.record(run_id, item)
        if record is None:
            self.unexpected = self.unexpected or f"run {run_id} is no longer in the database as it was: {item[:2]}"
        if isinstance(record, Epoch):  # what a resumed run would cost depends on whether it has a checkpoint
            checkpoint = self._jobs[run_id].checkpoint
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.touch()
        return record


def first_difference(recorded: "Sequence[FrozenTrial]", replayed: "Sequence[FrozenTrial]") -> str | None:
    """The first difference of two lists of trials, as text; None if they are equal."""
    for theirs, ours in zip(recorded, replayed, strict=False):
        for name, was, now in _fields(theirs, ours):
            if was != now:
                return f"trial {theirs.number}, {name}: recorded {was}, replayed {now}"
    if len(recorded) != len(replayed):
        return f"{len(recorded)} trials are recorded, {len(replayed)} were replayed"
    return None


def _fields(theirs: "FrozenTrial", ours: "FrozenTrial") -> Iterator[tuple[str, Any, Any]]:
    """What must be equal, by name."""
    for name in ("params", "state", "values", "intermediate_values"):
        was, now = getattr(theirs, name), getattr(ours, name)
        yield name, getattr(was, "name", was), getattr(now, "name", now)
    for key in sorted(theirs.user_attrs.keys() | ours.user_attrs.keys()):
        yield key, theirs.user_attrs.get(key), ours.user_attrs.get(key)
