"""Logs of a training at full scale: a JSON line per epoch, and TensorBoard's files."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.system.atomic_write import atomic_write_text
from harness.training.full_scale.folder import EPOCHS
from harness.training.full_scale.messages import (
    FullScaleEpoch,
    FullScaleMessage,
    Scores,
    StepProgress,
    from_plain,
    to_plain,
)

TENSORBOARD_FOLDER = "tensorboard"


class TrainingLogger:
    """Writes the logs of one training into its folder."""

    def __init__(self, folder: Path, board: Any, done: Sequence[FullScaleEpoch]) -> None:
        self._path, self._board = folder / EPOCHS, board
        self._lines = [_line(epoch) for epoch in done]
        self._write()

    def log(self, record: FullScaleMessage) -> None:
        """Write a message to the logs."""
        if isinstance(record, FullScaleEpoch):
            self._lines.append(_line(record))
            self._write()
            self._show(record.steps, _curves(record))
        elif isinstance(record, StepProgress):
            values = {
                "step/loss": record.loss,
                "step/learning_rate": record.lr,
                "step/images_per_s": record.images_per_s,
                "step/waiting": record.waiting,
            }
            self._show((record.epoch - 1) * record.steps + record.step, values)

    def _show(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def _write(self) -> None:
        """Write all epochs of the state that the training resumed from and later: no epoch is logged twice."""
        atomic_write_text(self._path, "".join(self._lines))


@contextmanager
def open_logger(folder: Path, done: Sequence[FullScaleEpoch]) -> Iterator[TrainingLogger]:
    """Open the logs of a training that has completed the epochs `done`."""
    from tensorboardX import SummaryWriter

    folder.mkdir(parents=True, exist_ok=True)
    board = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=done[-1].steps + 1 if done else 0)
    try:
        yield TrainingLogger(folder, board, done)
    finally:
        board.close()


def read_epochs(folder: Path) -> list[FullScaleEpoch]:
    """The epochs logged in a training's folder, up to the first line that cannot be read."""
    path = folder / EPOCHS
    epochs: list[FullScaleEpoch] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            epoch = from_plain({"kind": "epoch", **json.loads(line)})
        except (ValueError, TypeError, KeyError):
            break
        assert isinstance(epoch, FullScaleEpoch), "its kind is `epoch`"
        epochs.append(epoch)
    return epochs


def _line(epoch: FullScaleEpoch) -> str:
    values = to_plain(epoch)
    del values["kind"]
    return f"{json.dumps(values)}\n"


def _curves(epoch: FullScaleEpoch) -> dict[str, float]:
    """The metrics of an epoch by their names in TensorBoard."""
    values = {
        "epoch/train_loss": epoch.train_loss,
        "epoch/learning_rate": epoch.lr,
        "epoch/images_per_s": epoch.images_per_s,
        "epoch/waiting": epoch.waiting,
    }
    for name, scores in (("val", epoch.val), ("ema", epoch.ema)):
        if isinstance(scores, Scores):
            values |= {f"epoch/{name}_{metric}": value for metric, value in scores.metrics.items()}
    return values
