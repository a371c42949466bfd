"""What a training keeps to go on after an interruption, to the bit: its last states, the newest first.

Random states are not among it: all that is random follows from the seed and from where in the training it is drawn.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from harness.checkpoint import read_state, write_state
from harness.scale_up.records import FullEpoch, from_plain, to_plain


@dataclass(slots=True)
class Progress:
    """How far a training is."""

    epoch: int = 1
    """The epoch that is under way, from 1."""
    step: int = 0
    """Its steps that are done."""
    loss_sum: float = 0.0
    """Of its parts, over all workers."""
    unreadable: float = 0.0
    """Images that had to be replaced, over all workers."""
    train_s: float = 0.0
    waiting_s: float = 0.0
    best: float | None = None
    """The best main figure of an epoch."""

    def begin(self, epoch: int) -> None:
        """Start an epoch."""
        self.epoch, self.step = epoch, 0
        self.loss_sum = self.unreadable = self.train_s = self.waiting_s = 0.0


@dataclass(slots=True, eq=False)
class State:
    """All that changes in a training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    progress: Progress = field(default_factory=Progress)
    epochs: list[FullEpoch] = field(default_factory=list)
    """Those that are done."""

    def close_epoch(self, done: FullEpoch) -> FullEpoch:
        """Note an epoch, and whether it is the best so far; go on to the next one."""
        best = self.progress.best
        done = replace(done, is_best=best is None or done.value is None or done.value > best)
        if done.is_best:
            self.progress.best = done.value
        self.epochs.append(done)
        self.progress.begin(done.epoch + 1)
        return done

    def best_of_epoch(self) -> tuple[nn.Module, str]:
        """What did better in the last epoch, and its name: the network, or its moving average."""
        done = self.epochs[-1]
        if self.ema is not None and done.ema is not None and done.ema.value == done.value:
            return self.ema.module, "moving average"
        return self.model, "network"

    def save(self, folder: Path, run_id: str, workers: int, keep: int) -> None:
        """Write the state as one file more; the oldest beyond `keep` go."""
        name = f"epoch-{self.progress.epoch:04d}-step-{self.progress.step:06d}.pt"
        write_state(
            folder / name,
            {
                "run": run_id,
                "workers": workers,
                "progress": asdict(self.progress),
                "epochs": [to_plain(epoch) for epoch in self.epochs],
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "ema": None if self.ema is None else self.ema.module.state_dict(),
            },
        )
        for old in list(_files(folder))[keep:]:
            old.unlink(missing_ok=True)

    def restore(self, kept: "Kept") -> None:
        """Go on from there."""
        self.model.load_state_dict(kept.values["model"])
        self.optimizer.load_state_dict(kept.values["optimizer"])
        self.scaler.load_state_dict(kept.values["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(kept.values["ema"])
        self.progress = kept.progress
        self.epochs = [epoch for each in kept.values["epochs"] if isinstance(epoch := from_plain(each), FullEpoch)]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A state in a file."""

    path: Path
    workers: int
    """How many there were."""
    progress: Progress
    values: dict[str, Any]


def newest(folder: Path, run_id: str) -> Kept | None:
    """The newest state of a run that can be read; damaged files are passed over."""
    for path in _files(folder):
        values = read_state(path)
        if values is not None and values.get("run") == run_id:
            return Kept(path, values["workers"], Progress(**values["progress"]), values)
    return None


def _files(folder: Path) -> Iterator[Path]:
    """The states in a folder, the newest first."""
    yield from sorted(folder.glob("epoch-*-step-*.pt"), reverse=True)
