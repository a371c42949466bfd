"""What a training at full scale says meanwhile: plain values, to travel between processes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.training.environment import Environment
from harness.training.run import Started


@dataclass(frozen=True, slots=True)
class Message:
    """Something that a person should be told."""

    text: str


@dataclass(frozen=True, slots=True)
class StepProgress:
    """How it goes within an epoch."""

    epoch: int
    step: int
    """Steps of the epoch that are done."""
    steps: int
    """Steps of an epoch."""
    loss: float
    """Of the last batch of this worker."""
    lr: float
    images_per_s: float
    """Over all workers, in this epoch and process."""
    waiting: float
    """Share of the time in which this worker waited for images."""
    left_s: float
    """Until the last epoch ends, as it goes now."""


MAIN_METRIC = "top1"
"""The main figure of a classifier."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What validation found: figures by name, those but the loss in percent and the better the higher."""

    figures: Mapping[str, float]
    main: str = MAIN_METRIC
    """The figure that tells which epoch is the best: `top1`, `miou` or `ap`."""
    unreadable: int = 0
    """Images that could not be read, and were left out."""
    images: int | None = None
    """Those that the figures are of; None where an earlier version did not count them."""

    def __getitem__(self, name: str) -> float:
        return self.figures[name]

    @property
    def value(self) -> float:
        """The main figure."""
        return self.figures[self.main]


@dataclass(frozen=True, slots=True)
class FullScaleEpoch:
    """One epoch, and the validation behind it."""

    epoch: int
    """From 1."""
    epochs: int
    steps: int
    """Of the optimiser, since the first epoch."""
    train_loss: float
    lr: float
    """Of the epoch's last step; of the last group of layers."""
    train_s: float
    """Without the validation behind it."""
    wall_s: float
    images_per_s: float
    """Training images per second over all workers."""
    waiting: float
    """Share of the training time in which the first worker waited for images."""
    unreadable: int
    """Training images that could not be read, and were replaced by the next ones."""
    workers: int
    val: Scores | None = None
    """None without images to validate on, as for `ema` without a moving average."""
    ema: Scores | None = None
    is_best: bool = False

    @property
    def value(self) -> float | None:
        """The better of the network's main figure and of that of its moving average."""
        return max((scores.value for scores in (self.val, self.ema) if scores is not None), default=None)


FullScaleMessage = Message | Started | StepProgress | FullScaleEpoch
MESSAGE_CLASSES: dict[str, type[Any]] = {
    "note": Message,
    "started": Started,
    "pulse": StepProgress,
    "epoch": FullScaleEpoch,
}
VALIDATION_FIELDS = ("val", "ema")
"""The fields of an epoch that are `Scores`; in JSON the figures stand beside the rest, each under its name."""


def to_plain(record: FullScaleMessage) -> dict[str, Any]:
    """A record for JSON."""
    kind = next(name for name, each in MESSAGE_CLASSES.items() if isinstance(record, each))
    values = {"kind": kind, **asdict(record)}
    for name in VALIDATION_FIELDS:
        if values.get(name) is not None:
            found = values[name]
            values[name] = {**found.pop("figures"), **found}
    return values


def from_plain(values: dict[str, Any]) -> FullScaleMessage:
    """The inverse of `to_plain`."""
    rest = {name: value for name, value in values.items() if name != "kind"}
    for name in VALIDATION_FIELDS:
        if isinstance(rest.get(name), dict):
            found = dict(rest[name])
            known = {key: found.pop(key) for key in ("main", "unreadable", "images") if key in found}
            rest[name] = Scores(found, **known)
    if rest.get("environment") is not None:
        rest["environment"] = Environment.from_values(rest["environment"])
    if "earlier" in rest:
        rest["earlier"] = tuple(Environment.from_values(each) for each in rest["earlier"])
    if "notes" in rest:
        rest["notes"] = tuple(rest["notes"])
    record: FullScaleMessage = MESSAGE_CLASSES[values["kind"]](**rest)
    return record
