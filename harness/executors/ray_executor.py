"""Executor that trains runs in Ray actors, each kept for many runs, on this machine or on a cluster.

`WorkerHandle` is the driver-side handle of one Ray actor: submit a job, receive its records, kill it.
"""

import contextlib
import os
import signal
import time
from collections import Counter, deque
from dataclasses import replace
from typing import Any

from harness import __version__
from harness.errors import ExecutorError, WorkerLost, one_line
from harness.executors import ray_cluster
from harness.executors.base import STOP_GRACE_S, AcceptedJob, WorkerRequest
from harness.executors.ray_worker import RayWorker, WorkerInfo, cause_of_death
from harness.training.run import Ended, Job, Record, RunState

RECEIVE_S = 30.0
"""Maximum time to read a record that is ready."""
CONTROL = "control"
"""Concurrency group of an actor: its thread serves `stop` and `report` while the main one trains."""
RECEIVE_TIMEOUT_S = 1.0
"""Maximum time to wait for a record before time limits are checked."""
REPORT_TIMEOUT_S = 50.0
"""Maximum time for the first worker of a cluster to report. Twice that and a restart take less than two minutes."""
MAX_RESTARTS = 2
"""Maximum number of restarts of a cluster started here without a record in between; one if no worker reports."""
DEATHS_PER_WORKER = 2
"""Maximum number of deaths in a row, per worker on average, before a worker is ready."""


def actor_class(cpus: int, gpus: float) -> Any:
    """The Ray actor class of all workers. Ray does not restart an actor: its run is resumed from a checkpoint."""
    import ray

    remote: Any = ray.remote
    return remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, concurrency_groups={CONTROL: 1})(RayWorker)


