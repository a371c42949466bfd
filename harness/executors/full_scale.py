"""A training at full scale: in this process for a single local worker, else in workers of Ray Train.

Ray Train starts its workers on this machine or on the search's cluster. They communicate through files in the
training's folder, which every worker must be able to access: the messages of rank 0 as JSON lines, a stop request, and
the error that ended a worker.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.batching import BatchPlan
from harness.errors import (
    Diverged,
    ExecutorError,
    HarnessError,
    OutOfMemory,
    RunFailure,
    Stopped,
    TimedOut,
    UserError,
    WorkerLost,
    one_line,
)
from harness.executors import ray_cluster
from harness.executors.base import WorkerRequest
from harness.system.device_slot import computing
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import FullScaleMessage, from_plain, to_plain

if TYPE_CHECKING:
    import torch

    from harness.training.full_scale.process_group import ProcessGroup

LIVE, STOP, REASON = "live.jsonl", "stop", "reason.json"
RAY_FOLDER = "ray"
"""Folder of Ray Train's own files; a training is resumed without them."""
POLL_S = 0.1
"""Interval at which the files are read."""
START_TIMEOUT_S = 100.0
"""Maximum time for the workers to start."""
WORKERS_END_TIMEOUT_S = 30.0
"""Maximum time for Ray Train to end after a stop request."""
READY_FILE = "ready"
"""The line that rank 0 writes before it opens its images, which may take long."""
WORKER_ERRORS: dict[str, type[HarnessError]] = {
    kind.__name__: kind for kind in (Stopped, Diverged, OutOfMemory, TimedOut, WorkerLost, UserError, RunFailure)
}
"""The errors that a worker's file names, by which the state of the training is chosen; any other is a `RunFailure`."""


def train_full_scale(
    job: FullScaleJob[Any], request: WorkerRequest, *, should_stop: Callable[[], bool]
) -> Iterator[FullScaleMessage]:
    """The messages of the training: from this process for a single local worker, else from the first Ray worker."""
    if request.workers == 1 and request.address is None:
        from harness.training.full_scale.process_group import ProcessGroup
        from harness.training.full_scale.worker import run_worker

        return run_worker(job, ProcessGroup(device_for(job)), should_stop=should_stop)
    return train_with_ray(job, request, should_stop=should_stop)


def device_for(job: FullScaleJob[Any]) -> "torch.device":
    """The GPU if there is one, else the CPU. Raises `UserError` for a precision that a CPU does not support."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if job.run.recipe.precision == "float16":
        raise UserError("`precision: float16` needs a GPU", remedy="Take `--precision bfloat16` or float32.")
    return torch.device("cpu")


@computing()
def open_task(job: FullScaleJob[Any], make: Callable[[FullScaleJob[Any], "ProcessGroup"], Any] | None = None) -> Any:
    """The task in this process, with as many threads as a worker has: the recipe's, or the result of `make`."""
    import torch

    from harness.training.full_scale.process_group import ProcessGroup
    from harness.training.tasks import TASKS

    torch.set_num_threads(job.threads)
    return (make or TASKS[job.run.recipe.task])(job, ProcessGroup(device_for(job)))


def measure_step(job: FullScaleJob[Any], batch_plan: BatchPlan, task: Any) -> float:
    """Seconds per image of a training step in this process."""
    from harness.training.full_scale.loop import TrainingContext
    from harness.training.full_scale.step_time import seconds_per_image

    return seconds_per_image(TrainingContext(job, task, batch_plan, task.team))


