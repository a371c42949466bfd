"""Executors, which train runs: `inline` in this process, `ray` in workers on this machine or a cluster, `tune` as
trials of Ray Tune.

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


def _tune(request: "WorkerRequest") -> "Executor":
    from harness.executors.tune_executor import TuneExecutor

    return TuneExecutor(request)


EXECUTORS: dict[str, "ExecutorFactory"] = {
    "ray": _ray,
    "tune": _tune,
    "inline": _inline,
}
"""Functions that import an executor and start its workers, by the name on the command line."""


WITH_RAY = ("ray", "tune")
"""Executors whose workers are actors of Ray; to start one starts or joins a cluster."""


def check_tune_config(executor: str, text: str) -> None:
    """Raise `ExecutorError` if this is no configuration of Ray Tune, or the executor has no use for one."""
    if executor != "tune":
        rule, remedy = f"`{executor}` must have no configuration of Ray Tune", "Use `--executor tune`, or leave it out."
        raise ExecutorError(rule, value=text, place="--tune-config", remedy=remedy)
    from harness.executors.tune_executor import load_run_config

    load_run_config(text)


def make_executor(name: str, request: "WorkerRequest") -> "Executor":
    """Create an executor and start its workers. Raises `ExecutorError` if they cannot be started."""
    if name not in EXECUTORS:
        raise ExecutorError(
            "the executor must be a known one", value=name, remedy=f"Executors: {', '.join(EXECUTORS)}."
        )
    if request.tune_config is not None:
        check_tune_config(name, request.tune_config)
    return EXECUTORS[name](request)
