"""What computed a training at full scale, kept in its folder; it may be resumed in another environment."""

import json
from collections.abc import Iterator
from pathlib import Path

from harness.system.atomic_write import atomic_write_text
from harness.training.environment import Environment, describe_difference, differs
from harness.training.full_scale.messages import Message

ENVIRONMENTS = "environments.json"
"""A list of environments with the epoch from which each computed, in the training's folder."""


def record_environment(folder: Path, environment: Environment, epoch: int, *, is_resumed: bool) -> Iterator[Message]:
    """Write down what computes the training from an epoch on; a note where another environment computed what was."""
    known = read_environments(folder) if is_resumed else []
    before = known[-1][1] if known else None
    if is_resumed and (not known or differs(before, environment)):
        words = describe_difference(before, environment)
        yield Message(f"warning: resumed in another environment (before: {words}), so that the result is of both")
    if not known or before != environment:
        values = [{"epoch": first, "environment": environment and environment.values()} for first, environment in known]
        if is_resumed and not known:
            values.append({"epoch": 1, "environment": None})
        values.append({"epoch": epoch, "environment": environment.values()})
        atomic_write_text(folder / ENVIRONMENTS, json.dumps(values, indent=1))


def read_environments(folder: Path) -> list[tuple[int, Environment | None]]:
    """The epoch from which each environment computed, and the environment; empty where none was kept."""
    try:
        values = json.loads((folder / ENVIRONMENTS).read_text(encoding="utf-8"))
        return [(int(each["epoch"]), Environment.from_values(each["environment"])) for each in values]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def earlier_environments(folder: Path) -> list[Environment | None]:
    """What computed a training before it was resumed in its present environment, each once."""
    known = [environment for _, environment in read_environments(folder)]
    return [
        environment
        for i, environment in enumerate(known[:-1])
        if environment != known[-1] and environment not in known[:i]
    ]
