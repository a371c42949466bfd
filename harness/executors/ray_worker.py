"""The Ray actor: it trains one run at a time, in a process that is kept for the next run."""

import gc
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import __version__
from harness.executors.base import run_job_logged
from harness.system.device_slot import computing
from harness.training.run import Ended, Job, Record

STDOUT_AND_STDERR = (1, 2)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Version and location of a worker, returned once it is ready to train."""

    version: str
    """Version of the harness on its node."""
    node_id: str
    """Ray's id of its node."""
    pid: int


def load_training(cpus: int) -> None:
    """Load all that a run needs into this process. Thread pools get at most `cpus` threads."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(cpus)
    with computing():  # loading takes seconds of a processor
        import torch

        import harness.executors.run_job  # noqa: F401

    torch.set_num_interop_threads(1)


class RayWorker:
    """Ray actor. `train` runs in one thread; `stop` and `report` run in another at the same time."""

    def __init__(self) -> None:
        self._stopping: set[int] = set()

    def greet(self, cpus: int) -> WorkerInfo:
        """Load all that a run needs, once for all runs; see `load_training`."""
        import ray

        load_training(cpus)
        return WorkerInfo(__version__, ray.get_runtime_context().get_node_id(), os.getpid())

    def report(self) -> None:
        """Return at once: the call itself shows that the process runs."""

    def train(self, job: Job, ticket: int) -> Iterator[Record]:
        """Yield the records of a job as they come; its output goes to its log. Frees its memory before the last one."""
        with output_to(job.log):
            for record in run_job_logged(job, lambda: ticket in self._stopping):
                if not isinstance(record, Ended):
                    yield record
        free_memory()
        yield record

    def stop(self, ticket: int) -> None:
        """Stop the run of that ticket at its next step, even if it has not begun."""
        self._stopping.add(ticket)


def cause_of_death(error: Exception) -> str:
    """Why an actor died: the relevant part of Ray's long message."""
    match = re.search(r"The actor is dead because (.*?)\.(?:\s|$)", str(error), re.DOTALL)
    return f"the worker is gone: {match.group(1) if match else str(error).strip().splitlines()[-1]}"


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Redirect all output of this process, also of native code and of a crash, to a file; keep no empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    originals = [os.dup(number) for number in STDOUT_AND_STDERR]
    with path.open("ab") as file:
        for number in STDOUT_AND_STDERR:
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, original in zip(STDOUT_AND_STDERR, originals, strict=True):
            os.dup2(original, number)
            os.close(original)
        if path.exists() and path.stat().st_size == 0:
            path.unlink()


def free_memory() -> None:
    """Free GPU memory: an idle worker must not occupy a GPU that it shares."""
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()
