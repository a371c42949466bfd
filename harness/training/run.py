"""The run, (spec, recipe, seed, data): one network trained once; what is asked of a worker, and what it says meanwhile.

All of it is plain values, which travel between processes and into the store; nothing here knows torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.config.recipes.proxy import ProxyRecipe
from harness.models.spec.network import NetworkSpec
from harness.system.fingerprint import fingerprint
from harness.training.environment import Environment


@dataclass(frozen=True, slots=True)
class Run:
    """The unit of work, of storage, and of sharing between studies."""

    spec: NetworkSpec
    recipe: ProxyRecipe
    seed: int
    data: str | None = None
    """Digest of the content of a data set that is read from disk (`DataInfo.digest`); None for generated data."""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits, a function of spec, recipe, seed and data alone."""
        parts: list[object] = [self.spec.fingerprint(), self.recipe.fingerprint(), self.seed]
        return fingerprint(parts if self.data is None else [*parts, self.data])

    @property
    def training_seed(self) -> int:
        """What decides initial weights, order of the images and augmentation: the seed, another for every replica.

        The images themselves follow from `seed` alone, so that replicas are paired by them as all networks are.
        """
        return int(fingerprint(["replica", self.seed, self.spec.replica]), 16) >> 2 if self.spec.replica else self.seed


@dataclass(frozen=True, slots=True)
class Job:
    """A run with its place and its limits, as an executor takes it; none of this changes the outcome."""

    run: Run
    folder: Path
    """The study's folder; the run keeps `logs/<run id>.log` and `checkpoints/<run id>.pt` below it."""
    cpus: int = 1
    """Threads of the worker."""
    gpus: float = 0.0
    """Share of a GPU, or number of them; 0 trains on the CPU, and so does any on a machine without a GPU."""
    minutes: float = 60.0
    """The run is ended when it has taken this long."""
    cache: Path | None = None
    """Where prepared data sets are kept, if not beside the study's folder."""
    only_times: bool = False
    """Whether a complete run is to have its times measured again, on its stored weights; nothing is trained then."""
    resumes_any: bool = True
    """Whether a checkpoint is resumed whose epochs another environment has trained; else it is set aside."""
    shares_times: bool = True
    """Whether times may be those that another run of an equal network had; not where they are what is compared."""

    @property
    def log(self) -> Path:
        """Where the worker writes what it would print, tracebacks included."""
        return self.folder / "logs" / f"{self.run.id}.log"

    @property
    def checkpoint(self) -> Path:
        """Written after every epoch, atomically; after the last it holds the trained weights."""
        return self.folder / "checkpoints" / f"{self.run.id}.pt"

    @property
    def replaced(self) -> Path:
        """Where the next record and weights go that are replaced, each with a suffix of its own."""
        folder = self.folder / "replaced"
        numbers = [int(path.name.split(".")[1]) for path in folder.glob(f"{self.run.id}.[0-9]*.*")]
        return folder / f"{self.run.id}.{max(numbers, default=0) + 1}"

    @property
    def data_cache(self) -> Path:
        """Where prepared data sets are kept for all studies beside this one and all workers of a machine."""
        return self.cache or self.folder.parent / "data"

    @property
    def times(self) -> Path | None:
        """Where measured times are kept for other runs of an equal network; None where each run has its own."""
        return self.data_cache / "times" if self.shares_times else None

    @property
    def has_weights(self) -> bool:
        """Whether the weights of a complete run can be had, as far as this machine sees: stored, or never trained."""
        return self.run.recipe.epochs == 0 or self.checkpoint.is_file()


class RunState(StrEnum):
    """The life of a run; every state but the first two is final until the run is asked for again."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    """Trained to its last epoch and measured; never trained again."""
    STOPPED = "stopped"
    """Ended early on the driver's wish: pruned, or the study was interrupted; goes on from its checkpoint."""
    DIVERGED = "diverged"
    """A loss that is not finite; a result of the recipe, never trained again."""
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """The worker or node is gone."""
    FAILED = "failed"
    """Any other error; the traceback is in the run's log."""


@dataclass(frozen=True, slots=True)
class Started:
    """The run has reached a worker: where and with what it is trained."""

    host: str
    pid: int
    device: str
    """As `cpu (AMD EPYC 9B14, 1 thread)` or `cuda (NVIDIA H200)`."""
    threads: int
    versions: dict[str, str]
    """Versions of harness, python, torch, numpy, timm."""
    epochs: int
    first_epoch: int = 1
    """The first epoch that is trained now; above 1 where the run is resumed from a checkpoint."""
    environment: Environment | None = None
    """What computes the run; None where the worker does not tell."""
    earlier: tuple[Environment | None, ...] = ()
    """What has computed the epochs of the checkpoint, as far as it tells; None for an unknown environment."""
    notes: tuple[str, ...] = ()
    """What a person should know of the start, such as a checkpoint that could not be used."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of training, and the validation behind it."""

    epoch: int
    """From 1."""
    train_loss: float
    val_loss: float
    top1: float
    """Validation accuracy, percent."""
    lr: float
    """Learning rate of the epoch's last step."""
    wall_s: float
    images_per_s: float
    """Training images per second, validation left out."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure about the trained network; its name carries the unit, as `latency_ms_p50`."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The last record of every run, whatever became of it."""

    state: RunState
    wall_s: float
    cause: str | None = None
    """Why, in one line, for every state but COMPLETE."""


@dataclass(frozen=True, slots=True)
class DataNote:
    """Something about the run's data that belongs to its result, such as files that could not be read."""

    text: str


Record = Started | DataNote | Epoch | Measured | Ended


def missing_epochs(epochs: Iterable[int], total: int) -> list[int]:
    """The epochs from 1 to `total` that a learning curve lacks, ascending."""
    return sorted(set(range(1, total + 1)) - set(epochs))
