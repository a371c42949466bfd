"""The log of a search: which records of runs reached the driver together, in which order, and every start of a driver.

What a search with several workers proposes depends on the order in which results arrive, which depends on times. The
log has this order, the database has the results: `harness.search.log_replay` searches again from both. An entry is
written in the transaction of the records that it is about, so that it is there if they are. A grid has no log, because
its configurations do not depend on results.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from harness.config.space import Space
from harness.config.study import Study
from harness.errors import StudyError
from harness.search.enqueue import Enqueued
from harness.search.events import StudyEvent
from harness.search.trial import recorded_params
from harness.storage import Store
from harness.training.run import Ended, Epoch, Measured, Record, Started

Item = list[Any]
"""A record in the log: `["started", first epoch]`, `["epoch", n]`, `["measured", name]` or
`["ended", state, seconds, cause]`."""


@dataclass(slots=True)
class SearchLog:
    """Writes the entries of a driver."""

    study: Study
    _poll: int = 0
    _slots: int = 0
    _events: int = 0

    def counted(self, events: Generator[StudyEvent]) -> Generator[StudyEvent]:
        """The events of a driver, which are counted; closing this closes them."""
        with closing(events):
            for event in events:
                self._events += 1
                yield event

    def stopped(self, store: Store) -> None:
        """Write that the driver is stopped, and after how many events, before it stops its runs."""
        if is_logged(self.study):
            store.log_search(self.study.study, json.dumps({"stopped_after": self._events}))

    def polled(self, slots: int) -> None:
        """Count a poll of the executor, which has this number of slots; entries follow for what it returned."""
        self._poll += 1
        self._slots = slots

    def entry(self, records: Sequence[Record], *, is_last: bool = False) -> tuple[str, str] | None:
        """The entry about records of a run, for `Store.record`; `is_last` while the driver stops its runs."""
        if not is_logged(self.study):
            return None
        items = [item for record in records if (item := _item(record)) is not None]
        values = {"poll": self._poll, "slots": self._slots, "records": items}
        return self.study.study, json.dumps(values | ({"is_last": True} if is_last else {}), separators=(",", ":"))


def is_logged(study: Study) -> bool:
    """Whether the search has a log."""
    return study.search.sampler != "grid"


def log_start(
    store: Store, study: Study, resolved: str, enqueued: Sequence[Enqueued], *, trials: int, reopened: int
) -> None:
    """Log that a driver starts, with what `LoggedStart` has."""
    if is_logged(study):
        first = [[one.named, dict(one.candidate.params)] for one in enqueued]
        values = {"file": resolved, "enqueued": first, "trials": trials, "reopened": reopened}
        store.log_search(study.study, json.dumps(values))


def _item(record: Record) -> Item | None:
    if isinstance(record, Started):
        return ["started", record.first_epoch]
    if isinstance(record, Epoch):
        return ["epoch", record.epoch]
    if isinstance(record, Measured):
        return ["measured", record.name]
    if isinstance(record, Ended):
        return ["ended", str(record.state), record.wall_s, record.cause]
    return None


@dataclass(slots=True)
class LoggedPoll:
    """What one poll returned."""

    number: int
    slots: int
    is_last: bool
    """Whether the driver was stopping its runs."""
    records: dict[str, list[Item]] = field(default_factory=dict)
    """By run, in the order in which they were handled."""


@dataclass(slots=True)
class LoggedStart:
    """A driver's start, and what followed until its end."""

    file: str
    """The resolved study file."""
    enqueued: list[tuple[str, dict[str, Any]]]
    """Entry and choices of the configurations that were tried first."""
    trials: int
    """Number of trials that the study had."""
    reopened: int
    """Number of finished trials that had returned to the queue, because their runs were no longer as they had been."""
    polls: list[LoggedPoll] = field(default_factory=list)
    stopped_after: int | None = None
    """Number of events after which the driver was stopped; None if it came to its end, or was killed."""

    def candidates(self, space: Space) -> list[Enqueued]:
        """The configurations that were tried first."""
        return [Enqueued(named, space.sample(recorded_params(params))) for named, params in self.enqueued]


def read_log(store: Store, study: Study) -> list[LoggedStart]:
    """The log of a study, start by start. Raises `StudyError` if it does not begin with the study's first start."""
    rule = "a search is replayed from its log, which must begin with its first trial"
    if not is_logged(study):
        remedy = "A grid has none: which configurations it trains depends on no result."
        raise StudyError(rule, value=f"{study.study}, a grid", place=store.location, remedy=remedy)
    starts = list(_starts(store.search_log(study.study)))
    if not starts or starts[0].trials:
        remedy = "Studies that were begun by an earlier version have none: begin it again under another name."
        raise StudyError(rule, value=f"{study.study}, which has none", place=store.location, remedy=remedy)
    return starts


def _starts(entries: Sequence[tuple[str | None, str]]) -> Iterator[LoggedStart]:
    start: LoggedStart | None = None
    for run_id, message in entries:
        values = json.loads(message)
        if "stopped_after" in values:
            if start is not None:
                start.stopped_after = values["stopped_after"]
        elif run_id is None:
            if start is not None:
                yield start
            enqueued = [(named, params) for named, params in values["enqueued"]]
            start = LoggedStart(values["file"], enqueued, values["trials"], values["reopened"])
        elif start is not None:
            _add(start.polls, run_id, values)
    if start is not None:
        yield start


def _add(polls: list[LoggedPoll], run_id: str, values: dict[str, Any]) -> None:
    """Add an entry to the last poll, or begin another one."""
    is_last = values.get("is_last", False)
    if not polls or (polls[-1].number, polls[-1].is_last) != (values["poll"], is_last):
        polls.append(LoggedPoll(values["poll"], values["slots"], is_last))
    polls[-1].records.setdefault(run_id, []).extend(values["records"])