class WorkerHandle:
    """Driver-side handle of one actor, which starts asynchronously; that takes seconds."""

    def __init__(self, actors: Any, cpus: int) -> None:
        self.task: AcceptedJob | None = None
        self.has_yielded = False
        """Whether the task has yielded a record."""
        self.is_stopping = False
        """Whether a stop of the task was requested."""
        self._actor = actors.remote()
        self._greeting: WorkerInfo | None = None
        self._awaited: Any = self._actor.greet.remote(cpus)
        self._report = self._actor.report.options(concurrency_group=CONTROL).remote()
        self._start = time.monotonic()
        self._ticket = 0

    @property
    def pending_ref(self) -> Any:
        """The reference to wait for before `next_record`: to the greeting or the task's next record; else None."""
        return self._awaited

    @property
    def is_ready(self) -> bool:
        """Whether the actor has started."""
        return self._greeting is not None

    @property
    def is_free(self) -> bool:
        """Whether a job can be submitted."""
        return self._awaited is None

    def is_silent(self, limit_s: float) -> bool:
        """Whether the worker has existed for `limit_s` and its process, even one that still loads, has not reported."""
        import ray

        is_late = self._greeting is None and time.monotonic() - self._start > limit_s
        return is_late and not ray.wait([self._report], timeout=0)[0]

    def submit(self, job: Job) -> None:
        """Start to train a job."""
        self._ticket += 1
        self.task, self.has_yielded, self.is_stopping = AcceptedJob(job), False, False
        self._awaited = self._actor.train.options(num_returns="streaming").remote(job, self._ticket)

    def next_record(self) -> Record | None:
        """The next record; None for the greeting. Raises `WorkerLost` if the worker is dead."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            if self.task is None:
                self._check_worker(ray.get(self._awaited, timeout=RECEIVE_S))
                return None
            record: Record = ray.get(next(self._awaited), timeout=RECEIVE_S)
        except RayTaskError as error:
            record = self._failed(error.cause)
        except RayError as error:
            raise WorkerLost(cause_of_death(error)) from error
        self.has_yielded = True
        if isinstance(record, Ended):
            self.task = self._awaited = None
        return record

    def stop(self) -> None:
        """Request that the task stops."""
        self.is_stopping = True
        self._actor.stop.options(concurrency_group=CONTROL).remote(self._ticket)

    def end(self) -> None:
        """Kill the actor, even while it trains."""
        import ray

        ray.kill(self._actor)

    def end_process(self) -> None:
        """Kill the process of a worker that hangs, which `ray.kill` may not end."""
        self.end()
        if self._greeting is None:
            return
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote: Any = ray.remote
        on_node = NodeAffinitySchedulingStrategy(self._greeting.node_id, soft=False)
        remote(num_cpus=0, scheduling_strategy=on_node)(_kill).remote(self._greeting.pid)

    def kill_here(self) -> None:
        """Kill the process of a worker on this machine after its cluster has ended."""
        if self._greeting is not None:
            _kill(self._greeting.pid)

    def _check_worker(self, greeting: WorkerInfo) -> None:
        if greeting.version != __version__:
            rule = f"every node of the cluster must have version {__version__} of the harness"
            remedy = "Install it there."
            raise ExecutorError(rule, value=greeting.version, place=f"node {greeting.node_id}", remedy=remedy)
        self._greeting = greeting
        self._awaited = None

    def _failed(self, error: Exception) -> Ended:
        """The last record of a task that raised an error. Raises `ExecutorError` if the greeting raised it."""
        if self.task is not None:
            return self.task.failed(error)
        rule = f"version {__version__} of the harness must work on every node of the cluster"
        remedy = "Install it there, with all that it needs."
        raise ExecutorError(rule, place=f"{type(error).__name__}: {one_line(error)}", remedy=remedy) from error


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class RayExecutor:
    """Trains as many runs at a time as there are workers. A worker that dies is replaced, and its run ends LOST.

    On a cluster that was joined, and without a number of workers, there are as many as fit at any time: nodes may join
    and leave.
    """

    def __init__(self, request: WorkerRequest) -> None:
        if request.address is None:
            ray_cluster.start_cluster()
        else:
            ray_cluster.connect(request.address)
        self._request = request
        self._is_own = request.address is None
        self._watch = ray_cluster.ClusterMonitor()
        self._restarts = 0
        """Restarts of the cluster since the last record."""
        self._records: list[tuple[str, Record]] = []
        self._waiting: deque[Job] = deque()
        self._workers: list[WorkerHandle] = []
        self._deaths = 0
        """Workers in a row that died before they were ready."""
        self._given_back: Counter[str] = Counter()
        """By run id: how often a worker died after the run was submitted to it and before its first record."""
        try:
            self.slots, self._gpus = ray_cluster.allocate(request)
        except ExecutorError:
            self.shutdown()
            raise
        self._cpus = request.cpus
        self._actors = actor_class(request.cpus, self._gpus)
        self._workers = [WorkerHandle(self._actors, request.cpus) for _ in range(self.slots)]

    def submit(self, job: Job) -> None:
        """See `Executor`, as for all methods of this class."""
        self._waiting.append(replace(job, folder=job.folder.absolute(), cpus=self._cpus, gpus=self._gpus))
        self._assign()

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:  # noqa: D102
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = deadline - time.monotonic()
            self._receive(0.0 if self._records else min(max(left_s, 0.0), RECEIVE_TIMEOUT_S))
            self._check_cluster()
            self._follow_cluster()
            self._end_overdue()
            self._assign()
            if self._records or left_s <= 0:
                records, self._records = self._records, []
                return records

    def stop(self, run_id: str) -> None:  # noqa: D102
        for worker in self._workers:
            if worker.task is not None and worker.task.run_id == run_id:
                worker.stop()
        for job in [job for job in self._waiting if job.run.id == run_id]:
            self._waiting.remove(job)
            self._records.append((run_id, Ended(RunState.STOPPED, wall_s=0.0, cause="stopped before it began")))

    def shutdown(self) -> None:  # noqa: D102
        workers, self._workers = self._workers, []
        self._waiting.clear()
        self._records.clear()
        is_broken = self._watch.fault() is not None
        self._watch.end()
        with ray_cluster.shutdown_timeout(by_force=is_broken):
            for worker in () if is_broken else workers:
                worker.end()
        ray_cluster.disconnect(by_force=is_broken)

    def _assign(self) -> None:
        """Submit waiting jobs to free workers."""
        for worker in self._workers:
            if self._waiting and worker.is_free:
                worker.submit(self._waiting.popleft())

    def _receive(self, timeout_s: float) -> None:
        """Collect all records that are ready; waits up to `timeout_s` for the first."""
        import ray

        awaited = self._awaited()
        if not awaited:
            time.sleep(timeout_s)
            return
        ready, _ = ray.wait(list(awaited), timeout=timeout_s)
        while ready:
            for reference in ready:
                self._handle_record(awaited[reference])
            awaited = self._awaited()
            ready = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)[0] if awaited else []

    def _awaited(self) -> dict[Any, WorkerHandle]:
        return {worker.pending_ref: worker for worker in self._workers if worker.pending_ref is not None}

    def _handle_record(self, worker: WorkerHandle) -> None:
        task = worker.task
        try:
            record = worker.next_record()
        except WorkerLost as lost:
            self._replace(worker, lost)
            return
        if task is None:
            self._deaths = 0
        elif record is not None:
            del self._given_back[task.run_id]
            self._restarts = 0
            self._records.append((task.run_id, record))

    def _check_cluster(self) -> None:
        """Restart a broken cluster that was started here. Raises `ExecutorError` if that is not possible."""
        fault, is_silent = self._watch.fault(), False
        if fault is None and self._workers and all(worker.is_silent(REPORT_TIMEOUT_S) for worker in self._workers):
            fault, is_silent = f"no worker has reported within {REPORT_TIMEOUT_S:g} s", True
        if fault is None:
            return
        if self._is_own and self._restarts < (1 if is_silent else MAX_RESTARTS):
            self._restart(f"the Ray cluster was lost: {fault}")
            return
        remedy = "Nothing is lost: run the same command again."
        if not self._is_own:
            remedy = f"Check the cluster with `ray status`. {remedy}"
        elif is_silent:
            remedy = f"Free memory and processors of this machine, or train with `--executor inline`. {remedy}"
        raise ExecutorError("a Ray cluster must work for as long as a study is trained", place=fault, remedy=remedy)

    def _follow_cluster(self) -> None:
        """Start workers for nodes that have joined, and give up those that wait for a node that has left."""
        is_fixed = self._is_own or self._request.workers is not None
        capacity = None if is_fixed else self._watch.capacity(self._cpus, self._gpus)
        if not capacity:  # unknown, or no node is left, which `_check_cluster` handles
            return
        wanted = ray_cluster.slots_for(self._request, capacity)
        for _ in range(len(self._workers), wanted):
            self._workers.append(WorkerHandle(self._actors, self._cpus))
        surplus = max(0, len(self._workers) - wanted)
        for worker in [worker for worker in self._workers if not worker.is_ready][:surplus]:
            worker.end()
            self._workers.remove(worker)
        self.slots = len(self._workers)

    def _restart(self, cause: str) -> None:
        """Restart the cluster and its workers. Runs that had begun are lost; the others stay first in the queue."""
        workers, self._workers = self._workers, []
        for worker in reversed(workers):
            task = worker.task
            if task is not None and (worker.has_yielded or worker.is_stopping):
                self._records.append((task.run_id, task.ended(RunState.LOST, cause)))
            elif task is not None:
                self._waiting.appendleft(task.job)
        self._watch.end()
        ray_cluster.disconnect(by_force=True)
        for worker in workers:
            worker.kill_here()
        self._restarts += 1
        ray_cluster.start_cluster()
        self._watch = ray_cluster.ClusterMonitor()
        self._actors = actor_class(self._cpus, self._gpus)
        self._workers = [WorkerHandle(self._actors, self._cpus) for _ in workers]

    def _replace(self, worker: WorkerHandle, error: WorkerLost) -> None:
        """Start another worker. A run that the lost one had not begun is queued again, without a record.

        That happens at most `slots` times, because all workers may have died with their node; after that, the run is
        taken as the cause and ends LOST.
        """
        self._start_replacement(worker)
        task = worker.task
        if task is None:
            self._deaths += 1
            if self._deaths > DEATHS_PER_WORKER * self.slots:
                raise ExecutorError("workers must live long enough to train", place=str(error)) from error
        elif worker.has_yielded or worker.is_stopping or self._given_back[task.run_id] == self.slots:
            del self._given_back[task.run_id]
            self._records.append((task.run_id, task.ended(RunState.LOST, str(error))))
        else:
            self._given_back[task.run_id] += 1
            self._waiting.appendleft(task.job)

    def _end_overdue(self) -> None:
        """Kill the workers of runs that hang."""
        for worker in list(self._workers):
            task = worker.task
            if task is not None and time.monotonic() > task.start + 60 * task.job.minutes + STOP_GRACE_S:
                worker.end_process()
                self._start_replacement(worker)
                cause = f"the run did not end at its limit of {task.job.minutes:g} minutes"
                self._records.append((task.run_id, task.ended(RunState.TIMED_OUT, cause)))

    def _start_replacement(self, worker: WorkerHandle) -> None:
        self._workers[self._workers.index(worker)] = WorkerHandle(self._actors, self._cpus)
