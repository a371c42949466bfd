"""A run, (spec, recipe, seed, data): one network trained once; with its job, and the records that a worker yields.

All are plain values, which are sent between processes and stored; this module does not import torch.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from harness.config.recipes.proxy import ProxyRecipe
from harness.errors import Diverged, OutOfMemory, Stopped, TimedOut, WorkerLost
from harness.models.spec.network import NetworkSpec
from harness.system.fingerprint import fingerprint
from harness.training.environment import Environment


@dataclass(frozen=True, slots=True)
class Run:
    """One network to train once: the unit of work and storage, shared between studies."""

    spec: NetworkSpec
    recipe: ProxyRecipe
    seed: int
    data: str | None = None
    """Digest of the content of a data set that is read from disk (`DataInfo.digest`); None for generated data."""
    _id: str | None = field(default=None, init=False, repr=False, compare=False)
    """The id after its first use: a driver reads it a dozen times for each run."""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits, a function of only spec, recipe, seed and data."""
        if self._id is None:
            parts: list[object] = [self.spec.fingerprint(), self.recipe.fingerprint(), self.seed]
            id = fingerprint(parts if self.data is None else [*parts, self.data])
            object.__setattr__(self, "_id", id)
            return id
        return self._id

    @property
    def configuration(self) -> tuple[str, str]:
        """The fingerprints of network and recipe, equal for the runs of one configuration."""
        return self.spec.fingerprint(), self.recipe.fingerprint()

    @property
    def training_seed(self) -> int:
        """Seed of the initial weights, the order of the images and augmentation; different for every replica.

        The data set depends only on `seed`, so that replicas are paired by it like all networks.
        """
        return int(fingerprint(["replica", self.seed, self.spec.replica]), 16) >> 2 if self.spec.replica else self.seed


@dataclass(frozen=True, slots=True)
class Job:
    """A run with its folder, resources and limits, to be submitted to an executor; these do not affect the result."""

    run: Run
    folder: Path
    """The study's folder; the run writes `logs/<run id>.log` and `checkpoints/<run id>.pt` in it."""
    cpus: int = 1
    """Threads of the worker."""
    gpus: float = 0.0
    """Share of a GPU, or number of GPUs; with 0, or on a machine without a GPU, the run is trained on the CPU."""
    minutes: float = 60.0
    """Time limit, after which the run is ended."""
    cache: Path | None = None
    """Folder of prepared data sets; by default next to the study's folder."""
    only_times: bool = False
    """Whether only the times of a complete run are measured again, with its stored weights; nothing is trained."""
    resumes_any: bool = True
    """Whether a checkpoint of another environment is resumed; otherwise it is moved to `replaced`."""
    shares_times: bool = True
    """Whether times may be taken from another run of an equal network; False if times are compared."""

    @property
    def log(self) -> Path:
        """File of the worker's output, including tracebacks."""
        return self.folder / "logs" / f"{self.run.id}.log"

    @property
    def checkpoint(self) -> Path:
        """Checkpoint file, written atomically after every epoch; after the last it contains the trained weights."""
        return self.folder / "checkpoints" / f"{self.run.id}.pt"

    @property
    def replaced(self) -> Path:
        """Path, without suffix, to which the next record and weights that are replaced are moved."""
        folder = self.folder / "replaced"
        numbers = [int(path.name.split(".")[1]) for path in folder.glob(f"{self.run.id}.[0-9]*.*")]
        return folder / f"{self.run.id}.{max(numbers, default=0) + 1}"

    @property
    def data_cache(self) -> Path:
        """Folder of prepared data sets, shared by the studies in one folder and by all workers of a machine."""
        return self.cache or self.folder.parent / "data"

    @property
    def times(self) -> Path | None:
        """Folder of measured times, shared by runs of equal networks; None if each run measures its own."""
        return self.data_cache / "times" if self.shares_times else None

    @property
    def has_weights(self) -> bool:
        """Whether the weights of a complete run are available on this machine: stored, or never trained."""
        return self.run.recipe.epochs == 0 or self.checkpoint.is_file()


class RunState(StrEnum):
    """State of a run; every state except the first two is final until the run is requested again."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    """Trained to its last epoch and measured; reused, see `analysis.reuse`."""
    STOPPED = "stopped"
    """Ended early by the driver: pruned, or the study was interrupted; can be resumed from its checkpoint."""
    DIVERGED = "diverged"
    """A loss that is not finite; a result of the recipe, reused as one."""
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """The worker or node is gone."""
    FAILED = "failed"
    """Any other error; the traceback is in the run's log."""


STATE_BY_ERROR: dict[type[BaseException], RunState] = {
    Stopped: RunState.STOPPED,
    KeyboardInterrupt: RunState.STOPPED,
    Diverged: RunState.DIVERGED,
    OutOfMemory: RunState.OUT_OF_MEMORY,
    MemoryError: RunState.OUT_OF_MEMORY,
    TimedOut: RunState.TIMED_OUT,
    WorkerLost: RunState.LOST,
}
"""The state in which an error leaves a run, or a training at full scale; any other error means FAILED."""


def state_after(error: BaseException) -> RunState:
    """The state of a run, or of a training at full scale, that an error ended."""
    torch = sys.modules.get("torch")  # where it is not loaded, no error is one of its own
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return RunState.OUT_OF_MEMORY
    return next((state for kind, state in STATE_BY_ERROR.items() if isinstance(error, kind)), RunState.FAILED)


@dataclass(frozen=True, slots=True)
class Started:
    """First record of a run: a worker has started it; on which host and device, and with which versions."""

    host: str
    pid: int
    device: str
    """As `cpu (AMD EPYC 9B14, 1 thread)` or `cuda (NVIDIA H200)`."""
    threads: int
    versions: dict[str, str]
    """Versions of harness, python, torch, numpy, timm."""
    epochs: int
    first_epoch: int = 1
    """The first epoch that is trained now; above 1 if the run is resumed from a checkpoint."""
    environment: Environment | None = None
    """The environment that computes the run; None if the worker does not report it."""
    earlier: tuple[Environment | None, ...] = ()
    """The environments that computed the epochs of the checkpoint; None for an unknown one."""
    notes: tuple[str, ...] = ()
    """Messages for the user, such as that a checkpoint could not be used."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of training, and the validation after it."""

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
    """Training images per second, without validation."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of the trained network; its name contains the unit, as `latency_ms_p50`."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The last record of every run, successful or not."""

    state: RunState
    wall_s: float
    cause: str | None = None
    """The reason, in one line, for every state except COMPLETE."""


@dataclass(frozen=True, slots=True)
class DataNote:
    """Note on the run's data that belongs to its result, such as files that could not be read."""

    text: str


Record = Started | DataNote | Epoch | Measured | Ended


def missing_epochs(epochs: Iterable[int], total: int) -> list[int]:
    """The epochs from 1 to `total` that a learning curve lacks, ascending."""
    return sorted(set(range(1, total + 1)) - set(epochs))
