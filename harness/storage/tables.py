"""The tables of the harness in a study's database, next to Optuna's own.

A run is addressed by its content (`harness.training.run.Run.id`), so that studies share it: `trial_runs` links the
trials of studies to their runs. Optuna's trials are in Optuna's tables; ours refer to them by study and number.
"""

import json
import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Double, Enum, ForeignKey, Index, Integer, MetaData, Text, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from harness.training.run import RunState

CONSTRAINT_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name, so that a migration can change it on every database."""


class Json(TypeDecorator[dict[str, Any]]):
    """A mapping, stored as JSON with sorted keys, so that equal values have equal text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Python to database."""
        return None if value is None else json.dumps(value, sort_keys=True, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, Any] | None:  # noqa: ARG002
        """Database to Python."""
        return None if value is None else json.loads(value)


class UtcTime(TypeDecorator[datetime]):
    """An aware time, stored as naive UTC, which every database supports."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Python to database."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Database to Python."""
        return None if value is None else value.replace(tzinfo=UTC)


class NullableFloat(TypeDecorator[float]):
    """A float that may be NaN, which is stored as NULL: SQLite has no NaN."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        """Python to database."""
        return None if value is None or math.isnan(value) else value

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:  # noqa: ARG002
        """Database to Python."""
        return math.nan if value is None else value


STATE = Enum(RunState, native_enum=False, length=16, values_callable=lambda states: [str(state) for state in states])
"""Column type of a run's state, stored as text."""


class Base(DeclarativeBase):
    """Base class of our tables, with their metadata."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)


class StudyTable(Base):
    """Study files as they were resolved. (`studies` is the name of one of Optuna's tables.)"""

    __tablename__ = "study_files"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(Text)
    resolved: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(UtcTime)
    updated: Mapped[datetime] = mapped_column(UtcTime)


class RunTable(Base):
    """Runs, each a network trained once: its definition, its state, and where it was trained."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "recipe_fingerprint", "spec_fingerprint"), Index(None, "owner"))

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    spec_fingerprint: Mapped[str] = mapped_column(Text)
    recipe: Mapped[dict[str, Any]] = mapped_column(Json)
    recipe_fingerprint: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[RunState] = mapped_column(STATE)
    cause: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    owner: Mapped[str | None] = mapped_column(Text)
    folder: Mapped[str | None] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(UtcTime)
    started: Mapped[datetime | None] = mapped_column(UtcTime)
    finished: Mapped[datetime | None] = mapped_column(UtcTime)
    wall_s: Mapped[float] = mapped_column(Double, default=0.0)
    host: Mapped[str | None] = mapped_column(Text)
    pid: Mapped[int | None] = mapped_column(BigInteger)
    device: Mapped[str | None] = mapped_column(Text)
    threads: Mapped[int | None] = mapped_column(Integer)
    versions: Mapped[dict[str, Any] | None] = mapped_column(Json)
    environment: Mapped[dict[str, Any] | None] = mapped_column(Json)
    data: Mapped[str | None] = mapped_column(Text)


class EpochTable(Base):
    """Learning curves; after the run's id, the columns are the fields of `harness.training.run.Epoch` in order."""

    __tablename__ = "epochs"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    train_loss: Mapped[float] = mapped_column(NullableFloat, nullable=True)
    val_loss: Mapped[float] = mapped_column(NullableFloat, nullable=True)
    top1: Mapped[float] = mapped_column(NullableFloat, nullable=True)
    lr: Mapped[float] = mapped_column(NullableFloat, nullable=True)
    wall_s: Mapped[float] = mapped_column(NullableFloat, nullable=True)
    images_per_s: Mapped[float] = mapped_column(NullableFloat, nullable=True)


class MeasureTable(Base):
    """Metrics of trained networks, by name."""

    __tablename__ = "measures"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[float] = mapped_column(NullableFloat, nullable=True)


class TrialRunTable(Base):
    """Links from a trial of a study to its runs, in the order of their seeds."""

    __tablename__ = "trial_runs"
    __table_args__ = (Index(None, "run_id"),)

    study: Mapped[str] = mapped_column(Text, primary_key=True)
    trial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))


class EventTable(Base):
    """Events of studies, in order."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "study", "id"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    time: Mapped[datetime] = mapped_column(UtcTime)
    study: Mapped[str] = mapped_column(Text)
    trial: Mapped[int | None] = mapped_column(Integer)
    run_id: Mapped[str | None] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    message: Mapped[str] = mapped_column(Text)


class FullScaleRunTable(Base):
    """Trainings at full scale: network and recipe, the study that chose the network, state, and folder of weights."""

    __tablename__ = "full_runs"
    __table_args__ = (Index(None, "study", "trial"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    study: Mapped[str | None] = mapped_column(Text)
    trial: Mapped[int | None] = mapped_column(Integer)
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    spec_fingerprint: Mapped[str] = mapped_column(Text)
    recipe: Mapped[dict[str, Any]] = mapped_column(Json)
    recipe_name: Mapped[str] = mapped_column(Text)
    recipe_fingerprint: Mapped[str] = mapped_column(Text)
    weights: Mapped[str | None] = mapped_column(Text)
    folder: Mapped[str] = mapped_column(Text)
    state: Mapped[RunState] = mapped_column(STATE)
    cause: Mapped[str | None] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(UtcTime)
    updated: Mapped[datetime] = mapped_column(UtcTime)
    host: Mapped[str | None] = mapped_column(Text)
    device: Mapped[str | None] = mapped_column(Text)
    threads: Mapped[int | None] = mapped_column(Integer)
    versions: Mapped[dict[str, Any] | None] = mapped_column(Json)
    epochs: Mapped[int] = mapped_column(Integer)
    epochs_done: Mapped[int] = mapped_column(Integer)
    metric: Mapped[str] = mapped_column(Text)
    best: Mapped[float | None] = mapped_column(Double)
    best_epoch: Mapped[int | None] = mapped_column(Integer)
    environment: Mapped[dict[str, Any] | None] = mapped_column(Json)


class FullScaleMetricTable(Base):
    """Metrics of each epoch of a training at full scale, by name; the validation metrics depend on its task."""

    __tablename__ = "full_figures"

    run_id: Mapped[str] = mapped_column(ForeignKey("full_runs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[float] = mapped_column(NullableFloat, nullable=True)
