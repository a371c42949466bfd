"""The folder of a training at full scale: names of its files, its lock and its status."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import NotFound

if TYPE_CHECKING:
    from filelock import FileLock

NETWORK, RECIPE = "network.yaml", "recipe.yaml"
"""Files of the network and the recipe, which `harness train` reads again."""
WEIGHTS = {"best": "best.safetensors", "last": "last.safetensors", "last-ema": "last_ema.safetensors"}
"""Weights in training form: of the best epoch, network or moving average; and of the last epoch, both."""

CLASSES = "classes.json"
"""File with the names of the classes, in the order of the labels."""
DATA = "data.json"
"""Record of the data; see `harness.training.full_scale.records`."""
EPOCHS = "epochs.jsonl"
"""The log of epochs."""
CHECKPOINTS = "checkpoints"
"""Folder of the last states."""
STATE_PATTERN = "epoch-*-step-*.pt"
"""Pattern of the names of the states in it."""


def lock_of(folder: Path) -> "FileLock":
    """The lock that a process holds while it trains in the folder."""
    from filelock import FileLock

    return FileLock(f"{folder}.lock")


def is_locked(folder: Path) -> bool:
    """Whether a process of this machine is training in the folder."""
    from filelock import Timeout

    lock = lock_of(folder)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # the folder of another user
        return False


def is_started(folder: Path) -> bool:
    """Whether the folder contains files that another training would overwrite: a state, weights, epochs."""
    files = (folder / name for name in (*WEIGHTS.values(), EPOCHS))
    return any(path.is_file() and path.stat().st_size > 0 for path in files) or any(
        (folder / CHECKPOINTS).glob(f"{STATE_PATTERN}*")
    )


def is_training(folder: Path) -> bool:
    """Whether the folder is that of a training at full scale."""
    return (folder / NETWORK).is_file() and (folder / RECIPE).is_file()


def require_training(folder: Path) -> None:
    """Raise `NotFound` unless the folder is that of a training at full scale."""
    if not is_training(folder):
        raise NotFound(
            "a folder must be that of a training at full scale",
            value=str(folder),
            remedy="`harness train` prints where it is; it contains network.yaml and recipe.yaml.",
        )


def weights_file(folder: Path, key: str) -> Path:
    """A file of weights of a training, by its key in `WEIGHTS`. Raises `NotFound`."""
    require_training(folder)
    path = folder / WEIGHTS[key]
    if path.is_file():
        return path
    existing = [name for name, file in WEIGHTS.items() if (folder / file).is_file()]
    reason = "the training has not completed an epoch" if not existing else "they are written after the last epoch"
    raise NotFound(
        f"the weights `{key}` must be there ({reason})",
        value=str(path),
        remedy=f"There are: {', '.join(existing)}." if existing else "Resume the training with the same command.",
    )
