"""State of a training at full scale, saved to resume it bitwise equal after an interruption.

Random states are not saved: all randomness follows from the seed and from the position in the training.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from harness.errors import UnusableState, UserError
from harness.training.checkpoint import read_state, require_optimizer, require_shapes, write_state
from harness.training.full_scale.folder import STATE_PATTERN
from harness.training.full_scale.messages import FullScaleEpoch, from_plain, to_plain

UNUSABLE_SUFFIX = ".unusable"
"""Suffix that is appended to the name of a state that cannot be used."""


@dataclass(slots=True)
class Progress:
    """Position of a training, and the sums of its current epoch."""

    epoch: int = 1
    """The current epoch, from 1."""
    step: int = 0
    """Completed steps of the epoch."""
    loss_sum: float = 0.0
    """Sum of the losses of the epoch's micro-batches, over all workers."""
    unreadable: float = 0.0
    """Number of images that were replaced, over all workers."""
    train_s: float = 0.0
    waiting_s: float = 0.0
    best: float | None = None
    """The best main metric of an epoch so far."""

    def begin(self, epoch: int) -> None:
        """Start an epoch."""
        self.epoch, self.step = epoch, 0
        self.loss_sum = self.unreadable = self.train_s = self.waiting_s = 0.0


@dataclass(slots=True, eq=False)
class TrainingState:
    """All objects that change during a training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    progress: Progress = field(default_factory=Progress)
    epochs: list[FullScaleEpoch] = field(default_factory=list)
    """The completed epochs."""

    def close_epoch(self, done: FullScaleEpoch) -> FullScaleEpoch:
        """Add a completed epoch, marked if it is the best so far, and begin the next one."""
        best = self.progress.best
        done = replace(done, is_best=best is None or done.value is None or done.value > best)
        if done.is_best:
            self.progress.best = done.value
        self.epochs.append(done)
        self.progress.begin(done.epoch + 1)
        return done

    def best_of_epoch(self) -> tuple[nn.Module, str]:
        """The better model of the last epoch, and its name: the network, or its moving average."""
        done = self.epochs[-1]
        if self.ema is not None and done.ema is not None and done.ema.value == done.value:
            return self.ema.module, "moving average"
        return self.model, "network"

    def save(self, folder: Path, run_id: str, workers: int, keep: int) -> None:
        """Write the state to a new file, and remove all but the newest `keep` files."""
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

    def restore(self, state: "SavedState") -> None:
        """Load a saved state. Raises `UserError` for the state of another network, and then restores nothing."""
        models = {"model": self.model, **({} if self.ema is None else {"ema": self.ema.module})}
        try:
            for name, model in models.items():
                require_shapes(state.values[name], model)
            require_optimizer(state.values["optimizer"], self.model)
        except UnusableState as reason:
            raise UserError(
                f"a training must be resumed with the network and data that it began with; of the last state, {reason}",
                place=str(state.path),
                remedy="Use the same `--data` as when it began, or start again in its place with `--fresh`.",
            ) from reason
        self.model.load_state_dict(state.values["model"])
        self.optimizer.load_state_dict(state.values["optimizer"])
        self.scaler.load_state_dict(state.values["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state.values["ema"])
        self.progress = state.progress
        self.epochs = [
            epoch for values in state.values["epochs"] if isinstance(epoch := from_plain(values), FullScaleEpoch)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class SavedState:
    """A state that was read from a file."""

    path: Path
    workers: int
    """Number of workers that trained it."""
    progress: Progress
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UnusableFile:
    """A file of a state that cannot be used, and the reason."""

    path: Path
    reason: str

    def set_aside(self) -> None:
        """Rename the file: otherwise it would count as the newest state, and `save` would keep it instead of others."""
        with contextlib.suppress(OSError):
            self.path.replace(self.path.with_name(f"{self.path.name}{UNUSABLE_SUFFIX}"))


def latest_state(
    folder: Path, run_id: str, *, intervals: int, steps: int
) -> tuple[SavedState | None, list[UnusableFile]]:
    """The newest state of a run that can be used, and the newer files that cannot.

    `intervals` is the number of epochs and `steps` the number of steps in each.
    """
    unusable: list[UnusableFile] = []
    for path in _files(folder):
        try:
            values = read_state(path, is_digest_needed=False)
            if values is not None:
                return _checked(path, values, run_id, rounds=intervals, steps=steps), unusable
        except UnusableState as reason:
            unusable.append(UnusableFile(path, str(reason)))
    return None, unusable


def _checked(path: Path, values: dict[str, Any], run_id: str, *, rounds: int, steps: int) -> SavedState:
    """The state in a file. Raises `UnusableState` if it cannot be of this training."""
    if values.get("run") != run_id:
        raise UnusableState(f"it is of the training {values.get('run')}, not of {run_id}")
    try:
        progress, workers = Progress(**values["progress"]), int(values["workers"])
        done = [from_plain(message) for message in values["epochs"]]
        parts = [values[name] for name in ("model", "optimizer", "scaler", "ema")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableState(f"it lacks a part or has one of another kind ({error})") from error
    if not 1 <= progress.epoch <= rounds + 1 or not 0 <= progress.step <= steps:
        raise UnusableState(
            f"it is in epoch {progress.epoch} after {progress.step} steps, "
            f"and the training has {rounds} epochs of {steps} steps"
        )
    if [message.epoch for message in done if isinstance(message, FullScaleEpoch)] != list(range(1, progress.epoch)):
        raise UnusableState(f"it is in epoch {progress.epoch} and has the records of {len(done)} epochs")
    if not all(isinstance(part, Mapping) for part in parts[:3]):
        raise UnusableState("it lacks a part or has one of another kind")
    return SavedState(path, workers, progress, values)


def _files(folder: Path) -> Iterator[Path]:
    """The files of states in a folder, the newest first."""
    yield from sorted(folder.glob(STATE_PATTERN), reverse=True)
