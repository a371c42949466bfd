"""Executors, which train runs: `inline` in this process, `ray` in workers on this machine or a cluster.

This table imports nothing that loads slowly: the command line lists its names.
"""

from typing import TYPE_CHECKING

from harness.errors import ExecutorError

if TYPE_CHECKING:
    from harness.executors.base import Executor, ExecutorFactory, WorkerRequest


def _inline(request: "WorkerRequest") -> "Executor":
    from harness.executors.inline import InlineExecutor

    return InlineExecutor(request)


def _ray(request: "WorkerRequest") -> "Executor":
    from harness.executors.ray_executor import RayExecutor

    return RayExecutor(request)


EXECUTORS: dict[str, "ExecutorFactory"] = {
    "ray": _ray,
    "inline": _inline,
}
"""Functions that import an executor and start its workers, by the name on the command line."""


def make_executor(name: str, request: "WorkerRequest") -> "Executor":
    """Create an executor and start its workers. Raises `ExecutorError` if they cannot be started."""
    if name not in EXECUTORS:
        raise ExecutorError(
            "the executor must be a known one", value=name, remedy=f"Executors: {', '.join(EXECUTORS)}."
        )
    return EXECUTORS[name](request)
