"""What a run keeps to go on after an interruption: written atomically each epoch, loaded without unpickling code."""

import pickle
import zipfile
from pathlib import Path

import torch
from torch import nn

DAMAGED = (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)
"""What reading a file that is no checkpoint raises; such a file counts as none, and the run starts anew."""


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, epoch: int
) -> None:
    """Write the state after `epoch`; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "epoch": epoch,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    temporary.replace(path)


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> int:
    """Restore the state and return its epoch; 0 where there is none that can be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED:
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
