"""Executors, which train runs: `inline` in this process, `ray` in workers on this machine or a cluster."""

from collections.abc import Callable
from typing import TypeAlias

from harness.errors import ExecutorError
from harness.executors.base import Executor, WorkerRequest


def _inline(request: WorkerRequest) -> Executor:
    from harness.executors.inline import InlineExecutor

    return InlineExecutor(request)


def _ray(request: WorkerRequest) -> Executor:
    from harness.executors.ray_executor import RayExecutor

    return RayExecutor(request)


ExecutorFactory: TypeAlias = Callable[[WorkerRequest], Executor]
"""Starts the workers of an executor."""
EXECUTORS: dict[str, ExecutorFactory] = {
    "ray": _ray,
    "inline": _inline,
}


def make_executor(name: str, request: WorkerRequest) -> Executor:
    """Create an executor and start its workers. Raises `ExecutorError` if they cannot be started."""
    if name not in EXECUTORS:
        raise ExecutorError(
            "the executor must be a known one", value=name, remedy=f"Executors: {', '.join(EXECUTORS)}."
        )
    return EXECUTORS[name](request)


__all__ = ["EXECUTORS", "Executor", "ExecutorFactory", "WorkerRequest", "make_executor"]
