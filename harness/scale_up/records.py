"""What is asked of a training at full scale, and what it says meanwhile: plain values, to travel between processes."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.fingerprint import fingerprint
from harness.full_recipe import FullRecipe
from harness.spec import NetworkSpec


@dataclass(frozen=True, slots=True)
class FullRun:
    """What decides the outcome: a network, a recipe, and the weights that it starts from."""

    spec: NetworkSpec
    """With the classes and channels of the images, and the recipe's drop path."""
    recipe: FullRecipe
    weights: str | None = None
    """Digest of the file of weights; None for fresh ones."""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits."""
        return fingerprint([self.spec.fingerprint(), self.recipe.fingerprint(), self.weights])


@dataclass(frozen=True, slots=True)
class FullJob:
    """A run with its place and its means, none of which decides the outcome but the number of workers."""

    run: FullRun
    folder: Path
    """Keeps checkpoints, weights, the log of epochs, and TensorBoard's files."""
    cache: Path
    """Where prepared data sets are kept."""
    root: Path | None = None
    """The folder of the images; None for those that are generated."""
    weights: Path | None = None
    """The file whose digest the run has."""
    loaders: int = 0
    """Processes that read images for each worker; 0 for the worker itself."""
    threads: int = 1
    """Of a worker on a CPU."""

    @property
    def checkpoints(self) -> Path:
        """One file for each of the last states."""
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        """The weights of the best epoch; of the last one, where there is nothing to validate on."""
        return self.folder / "best.safetensors"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person should be told."""

    text: str


@dataclass(frozen=True, slots=True)
class Pulse:
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


@dataclass(frozen=True, slots=True)
class Scores:
    """What validation found; accuracies in percent."""

    loss: float
    top1: float
    top5: float
    unreadable: int = 0
    """Images that could not be read, and were left out."""


@dataclass(frozen=True, slots=True)
class FullEpoch:
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
    def top1(self) -> float | None:
        """The better of the network's accuracy and of that of its moving average."""
        return max((scores.top1 for scores in (self.val, self.ema) if scores is not None), default=None)


FullRecord = Note | Pulse | FullEpoch
KINDS: dict[str, type[Any]] = {"note": Note, "pulse": Pulse, "epoch": FullEpoch}


def to_plain(record: FullRecord) -> dict[str, Any]:
    """A record for JSON."""
    kind = next(name for name, each in KINDS.items() if isinstance(record, each))
    return {"kind": kind, **asdict(record)}


def from_plain(values: dict[str, Any]) -> FullRecord:
    """The inverse of `to_plain`."""
    rest = {name: value for name, value in values.items() if name != "kind"}
    for name in ("val", "ema"):
        if isinstance(rest.get(name), dict):
            rest[name] = Scores(**rest[name])
    record: FullRecord = KINDS[values["kind"]](**rest)
    return record
