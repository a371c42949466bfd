"""The checkout that is measured: the door in its root, and its search spaces."""

from pathlib import Path

import harness
from harness.errors import UserError

ROOT = Path(harness.__file__).parent.parent


def run_study() -> str:
    """The path of `run_study.py`. Raises `UserError` where the harness is installed without its repository."""
    door = ROOT / "run_study.py"
    if not door.exists():
        raise UserError(
            "the bench must find the repository around the harness",
            place=str(door),
            remedy="Run `make bench` in a clone of the repository.",
        )
    return str(door)
