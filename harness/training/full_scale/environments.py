"""Record of the environments of a training at full scale, in its folder; it may be resumed in another environment."""

import json
from collections.abc import Iterator
from pathlib import Path

from harness.system.atomic_write import atomic_write_text
from harness.training.environment import Environment, describe_difference, differs
from harness.training.full_scale.messages import Message

ENVIRONMENTS = "environments.json"
"""File in the training's folder: the list of its environments, each with its first epoch."""


def record_environment(folder: Path, environment: Environment, epoch: int, *, is_resumed: bool) -> Iterator[Message]:
    """Record the environment that computes from `epoch` on; yields a warning if an earlier epoch had another one."""
    earlier = read_environments(folder) if is_resumed else []
    before = earlier[-1][1] if earlier else None
    if is_resumed and (not earlier or differs(before, environment)):
        difference = describe_difference(before, environment)
        yield Message(f"warning: resumed in another environment (before: {difference}); the result comes from both")
    if not earlier or before != environment:
        values = [{"epoch": first, "environment": entry and entry.values()} for first, entry in earlier]
        if is_resumed and not earlier:
            values.append({"epoch": 1, "environment": None})
        values.append({"epoch": epoch, "environment": environment.values()})
        atomic_write_text(folder / ENVIRONMENTS, json.dumps(values, indent=1))


def read_environments(folder: Path) -> list[tuple[int, Environment | None]]:
    """The environments, each with its first epoch; empty if none is recorded."""
    try:
        values = json.loads((folder / ENVIRONMENTS).read_text(encoding="utf-8"))
        return [(int(entry["epoch"]), Environment.from_values(entry["environment"])) for entry in values]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def earlier_environments(folder: Path) -> list[Environment | None]:
    """The distinct environments that computed a training before its current one."""
    environments = [environment for _, environment in read_environments(folder)]
    return [
        environment
        for i, environment in enumerate(environments[:-1])
        if environment != environments[-1] and environment not in environments[:i]
    ]
