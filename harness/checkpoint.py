"""What a run keeps to go on after an interruption: written atomically each epoch, loaded without unpickling code."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    KeyError,
    IndexError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
"""What reading a file that is no checkpoint raises; such a file counts as none, and the run starts anew."""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a file of tensors and plain values; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    torch.save(dict(state), temporary)
    temporary.replace(path)


def read_state(path: Path) -> dict[str, Any] | None:
    """What such a file holds, on the CPU; None where there is none that can be read."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED:
        return None
    return state


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, epoch: int
) -> None:
    """Write the state after `epoch`."""
    state = {
        "epoch": epoch,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    write_state(path, state)


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> int:
    """Restore the state and return its epoch; 0 where there is none that can be read."""
    state = read_state(path)
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    epoch: int = state["epoch"]
    return epoch


def load_epoch(path: Path) -> int:
    """The last epoch that a checkpoint holds; 0 where there is none that can be read."""
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"])
    except DAMAGED:
        return 0
