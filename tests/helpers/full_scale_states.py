"""States of trainings at full scale, compared."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.training.checkpoint import read_state


def after(steps: int) -> Callable[[], bool]:
    """Asks to stop before the step of that number, counted over all epochs."""
    calls = itertools.count()
    return lambda: next(calls) >= steps


def last_state(folder: Path) -> dict[str, Any]:
    state = read_state(max((folder / "checkpoints").glob("*.pt")))
    assert state is not None
    return state


def equal(a: Any, b: Any) -> bool:
    """Whether two states are bitwise equal, except for times."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        timed = {"wall_s", "train_s", "waiting_s", "waiting", "images_per_s"}
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a.keys() - timed)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
