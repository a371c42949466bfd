"""The folder of a training at full scale: what it leaves there, by name, and who is at it."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import NotFound

if TYPE_CHECKING:
    from filelock import FileLock

NETWORK, RECIPE = "network.yaml", "recipe.yaml"
"""What is trained, as files that `harness train` reads again."""
WEIGHTS = {"best": "best.safetensors", "last": "last.safetensors", "last-ema": "last_ema.safetensors"}
"""Weights in training form: those of the best epoch, network or moving average; and of the last, one of each."""

CLASSES = "classes.json"
"""The names of the classes, in the order of the labels."""
DATA = "data.json"
"""What is trained on; see `harness.training.full_scale.data_record`."""
EPOCHS = "epochs.jsonl"
"""The log of epochs."""
CHECKPOINTS = "checkpoints"
"""The folder of the last states."""
STATE_PATTERN = "epoch-*-step-*.pt"
"""Their names, in it."""


def lock_of(folder: Path) -> "FileLock":
    """The lock that a process holds while it trains there."""
    from filelock import FileLock

    return FileLock(f"{folder}.lock")


def is_locked(folder: Path) -> bool:
    """Whether a process of this machine trains there now."""
    from filelock import Timeout

    lock = lock_of(folder)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's folder
        return False


def is_started(folder: Path) -> bool:
    """Whether a training has left anything there that another one would overwrite: a state, weights, epochs."""
    kept = (folder / name for name in (*WEIGHTS.values(), EPOCHS))
    return any(path.is_file() and path.stat().st_size > 0 for path in kept) or any(
        (folder / CHECKPOINTS).glob(f"{STATE_PATTERN}*")
    )


def is_training(folder: Path) -> bool:
    """Whether a folder is that of a training."""
    return (folder / NETWORK).is_file() and (folder / RECIPE).is_file()


def weights_file(folder: Path, which: str) -> Path:
    """A file of weights of a training, by its key in `WEIGHTS`. Raises `NotFound`."""
    if not is_training(folder):
        raise NotFound(
            "a folder must be that of a training at full scale",
            value=str(folder),
            remedy="`harness train` says where it is; it holds network.yaml and recipe.yaml.",
        )
    path = folder / WEIGHTS[which]
    if path.is_file():
        return path
    there = [name for name, file in WEIGHTS.items() if (folder / file).is_file()]
    reason = "the training has no epoch behind it" if not there else "they come with the last epoch"
    raise NotFound(
        f"the weights `{which}` must be there ({reason})",
        value=str(path),
        remedy=f"There are: {', '.join(there)}." if there else "Train on: the same command goes on where it was.",
    )
