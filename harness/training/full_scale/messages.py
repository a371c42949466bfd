"""Messages of a training at full scale: plain values that can be sent between processes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.training.environment import Environment
from harness.training.run import Started


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
