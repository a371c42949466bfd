"""Messages of a training at full scale, plain values that can be sent between processes; and their logs.

The logs are a JSON line per epoch, and TensorBoard's files.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.system.atomic_write import atomic_write_text
from harness.training.environment import Environment
from harness.training.full_scale.folder import EPOCHS
from harness.training.run import Started

TENSORBOARD_FOLDER = "tensorboard"


@dataclass(frozen=True, slots=True)
class Message:
    """A text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class StepProgress:
    """Progress within an epoch."""

    epoch: int
    step: int
    """Completed steps of the epoch."""
    steps: int
    """Number of steps in an epoch."""
    loss: float
    """Loss of the last batch of this worker."""
    lr: float
    images_per_s: float
    """Training images per second over all workers, in this epoch and process."""
    waiting: float
    """Share of the time in which this worker waited for images."""
    left_s: float
    """Estimated time until the last epoch ends, at the current speed."""


MAIN_METRIC = "top1"
"""Main metric of a classifier."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Results of a validation: metrics by name; all except the loss are in percent, and higher is better."""

    metrics: Mapping[str, float]
    main: str = MAIN_METRIC
    """Name of the metric that decides which epoch is the best: `top1`, `miou` or `ap`."""
    unreadable: int = 0
    """Number of images that could not be read, and were left out."""
    images: int | None = None
    """Number of images that were evaluated; None if an earlier version did not count them."""

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]

    @property
    def value(self) -> float:
        """The value of the main metric."""
        return self.metrics[self.main]


@dataclass(frozen=True, slots=True)
class FullScaleEpoch:
    """One epoch of training, and the validation after it."""

    epoch: int
    """From 1."""
    epochs: int
    steps: int
    """Number of optimizer steps since the first epoch."""
    train_loss: float
    lr: float
    """Learning rate of the epoch's last step, for the last group of layers."""
    train_s: float
    """Duration of the training, without the validation after it."""
    wall_s: float
    images_per_s: float
    """Training images per second over all workers."""
    waiting: float
    """Share of the training time in which rank 0 waited for images."""
    unreadable: int
    """Number of training images that could not be read, and were replaced by the next ones."""
    workers: int
    val: Scores | None = None
    """Scores of the network; None without validation images."""
    ema: Scores | None = None
    """Scores of the moving average; None without one, or without validation images."""
    is_best: bool = False

    @property
    def value(self) -> float | None:
        """The main metric of the network or of its moving average, whichever is better."""
        return max((scores.value for scores in (self.val, self.ema) if scores is not None), default=None)


FullScaleMessage = Message | Started | StepProgress | FullScaleEpoch
MESSAGE_CLASSES: dict[str, type[Any]] = {
    "note": Message,
    "started": Started,
    "pulse": StepProgress,
    "epoch": FullScaleEpoch,
}
VALIDATION_FIELDS = ("val", "ema")
"""Fields of an epoch that are `Scores`; in JSON, their metrics are on the same level as their other fields."""


def to_plain(record: FullScaleMessage) -> dict[str, Any]:
    """A message as plain values, for JSON."""
    kind = next(name for name, cls in MESSAGE_CLASSES.items() if isinstance(record, cls))
    values = {"kind": kind, **asdict(record)}
    for name in VALIDATION_FIELDS:
        if values.get(name) is not None:
            scores = values[name]
            values[name] = {**scores.pop("metrics"), **scores}
    return values


def from_plain(values: dict[str, Any]) -> FullScaleMessage:
    """The inverse of `to_plain`."""
    rest = {name: value for name, value in values.items() if name != "kind"}
    for name in VALIDATION_FIELDS:
        if isinstance(rest.get(name), dict):
            metrics = dict(rest[name])
            other = {key: metrics.pop(key) for key in ("main", "unreadable", "images") if key in metrics}
            rest[name] = Scores(metrics, **other)
    if rest.get("environment") is not None:
        rest["environment"] = Environment.from_values(rest["environment"])
    if "earlier" in rest:
        rest["earlier"] = tuple(Environment.from_values(entry) for entry in rest["earlier"])
    if "notes" in rest:
        rest["notes"] = tuple(rest["notes"])
    record: FullScaleMessage = MESSAGE_CLASSES[values["kind"]](**rest)
    return record


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
