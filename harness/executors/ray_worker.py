"""What a Ray worker does: one run at a time, in a process that is kept for the next one."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.executors.base import run_job_logged
from harness.system.device_slot import computing
from harness.training.run import Ended, Job, Record

STDOUT_AND_STDERR = (1, 2)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says when it is ready to train."""

    version: str
    """Of the harness that it has."""
    node_id: str
    """Ray's name of the machine that it is on."""
    pid: int


class RayWorker:
    """An actor. `run_job_logged` runs in one thread, and `stop` in another that listens meanwhile."""

    def __init__(self) -> None:
        self._stopping: set[int] = set()

    def greet(self, cpus: int) -> WorkerInfo:
        """Load all that a run needs, once for all runs. No thread pool is made larger than the worker's share."""
        for name in THREAD_VARIABLES:
            os.environ[name] = str(cpus)
        with computing():  # loading takes seconds of a processor
            import ray
            import torch

            import harness.executors.run_job

        torch.set_num_interop_threads(1)
        return WorkerInfo(harness.__version__, ray.get_runtime_context().get_node_id(), os.getpid())

    def report(self) -> None:
        """Say that the process runs."""

    def train(self, job: Job, ticket: int) -> Iterator[Record]:
        """The records of a job, live; what is printed meanwhile goes to its log. Nothing is left of it when it ends."""
        with _output_to(job.log):
            for record in run_job_logged(job, lambda: ticket in self._stopping):
                if not isinstance(record, Ended):
                    yield record
        _free_memory()
        yield record

    def stop(self, ticket: int) -> None:
        """End the run of that ticket at its next step, whether or not it has begun."""
        self._stopping.add(ticket)


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send all output of this process to a file, also what native code and a crash write; keep no empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = [os.dup(number) for number in STDOUT_AND_STDERR]
    with path.open("ab") as file:
        for number in STDOUT_AND_STDERR:
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in zip(STDOUT_AND_STDERR, before, strict=True):
            os.dup2(kept, number)
            os.close(kept)
        if path.exists() and path.stat().st_size == 0:
            path.unlink()


def _free_memory() -> None:
    """A worker that waits must not hold the memory of a GPU that it shares."""
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()