def train_with_ray(
    job: FullScaleJob[Any], request: WorkerRequest, *, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[FullScaleMessage]:
    """Run `run_worker` in every worker and yield the messages of rank 0.

    Raises `ExecutorError` if the workers cannot be started, and what `run_worker` raises.
    """
    if request.address is None:
        ray_cluster.start_cluster()
    else:
        ray_cluster.connect(request.address)
    watch = ray_cluster.ClusterMonitor()
    try:
        workers, gpus = ray_cluster.allocate(request)
        yield from _follow_workers(job, workers, request.cpus, gpus, should_stop, watch)
    finally:
        is_broken = watch.fault() is not None
        watch.end()
        ray_cluster.disconnect(by_force=is_broken)


def _follow_workers(
    job: FullScaleJob[Any],
    workers: int,
    cpus: int,
    gpus: float,
    should_stop: Callable[[], bool],
    watch: ray_cluster.ClusterMonitor,
) -> Iterator[FullScaleMessage]:
    """Start the workers, and yield messages until they are done. Raises `ExecutorError` for a broken cluster."""
    job.folder.mkdir(parents=True, exist_ok=True)
    _remove_stale_files(job.folder)
    (job.folder / REASON).unlink(missing_ok=True)
    live = job.folder / LIVE
    live.write_text("", encoding="utf-8")
    fitting, start = _call_in_daemon_thread(lambda: _fit(job, workers, cpus, gpus)), time.monotonic()
    with live.open(encoding="utf-8") as lines:
        try:
            while not fitting.done():
                if should_stop():
                    (job.folder / STOP).touch()
                yield from _read_messages(lines)
                is_late = live.stat().st_size == 0 and time.monotonic() - start > START_TIMEOUT_S
                _require_working(
                    watch.fault() or (f"no worker has begun within {START_TIMEOUT_S:g} s" if is_late else None)
                )
                time.sleep(POLL_S)
            yield from _read_messages(lines)
        finally:
            (job.folder / STOP).touch()
            if watch.fault() is None:
                wait([fitting], WORKERS_END_TIMEOUT_S)
    _remove_stale_files(job.folder)
    raise_worker_error(job.folder, fitting)


def _call_in_daemon_thread(call: Callable[[], None]) -> "Future[None]":
    """Call in a thread that ends with the process: a call that hangs in a broken cluster must not keep it alive."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, daemon=True).start()
    return future


def _require_working(fault: str | None) -> None:
    if fault is not None:
        rule = "a Ray cluster must work for as long as a network is trained"
        remedy = "Nothing is lost: the same command resumes from the last checkpoint."
        raise ExecutorError(rule, place=fault, remedy=remedy)


def _remove_stale_files(folder: Path) -> None:
    """Remove files of an earlier call."""
    for name in (LIVE, STOP):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)


def _fit(job: FullScaleJob[Any], workers: int, cpus: int, gpus: float) -> None:
    """Let Ray Train call `_work` in every worker; called in a separate thread, so that signals reach the main one."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = {"CPU": float(cpus), **({"GPU": gpus} if gpus else {})}
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(name=RAY_FOLDER, storage_path=str(job.folder)),
    )
    trainer.fit()


def _work(config: dict[str, Any]) -> None:
    """Entry point of one worker."""
    import ray.train
    from ray.train.torch import get_device

    from harness.training.full_scale.process_group import ProcessGroup
    from harness.training.full_scale.worker import run_worker

    job: FullScaleJob[Any] = config["job"]
    context = ray.train.get_context()
    group = ProcessGroup(get_device(), context.get_world_rank(), context.get_world_size())
    stop = job.folder / STOP
    try:
        with (job.folder / LIVE).open("a", encoding="utf-8") as live:
            for values in chain([READY_FILE], map(to_plain, run_worker(job, group, should_stop=stop.exists))):
                if group.is_main:
                    live.write(f"{json.dumps(values)}\n")
                    live.flush()
    except Stopped as stopped:  # raised in all workers at the same step
        write_worker_error(job.folder, stopped)
    except HarnessError as error:  # the other workers may wait for this one: Ray ends them
        write_worker_error(job.folder, error)
        raise RuntimeError(str(error)) from None


def _read_messages(lines: Any) -> Iterator[FullScaleMessage]:
    """The messages written since the last call; a line that is not complete yet is left for the next."""
    while True:
        at = lines.tell()
        line = lines.readline()
        if not line.endswith("\n"):
            lines.seek(at)
            return
        values = json.loads(line)
        if values != READY_FILE:
            yield from_plain(values)


def write_worker_error(folder: Path, error: HarnessError) -> None:
    """Write the error that ended this worker to a file."""
    kind = next((name for name, kind in WORKER_ERRORS.items() if isinstance(error, kind)), RunFailure.__name__)
    (folder / REASON).write_text(json.dumps({"kind": kind, "text": str(error)}), encoding="utf-8")


def raise_worker_error(folder: Path, fitting: "Future[None]") -> None:
    """Raise the error that ended a worker; do nothing if all completed."""
    reason, error = folder / REASON, fitting.exception()
    if reason.exists():
        values = json.loads(reason.read_text(encoding="utf-8"))
        raise WORKER_ERRORS[values["kind"]](values["text"].rstrip("."))
    if error is not None:
        rule = "the workers must live to the end"
        remedy = "The same command resumes from the last checkpoint."
        raise ExecutorError(rule, place=one_line(error), remedy=remedy) from error
