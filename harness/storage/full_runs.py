"""The trainings at full scale that a database knows, each with what was seen in every epoch."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from harness.models.spec.network import NetworkSpec
from harness.storage.rows import environments_of, spec_values, stored_environments
from harness.storage.store import Store
from harness.storage.tables import FullScaleMetricTable, FullScaleRunTable
from harness.training.environment import Environment
from harness.training.run import RunState

EpochMetrics = Mapping[int, Mapping[str, float]]
"""By epoch and name."""


@dataclass(frozen=True, slots=True)
class FullScaleRow:
    """A training at full scale, and how it stands."""

    id: str
    """Of network, recipe, weights and data together; see `harness.cli.full_scale.full_scale_row`."""
    name: str
    """What the command line made of it: a study's, a preset's, that of a file."""
    spec: NetworkSpec
    recipe: Mapping[str, Any]
    """Plain values, defaults included."""
    recipe_name: str
    recipe_fingerprint: str
    folder: Path
    """Where its weights are."""
    epochs: int
    """How many there are to be."""
    state: RunState = RunState.RUNNING
    cause: str | None = None
    """Why it ended early."""
    study: str | None = None
    """Whose choices it has; None for a network that no study found."""
    trial: int | None = None
    weights: str | None = None
    """Digest of the file of weights that it started from."""
    host: str | None = None
    device: str | None = None
    threads: int | None = None
    versions: Mapping[str, str] | None = None
    environment: Environment | None = None
    """What computes it now; None for a training that was recorded before environments were."""
    earlier: tuple[Environment | None, ...] = ()
    """What computed its first epochs, where it was resumed in another environment."""
    epochs_done: int = 0
    metric: str = "top1"
    """The figure by which an epoch is the best."""
    best: float | None = None
    best_epoch: int | None = None
    created: datetime | None = None
    """None before it is written, as `updated`."""
    updated: datetime | None = None


COPIED_FIELDS = (
    *("name", "study", "trial", "recipe_name", "recipe_fingerprint", "weights", "state", "cause"),
    *("host", "device", "threads", "epochs", "epochs_done", "metric", "best", "best_epoch"),
)
"""Columns that are fields of a row as they are."""


class FullScaleRuns:
    """The table of such trainings in a store that is open; every call is one transaction. Raises `StoreError`s."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, row: FullScaleRow, metrics: EpochMetrics, *, is_whole: bool) -> None:
        """Write a training's row, in place of what is known of it, and what was seen in its last epoch.

        With `is_whole`, and where the row is new, all epochs are written, and others forgotten. A folder of this
        machine has one training: the row takes the place of others of its folder, which were trained on other data, or
        recorded by a version whose ids left the data out.
        """
        now = datetime.now(UTC)
        with self._store.session() as session:
            found = session.get(FullScaleRunTable, row.id)
            beside = self._others_of_folder(session, row)
            before = found or next(iter(beside), None)
            known = found or FullScaleRunTable(id=row.id, created=now)
            values = self._values(row)
            if found is None and before is not None:
                known.study, known.trial = before.study, before.trial
            for other in beside:
                session.delete(other)
            if before is not None and row.study is None:  # a training may go on that is named by its network's file
                del values["study"], values["trial"]
            for name, value in values.items():
                setattr(known, name, value)
            known.updated = now
            session.add(known)
            session.flush()
            is_all = is_whole or found is None
            _write(session, row.id, metrics if is_all else {epoch: metrics[epoch] for epoch in sorted(metrics)[-1:]})
            if is_whole:
                others = (FullScaleMetricTable.run_id == row.id) & FullScaleMetricTable.epoch.not_in(list(metrics))
                session.execute(delete(FullScaleMetricTable).where(others))

    def of_study(self, study: str) -> tuple[FullScaleRow, ...]:
        """Those that have a study's choices, by trial, the latest first."""
        chosen = select(FullScaleRunTable).where(FullScaleRunTable.study == study)
        with self._store.session() as session:
            found = session.scalars(chosen.order_by(FullScaleRunTable.trial, FullScaleRunTable.updated.desc()))
            return tuple(self._row(row) for row in found)

    def all(self) -> tuple[FullScaleRow, ...]:
        """All, the latest first."""
        with self._store.session() as session:
            found = session.scalars(select(FullScaleRunTable).order_by(FullScaleRunTable.updated.desc()))
            return tuple(self._row(row) for row in found)

    def metrics(self, run_id: str) -> dict[int, dict[str, float]]:
        """What was seen in each epoch."""
        chosen = select(FullScaleMetricTable).where(FullScaleMetricTable.run_id == run_id)
        found: dict[int, dict[str, float]] = {}
        with self._store.session() as session:
            for row in session.scalars(chosen.order_by(FullScaleMetricTable.epoch, FullScaleMetricTable.name)):
                found.setdefault(row.epoch, {})[row.name] = row.value
        return found

    def _others_of_folder(self, session: Session, row: FullScaleRow) -> list[FullScaleRunTable]:
        """The other rows of trainings in the row's folder on this machine, the latest first."""
        is_here = FullScaleRunTable.host.is_(None) | (FullScaleRunTable.host == socket.gethostname())
        chosen = select(FullScaleRunTable).where(FullScaleRunTable.folder == self._store.relative(row.folder), is_here)
        others = chosen.where(FullScaleRunTable.id != row.id).order_by(FullScaleRunTable.updated.desc())
        return list(session.scalars(others))

    def _values(self, row: FullScaleRow) -> dict[str, Any]:
        """The columns that a row decides."""
        plain = {name: getattr(row, name) for name in COPIED_FIELDS}
        return plain | {
            "spec": spec_values(row.spec),
            "spec_fingerprint": row.spec.fingerprint(),
            "recipe": dict(row.recipe),
            "folder": self._store.relative(row.folder),
            "versions": None if row.versions is None else dict(row.versions),
            "environment": None if row.environment is None else stored_environments(row.environment, row.earlier, None),
        }

    def _row(self, found: FullScaleRunTable) -> FullScaleRow:
        environments = environments_of(found.environment)
        return FullScaleRow(
            id=found.id,
            spec=NetworkSpec.from_mapping(found.spec),
            recipe=found.recipe,
            folder=(self._store.root or Path()) / found.folder,
            created=found.created,
            updated=found.updated,
            versions=found.versions,
            environment=environments.get("environment"),
            earlier=environments.get("earlier", ()),
            **{name: getattr(found, name) for name in COPIED_FIELDS},
        )


def _write(session: Session, run_id: str, metrics: EpochMetrics) -> None:
    """Put the figures of these epochs in the place of what is known of them."""
    mine = (FullScaleMetricTable.run_id == run_id) & FullScaleMetricTable.epoch.in_(list(metrics))
    session.execute(delete(FullScaleMetricTable).where(mine))
    rows = [
        {"run_id": run_id, "epoch": epoch, "name": name, "value": value}
        for epoch, seen in metrics.items()
        for name, value in seen.items()
    ]
    if rows:
        session.execute(insert(FullScaleMetricTable), rows)
