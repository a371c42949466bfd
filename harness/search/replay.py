"""The parts of a study that is replayed: a store in memory, an Optuna study in memory, and runs with recorded curves.

The driver, samplers, pruners and proposals are those of a study that is trained.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.curve_table import CurveTable
from harness.config.space import Candidate, Space
from harness.config.study import Study
from harness.search.samplers import SCREENING_SEEDS
from harness.storage import EventRow, RunRow, Store
from harness.storage.attempts import Attempt
from harness.training.environment import Environment
from harness.training.run import Ended, Epoch, Job, Record, Run, RunState, Started

if TYPE_CHECKING:
    import optuna

THEN = datetime(2000, 1, 1, tzinfo=UTC)
"""The time of all rows: a simulation has no date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSpace(Space):
    """A search space that builds each of its configurations once."""

    _candidates: dict[tuple[Any, ...], Candidate] = field(default_factory=dict, init=False, repr=False, compare=False)

    __hash__ = Space.__hash__

    @classmethod
    def of(cls, space: Space) -> "CachedSpace":
        """The same space."""
        return cls(**{each.name: getattr(space, each.name) for each in fields(space) if each.init})

    def candidate(self, params: dict[str, Any]) -> Candidate:
        """As in `Space`; the same value for the same choices."""
        key = tuple((name, type(value), value) for name, value in params.items())
        if key not in self._candidates:
            self._candidates[key] = Space.candidate(self, params)
        return self._candidates[key]


class MemoryStore(Store):
    """What a driver needs of a store, in memory, for one study that no other driver shares runs with."""

    def __init__(self) -> None:
        self._rows: dict[str, RunRow] = {}
        self._curves: dict[str, list[Epoch]] = {}

    def mark_lost_runs(self, study: str) -> list[RunRow]:  # noqa: ARG002
        """No driver can have died."""
        return []

    def ensure_run(self, run: Run) -> RunRow:
        """See `Store`, as for all methods of this class."""
        if run.id not in self._rows:
            self._rows[run.id] = RunRow(
                *(run.id, run, RunState.QUEUED, None, 0, None, None, THEN, None, None, 0.0, None, None, None, None, {})
            )
        return self._rows[run.id]

    def claim(self, run_id: str, study: str, folder: Path) -> RunRow | None:  # noqa: ARG002, D102
        return self._rows[run_id]

    def record(  # noqa: D102
        self,
        run_id: str,
        records: Sequence[Record],
        log: tuple[str, str] | None = None,  # noqa: ARG002
    ) -> list[Record]:
        for record in records:
            row = self._rows[run_id]
            if isinstance(record, Started):
                self._rows[run_id] = replace(row, state=RunState.RUNNING, attempts=row.attempts + 1)
                kept = self._curves.get(run_id, ())
                self._curves[run_id] = [epoch for epoch in kept if epoch.epoch < record.first_epoch]
            elif isinstance(record, Epoch):
                self._curves[run_id].append(record)
            elif isinstance(record, Ended):
                self._rows[run_id] = replace(row, state=record.state, wall_s=row.wall_s + record.wall_s)
        return list(records)

    def run(self, run_id: str) -> RunRow:  # noqa: D102
        return self._rows[run_id]

    def runs(self, run_ids: Iterable[str]) -> dict[str, RunRow]:  # noqa: D102
        return {run_id: self._rows[run_id] for run_id in run_ids if run_id in self._rows}

    def epochs(self, run_id: str) -> list[Epoch]:  # noqa: D102
        return self._curves.get(run_id, [])

    def metrics(self, run_id: str) -> dict[str, float]:  # noqa: ARG002
        """A table has no metrics but the curves."""
        return {}

    def wall_times(self, *_: object, **__: object) -> list[float]:
        """Nothing was trained before."""
        return []

    def link(self, study: str, trial: int, run_id: str, position: int) -> None:
        """Not read during a search."""

    def event(
        self, study: str, kind: str, message: str, *, trial: int | None = None, run_id: str | None = None
    ) -> None:
        """Not read during a search without claims."""

    def log_search(self, study: str, entry: str) -> None:
        """A simulation is not replayed."""

    def attempts(self, study: str) -> list[Attempt]:  # noqa: ARG002
        """Nothing was trained before the driver read this, so nothing of a budget is spent."""
        return []

    def trial_runs(self, study: str) -> dict[int, list[str]]:  # noqa: ARG002, D102
        return {}

    def runs_with_attempts(self, run_ids: Iterable[str]) -> set[str]:  # noqa: ARG002, D102
        return set()

    def epochs_of_runs(self, run_ids: Iterable[str]) -> dict[str, list[Epoch]]:  # noqa: ARG002, D102
        return {}

    def events(self, study: str, limit: int = 100) -> list[EventRow]:  # noqa: ARG002, D102
        return []


