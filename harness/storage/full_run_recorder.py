"""Mirrors a training at full scale into the results database.

The training's folder has the complete records: a database that is busy, full or gone does not stop the training. Failed
writes are reported and retried at the next write, also when the same command is run again.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data.data_record import DataRecord
from harness.errors import StoreError, cause_of
from harness.storage import FullScaleRow, FullScaleRuns, Store
from harness.system.fingerprint import fingerprint
from harness.training.full_scale.folder import EPOCHS
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import (
    VALIDATION_FIELDS,
    FullScaleEpoch,
    FullScaleMessage,
    read_epochs,
    to_plain,
)
from harness.training.full_scale.records import earlier_environments, read_environments
from harness.training.run import RunState, Started, state_after

RETRY_REMEDY = "run the same command again to write it there, too."
BUSY_TIMEOUT_S = 5.0
"""Maximum time that a training waits for a database that another process writes to."""
EXCLUDED_FIELDS = ("kind", "epoch", "epochs", "is_best", *VALIDATION_FIELDS)
"""Fields of an epoch that are not metrics themselves."""


def full_scale_row(
    job: FullScaleJob[Any],
    data: DataRecord,
    name: str,
    recipe: str,
    *,
    study: str | None = None,
    trial: int | None = None,
) -> FullScaleRow:
    """The training as a row of the results database; `study` and `trial` are those that its network comes from, if any.

    Several results folders may share a database: the same network and recipe on other data is another row.
    """
    run = job.run
    return FullScaleRow(
        id=fingerprint([run.id, data.dataset, data.classes, data.digest]),
        name=name,
        spec=run.spec,
        recipe=run.recipe.model_dump(mode="json"),
        recipe_name=Path(recipe).stem,
        recipe_fingerprint=run.recipe.fingerprint(),
        folder=job.folder,
        epochs=run.recipe.intervals,
        study=study,
        trial=trial,
        weights=run.weights,
    )


@contextmanager
def recording_run(row: FullScaleRow, database: str | Path) -> Iterator["FullScaleRunRecorder"]:
    """Keep the row of a training up to date; its final state follows from the exception that ends the block, if any."""
    recorder = FullScaleRunRecorder(row, database)
    recorder.write()
    try:
        yield recorder
    except BaseException as error:
        recorder.finish(state_after(error), cause_of(error) or None)
        raise
    recorder.finish(RunState.COMPLETE, None)


class FullScaleRunRecorder:
    """Writes the row of one training at full scale, as its only writer."""

    def __init__(self, row: FullScaleRow, database: str | Path) -> None:
        self._row, self._database = _with_environments(row), database
        self._is_behind = False
        """Whether the last write to the database failed, so that it lacks records that the folder has."""

    def record(self, record: FullScaleMessage) -> None:
        """Write a message of the training's workers to the database."""
        if isinstance(record, Started):
            self._row = replace(
                self._row,
                host=record.host,
                device=record.device,
                threads=record.threads,
                versions=record.versions,
            )
            self._row = _with_environments(self._row)
            self.write()
        elif isinstance(record, FullScaleEpoch):
            self.write(is_whole=False)

    def finish(self, state: RunState, cause: str | None) -> None:
        """Write the final state, and its cause."""
        self._row = replace(self._row, state=state, cause=cause)
        self.write(is_whole=False)
        if self._is_behind:
            print(f"the database lacks what {self._row.folder / EPOCHS} has; {RETRY_REMEDY}", file=sys.stderr)

    def write(self, *, is_whole: bool = True) -> None:
        """Update the row, and the metrics of all epochs or of the last one; print a warning if that fails."""
        epochs = read_epochs(self._row.folder)
        metrics = {epoch.epoch: epoch_metrics(epoch) for epoch in epochs}
        try:
            with Store.open(self._database, busy_s=BUSY_TIMEOUT_S) as store:
                FullScaleRuns(store).save(
                    _with_progress(self._row, epochs), metrics, is_whole=is_whole or self._is_behind
                )
        except StoreError as error:
            if not self._is_behind:
                print(f"warning: {error} The training continues without it; {RETRY_REMEDY}", file=sys.stderr)
            self._is_behind = True
        else:
            self._is_behind = False


def _with_environments(row: FullScaleRow) -> FullScaleRow:
    """The row with the training's environments, from its folder, which has them before a worker starts."""
    environments = read_environments(row.folder)
    if not environments:
        return row
    return replace(row, environment=environments[-1][1], earlier=tuple(earlier_environments(row.folder)))


def _with_progress(row: FullScaleRow, epochs: list[FullScaleEpoch]) -> FullScaleRow:
    """The row with the number of trained epochs and the best epoch."""
    best = next((epoch for epoch in reversed(epochs) if epoch.is_best and epoch.value is not None), None)
    row = replace(row, epochs_done=epochs[-1].epoch if epochs else 0, best=None, best_epoch=None)
    if best is None or best.val is None:
        return row
    return replace(row, metric=best.val.main, best=best.value, best_epoch=best.epoch)


def epoch_metrics(epoch: FullScaleEpoch) -> dict[str, float]:
    """All metrics of an epoch by name, such as `lr` and `ema_top1`."""
    plain = to_plain(epoch)
    metrics = {name: float(value) for name, value in plain.items() if name not in EXCLUDED_FIELDS}
    for kind in VALIDATION_FIELDS:
        validation = getattr(epoch, kind)
        if validation is not None:
            metrics |= {f"{kind}_{name}": value for name, value in validation.metrics.items()}
            metrics[f"{kind}_unreadable"] = float(validation.unreadable)
    return metrics
