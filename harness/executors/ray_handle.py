"""One worker of a Ray crew as the driver sees it: give it a job, hear what it says, end it."""

import contextlib
import os
import re
import signal
import time
from typing import Any

from harness import __version__
from harness.errors import ExecutorError, WorkerLost, one_line
from harness.executors.base import Task
from harness.executors.ray_worker import Greeting, Worker
from harness.training.run import Ended, Job, Record

HEAR_S = 30.0
"""How long a record that is ready may take to be read."""
CONTROL = "control"
"""The thread of an actor that listens while its other one trains."""


def actor_class(cpus: int, gpus: float) -> Any:
    """What all hands of a crew are actors of. An actor that died stays dead: its run has a checkpoint, not Ray."""
    import ray

    remote: Any = ray.remote
    return remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, concurrency_groups={CONTROL: 1})(Worker)


class Hand:
    """An actor from its start, which takes seconds that nobody waits for, to its end."""

    def __init__(self, actors: Any, cpus: int) -> None:
        self.task: Task | None = None
        self.has_spoken = False
        """Whether the task has made a record."""
        self.is_stopping = False
        """Whether the task was asked to stop."""
        self._actor = actors.remote()
        self._greeting: Greeting | None = None
        self._awaited: Any = self._actor.greet.remote(cpus)
        self._report = self._actor.report.options(concurrency_group=CONTROL).remote()
        self._start = time.monotonic()
        self._ticket = 0

    @property
    def awaited(self) -> Any:
        """What Ray is to wait for before `hear` is called: the greeting, or the task's next record; None if neither."""
        return self._awaited

    @property
    def is_free(self) -> bool:
        """Whether it can be given a job."""
        return self._awaited is None

    def has_reported(self) -> bool:
        """Whether its process runs; it may still be loading what a run needs."""
        import ray

        return self._greeting is not None or bool(ray.wait([self._report], timeout=0)[0])

    def is_silent(self, limit_s: float) -> bool:
        """Whether its process has not reported for that long, counted from when it was asked for."""
        return time.monotonic() - self._start > limit_s and not self.has_reported()

    def give(self, job: Job) -> None:
        """Have a job trained."""
        self._ticket += 1
        self.task, self.has_spoken, self.is_stopping = Task(job), False, False
        self._awaited = self._actor.train.options(num_returns="streaming").remote(job, self._ticket)

    def hear(self) -> Record | None:
        """The next record; None for the greeting. Raises `WorkerLost` where there is nobody left to speak."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            if self.task is None:
                self._meet(ray.get(self._awaited, timeout=HEAR_S))
                return None
            record: Record = ray.get(next(self._awaited), timeout=HEAR_S)
        except RayTaskError as error:
            record = self._failed(error.cause)
        except RayError as error:
            raise WorkerLost(_cause(error)) from error
        self.has_spoken = True
        if isinstance(record, Ended):
            self.task = self._awaited = None
        return record

    def stop(self) -> None:
        """Ask for the end of the task."""
        self.is_stopping = True
        self._actor.stop.options(concurrency_group=CONTROL).remote(self._ticket)

    def end(self) -> None:
        """End the worker, whatever it is doing."""
        import ray

        ray.kill(self._actor)

    def end_process(self) -> None:
        """End the process of a worker that hangs, which Ray itself can only ask to end."""
        self.end()
        if self._greeting is None:
            return
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote: Any = ray.remote
        there = NodeAffinitySchedulingStrategy(self._greeting.node_id, soft=False)
        remote(num_cpus=0, scheduling_strategy=there)(_kill).remote(self._greeting.pid)

    def kill_here(self) -> None:
        """Kill the process of a worker on this machine whose cluster is gone."""
        if self._greeting is not None:
            _kill(self._greeting.pid)

    def _meet(self, greeting: Greeting) -> None:
        if greeting.version != __version__:
            raise ExecutorError(
                f"every node of the cluster must have version {__version__} of the harness",
                value=greeting.version,
                place=f"node {greeting.node_id}",
                remedy="Install it there.",
            )
        self._greeting = greeting
        self._awaited = None

    def _failed(self, error: Exception) -> Ended:
        """What to make of an error that a worker raises, by what it was asked for: a run, or only to be ready."""
        if self.task is not None:
            return self.task.failed(error)
        raise ExecutorError(
            f"version {__version__} of the harness must work on every node of the cluster",
            place=f"{type(error).__name__}: {one_line(error)}",
            remedy="Install it there, with all that it needs.",
        ) from error


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _cause(error: Exception) -> str:
    """Why an actor is gone, out of the many lines that Ray has on it."""
    found = re.search(r"The actor is dead because (.*?)\.(?:\s|$)", str(error), re.DOTALL)
    return f"the worker is gone: {found.group(1) if found else str(error).strip().splitlines()[-1]}"
