"""The trainings at full scale in a database, each with the metrics of every epoch."""

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
"""Metrics by epoch and name."""


@dataclass(frozen=True, slots=True)
class FullScaleRow:
    """A training at full scale and its state."""

    id: str
    """Fingerprint of network, recipe, weights and data; see `storage.full_run_recorder.full_scale_row`."""
    name: str
    """Name from the command line: of a study, a preset, or a file."""
    spec: NetworkSpec
    recipe: Mapping[str, Any]
    """The recipe as plain values, with defaults."""
    recipe_name: str
    recipe_fingerprint: str
    folder: Path
    """The folder of its weights."""
    epochs: int
    """Total number of epochs to train."""
    state: RunState = RunState.RUNNING
    cause: str | None = None
    """Why it ended early."""
    study: str | None = None
    """The study that chose the network; None for a network that no study chose."""
    trial: int | None = None
    weights: str | None = None
    """Digest of the file of its initial weights."""
    host: str | None = None
    device: str | None = None
    threads: int | None = None
    versions: Mapping[str, str] | None = None
    environment: Environment | None = None
    """The current environment; None for a training recorded by a version that did not store environments."""
    earlier: tuple[Environment | None, ...] = ()
    """Environments of its first epochs, if it was resumed in another environment."""
    epochs_done: int = 0
    metric: str = "top1"
    """The metric that decides the best epoch."""
    best: float | None = None
    best_epoch: int | None = None
    created: datetime | None = None
    """None before the row is written; the same for `updated`."""
    updated: datetime | None = None


COPIED_FIELDS = (
    *("name", "study", "trial", "recipe_name", "recipe_fingerprint", "weights", "state", "cause"),
    *("host", "device", "threads", "epochs", "epochs_done", "metric", "best", "best_epoch"),
)
"""Columns that are equal to the fields of `FullScaleRow`."""


class FullScaleRuns:
    """The table of trainings at full scale in an open store; every call is one transaction. Raises `StoreError`s."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, row: FullScaleRow, metrics: EpochMetrics, *, is_whole: bool) -> None:
        """Write or replace a training's row, and the metrics of its last epoch.

        With `is_whole`, or if the row is new, all epochs are written; with `is_whole`, epochs that are not in `metrics`
        are deleted. A folder on this machine has one training: the row replaces other rows of its folder, which were
        trained on other data, or recorded by a version whose ids did not include the data.
        """
        now = datetime.now(UTC)
        with self._store.session() as session:
            existing = session.get(FullScaleRunTable, row.id)
            others_of_folder = self._others_of_folder(session, row)
            before = existing or next(iter(others_of_folder), None)
            stored = existing or FullScaleRunTable(id=row.id, created=now)
            values = self._values(row)
            if existing is None and before is not None:
                stored.study, stored.trial = before.study, before.trial
            for other in others_of_folder:
                session.delete(other)
            if before is not None and row.study is None:  # a training may be resumed by the file of its network
                del values["study"], values["trial"]
            for name, value in values.items():
                setattr(stored, name, value)
            stored.updated = now
            session.add(stored)
            session.flush()
            is_all = is_whole or existing is None
            _write(session, row.id, metrics if is_all else {epoch: metrics[epoch] for epoch in sorted(metrics)[-1:]})
            if is_whole:
                outdated = (FullScaleMetricTable.run_id == row.id) & FullScaleMetricTable.epoch.not_in(list(metrics))
                session.execute(delete(FullScaleMetricTable).where(outdated))

    def of_study(self, study: str) -> tuple[FullScaleRow, ...]:
        """The trainings of a study's networks, by trial, the latest first."""
        chosen = select(FullScaleRunTable).where(FullScaleRunTable.study == study)
        with self._store.session() as session:
            rows = session.scalars(chosen.order_by(FullScaleRunTable.trial, FullScaleRunTable.updated.desc()))
            return tuple(self._row(row) for row in rows)

    def all(self) -> tuple[FullScaleRow, ...]:
        """All trainings, the latest first."""
        with self._store.session() as session:
            rows = session.scalars(select(FullScaleRunTable).order_by(FullScaleRunTable.updated.desc()))
            return tuple(self._row(row) for row in rows)

    def metrics(self, run_id: str) -> dict[int, dict[str, float]]:
        """The metrics of a training by epoch and name."""
        chosen = select(FullScaleMetricTable).where(FullScaleMetricTable.run_id == run_id)
        metrics: dict[int, dict[str, float]] = {}
        with self._store.session() as session:
            for row in session.scalars(chosen.order_by(FullScaleMetricTable.epoch, FullScaleMetricTable.name)):
                metrics.setdefault(row.epoch, {})[row.name] = row.value
        return metrics

    def _others_of_folder(self, session: Session, row: FullScaleRow) -> list[FullScaleRunTable]:
        """The other rows of trainings in the row's folder on this machine, the latest first."""
        is_here = FullScaleRunTable.host.is_(None) | (FullScaleRunTable.host == socket.gethostname())
        chosen = select(FullScaleRunTable).where(FullScaleRunTable.folder == self._store.relative(row.folder), is_here)
        other_rows = chosen.where(FullScaleRunTable.id != row.id).order_by(FullScaleRunTable.updated.desc())
        return list(session.scalars(other_rows))

    def _values(self, row: FullScaleRow) -> dict[str, Any]:
        """The columns that follow from a row."""
        plain = {name: getattr(row, name) for name in COPIED_FIELDS}
        return plain | {
            "spec": spec_values(row.spec),
            "spec_fingerprint": row.spec.fingerprint(),
            "recipe": dict(row.recipe),
            "folder": self._store.relative(row.folder),
            "versions": None if row.versions is None else dict(row.versions),
            "environment": None if row.environment is None else stored_environments(row.environment, row.earlier, None),
        }

    def _row(self, stored: FullScaleRunTable) -> FullScaleRow:
        environments = environments_of(stored.environment)
        return FullScaleRow(
            id=stored.id,
            spec=NetworkSpec.from_mapping(stored.spec),
            recipe=stored.recipe,
            folder=(self._store.root or Path()) / stored.folder,
            created=stored.created,
            updated=stored.updated,
            versions=stored.versions,
            environment=environments.get("environment"),
            earlier=environments.get("earlier", ()),
            **{name: getattr(stored, name) for name in COPIED_FIELDS},
        )


def _write(session: Session, run_id: str, metrics: EpochMetrics) -> None:
    """Replace the stored metrics of these epochs."""
    mine = (FullScaleMetricTable.run_id == run_id) & FullScaleMetricTable.epoch.in_(list(metrics))
    session.execute(delete(FullScaleMetricTable).where(mine))
    rows = [
        {"run_id": run_id, "epoch": epoch, "name": name, "value": value}
        for epoch, values in metrics.items()
        for name, value in values.items()
    ]
    if rows:
        session.execute(insert(FullScaleMetricTable), rows)
