"""The run, (spec, recipe, seed): one network trained once; what is asked of a worker, and what it says meanwhile.

All of it is plain values, which travel between processes and into the store; nothing here knows torch.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.fingerprint import fingerprint
from harness.recipe import Recipe
from harness.spec import NetworkSpec


@dataclass(frozen=True, slots=True)
class Run:
    """The unit of work, of storage, and of sharing between studies."""

    spec: NetworkSpec
    recipe: Recipe
    seed: int

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits, a function of spec, recipe and seed alone."""
        return fingerprint([self.spec.fingerprint(), self.recipe.fingerprint(), self.seed])


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
    def data_cache(self) -> Path:
        """Where prepared data sets are kept for all studies beside this one and all workers of a machine."""
        return self.folder.parent / "data"


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
    """Above 1 where the run goes on from a checkpoint."""


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


Record = Started | Epoch | Measured | Ended