def memory_trials(study: Study) -> "optuna.Study":
    """An Optuna study in memory."""
    import optuna

    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return optuna.create_study(study_name=study.study, directions=list(study.objectives.values()))
    finally:
        logger.setLevel(level)


@dataclass(slots=True)
class ReplayedRuns:
    """The script of one simulated study: each run yields a recorded curve of its configuration.

    Equal seeds of two configurations replay equal seeds of the table, as in a study; `order` decides which. Seeds that
    the table does not have replay its seeds again, from the first one on.
    """

    records: "RecordedCurves"
    order: Sequence[int]
    """Positions of the table's seeds in the order in which the study trains them; others are held out."""
    screening: int
    """Position of the seed of screening runs."""
    first_seed: int
    repeated: int = 0
    """Number of runs that replayed a curve that the study had already seen."""
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def __call__(self, job: Job) -> Iterator[Record]:
        """The records of a run."""
        network = self.records.network_of(job.run)
        seed = self._seed_of(job.run)
        self.repeated += (network, seed) in self._seen
        self._seen.add((network, seed))
        return self.records.replay(network, seed)

    def _seed_of(self, run: Run) -> int:
        if run.seed >= SCREENING_SEEDS:
            return self.screening
        return self.order[(run.seed - self.first_seed) % len(self.order)]


class RecordedCurves:
    """A table as records of runs, for the configurations of a space."""

    def __init__(self, table: CurveTable, space: Space) -> None:
        positions = {entry.fingerprint: i for i, entry in enumerate(table.configurations)}
        cells = [cell for cell in space.grid() if cell.is_feasible]
        self.networks = {cell.fingerprint: positions[cell.fingerprint] for cell in cells}
        """The position in the table of every configuration of the space, by its fingerprint."""
        self.macs = {cell.fingerprint: cell.cost.macs for cell in cells if cell.cost is not None}
        """The MACs of every configuration, by its fingerprint."""
        self._by_run = {cell.identity: positions[cell.fingerprint] for cell in cells}
        top1, val_loss, seconds = (table.curves(name).tolist() for name in ("top1", "val_loss", "seconds"))
        self._epochs = [
            [
                [
                    Epoch(i + 1, train_loss=loss, val_loss=loss, top1=accuracy, lr=0.0, wall_s=wall_s, images_per_s=0.0)
                    for i, (accuracy, loss, wall_s) in enumerate(zip(*curves, strict=True))
                ]
                for curves in zip(*network, strict=True)
            ]
            for network in zip(top1, val_loss, seconds, strict=True)
        ]
        self._started = Started("replay", 0, "replay", 1, {}, epochs=table.epochs, environment=Environment())

    def network_of(self, run: Run) -> int:
        """The position in the table of the configuration of a run."""
        return self._by_run[run.configuration]

    def replay(self, network: int, seed: int) -> Iterator[Record]:
        """The records of a run of the network with the table's seed at this position."""
        epochs = self._epochs[network][seed]
        yield self._started
        yield from epochs
        yield Ended(RunState.COMPLETE, wall_s=sum(epoch.wall_s for epoch in epochs))
