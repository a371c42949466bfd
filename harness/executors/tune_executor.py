"""Executor that trains runs as trials of Ray Tune, whose callbacks, loggers and storage a study can then use.

Tune's loop runs in a thread of the driver's process. A searcher gives it the submitted runs, a scheduler the stops, and
a callback takes the records of each trial's results, which the user's callbacks and loggers receive as plain numbers.
The states are those of the records: a loss of NaN is `DIVERGED`, whatever Tune makes of it.

A trial is one attempt at a run. Tune starts none again by itself, since the driver decides that. A stop takes effect at
the end of an epoch; a run that hangs is ended with its process at its time limit.
"""

import contextlib
import importlib
import os
import pickle
import queue
import runpy
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from harness.errors import ExecutorError, cause_of
from harness.executors import ray_cluster
from harness.executors.base import STOP_GRACE_S, AcceptedJob, WorkerRequest, run_job_logged
from harness.executors.ray_worker import cause_of_death, free_memory, load_training, output_to
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState

if TYPE_CHECKING:
    from ray.tune import RunConfig
    from ray.tune.experiment import Trial

JOB = "job"
"""Key of a trial's configuration: the job, in addition to what loggers show of it."""
RECORDS = "records"
"""Key of a trial's result: the records, which the executor removes before any other callback sees the result."""
END_S = 60.0
"""Maximum time for Tune's loop to end; it takes 2 to 6 s, more on a busy machine. Ray cannot be left safely before."""


class RunTrainable(tune.Trainable):
    """Tune's class of a run: a step yields its start, an epoch, or its measures with its end."""

    def setup(self, config: dict[str, Any]) -> None:
        """Load all that a run needs, once for all runs of this process."""
        load_training(config[JOB].cpus)
        self._begin(config[JOB])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Train another run in this process."""
        self.cleanup()
        self._begin(new_config[JOB])
        return True

    def step(self) -> dict[str, Any]:
        """The next records with their numbers by name; the run is done when one of them is an `Ended`."""
        records: list[Record] = []
        try:
            with output_to(self._task.job.log):
                for record in self._records:
                    records.append(record)
                    if not isinstance(record, Measured):
                        break
        except Exception as error:  # of the run's log
            records.append(self._task.failed(error))
        result: dict[str, Any] = {RECORDS: records, "done": isinstance(records[-1], Ended)}
        for record in records:
            result |= _numbers(record)
        return result

    def cleanup(self) -> None:
        """End a run that was stopped, and free its memory."""
        self._records.close()
        free_memory()

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> "tune.PlacementGroupFactory":
        """The resources of one worker."""
        return tune.PlacementGroupFactory([{"CPU": config[JOB].cpus, "GPU": config[JOB].gpus}])

    def _begin(self, job: Job) -> None:
        os.chdir(os.environ.get("TUNE_ORIG_WORKING_DIR", "."))  # Tune changes to a folder of the trial
        self._task = AcceptedJob(job)
        self._records: Any = run_job_logged(job, lambda: False)


def _numbers(record: Record) -> dict[str, Any]:
    """What a logger of Tune's shows of a record."""
    if isinstance(record, Epoch):
        numbers = {"epoch": record.epoch, "train_loss": record.train_loss, "val_loss": record.val_loss}
        return numbers | {"top1": record.top1, "lr": record.lr}
    if isinstance(record, Measured):
        return {record.name: record.value}
    return {"state": str(record.state)} if isinstance(record, Ended) else {}


class _Exchange:
    """What the driver's thread and Tune's thread share."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.lock = threading.Lock()
        self.waiting: deque[Job] = deque()
        self.running: dict[str, AcceptedJob] = {}
        """By Tune's id of the trial."""
        self.stopping: set[str] = set()
        """Ids of trials that end after their next result."""
        self.records: queue.SimpleQueue[tuple[str, Record]] = queue.SimpleQueue()
        self.is_over = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune stores what it needs to restore an experiment, but a study is restored by its driver."""
        return _Exchange, (self.slots,)

    def next_job(self, trial_id: str) -> Job | None:
        with self.lock:
            if not self.waiting or len(self.running) >= self.slots:
                return None
            job = self.waiting.popleft()
            self.running[trial_id] = AcceptedJob(job)
            return job

    def add(self, trial_id: str, record: Record) -> None:
        with self.lock:
            task = self.running.get(trial_id)
            if isinstance(record, Ended):
                self.running.pop(trial_id, None)
                self.stopping.discard(trial_id)
        if task is not None:
            self.records.put((task.run_id, record))

    def end(self, trial_id: str, ended: Callable[[AcceptedJob], Ended]) -> None:
        """Add the last record of a trial that has not yielded it."""
        task = self.running.get(trial_id)
        if task is not None:
            self.add(trial_id, ended(task))


class _JobSearcher(Searcher):
    """Gives Tune the submitted runs in their order."""

    def __init__(self, exchange: _Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    def suggest(self, trial_id: str) -> Any:
        if self._exchange.is_over:
            return Searcher.FINISHED
        job = self._exchange.next_job(trial_id)
        if job is None:
            return None
        run = job.run
        return {"run": run.id, "seed": run.seed, "network": run.spec.canonical(), JOB: job}

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """Nothing: the callback has the records."""

    def save(self, *_: Any) -> None:
        """Nothing: what was trained is in the study's database."""

    def restore(self, *_: Any) -> None:
        """Nothing: see `save`."""


class _StopScheduler(FIFOScheduler):
    """Stops the runs of which the driver has requested it."""

    def __init__(self, exchange: _Exchange) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._exchange = exchange
        self._keeps_processes = False

    def on_trial_add(self, tune_controller: Any, trial: "Trial") -> None:
        """Keep the process of every worker: Tune keeps one, since no further trial is waiting when one ends.

        Through a private attribute; where another version of Tune has none, further trials start new processes.
        """
        super().on_trial_add(tune_controller, trial)
        cache = getattr(getattr(tune_controller, "_tune_controller", tune_controller), "_actor_cache", None)
        if cache is not None and not self._keeps_processes:
            self._keeps_processes = True
            cache.increase_max(trial.placement_group_factory, by=self._exchange.slots)

    def on_trial_result(self, _: Any, trial: "Trial", result: Mapping[str, Any]) -> str:
        is_to_stop = trial.trial_id in self._exchange.stopping and not result.get("done")
        return str(TrialScheduler.STOP if is_to_stop else TrialScheduler.CONTINUE)


class _RecordCallback(tune.Callback):
    """Takes the records of each result, adds the last one where a trial has not yielded it, and ends hanging runs."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    def on_trial_result(self, *, trial: "Trial", result: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        for record in result.pop(RECORDS, ()):
            self._exchange.add(trial.trial_id, record)

    def on_trial_complete(self, *, trial: "Trial", **_: Any) -> None:  # type: ignore[override]
        def ended(task: AcceptedJob) -> Ended:
            is_asked = trial.trial_id in self._exchange.stopping
            return task.ended(RunState.STOPPED, "stopped" if is_asked else "stopped by Ray Tune")

        self._exchange.end(trial.trial_id, ended)

    def on_trial_error(self, *, trial: "Trial", **_: Any) -> None:  # type: ignore[override]
        error = _error_of(trial)

        def ended(task: AcceptedJob) -> Ended:
            if error is None or isinstance(error, RayActorError):
                cause = "the worker is gone" if error is None else cause_of_death(error)
                return task.ended(RunState.LOST, cause)
            return task.failed(getattr(error, "cause", None) or error)

        self._exchange.end(trial.trial_id, ended)

    def on_step_begin(self, *, trials: list["Trial"], **_: Any) -> None:  # type: ignore[override]
        now = time.monotonic()
        for trial_id, task in list(self._exchange.running.items()):
            if now <= task.start + 60 * task.job.minutes + STOP_GRACE_S:
                continue
            cause = f"the run did not end at its limit of {task.job.minutes:g} minutes"
            self._exchange.add(trial_id, task.ended(RunState.TIMED_OUT, cause))
            actors = [trial.temporary_state.ray_actor for trial in trials if trial.trial_id == trial_id]
            for actor in filter(None, actors):
                ray.kill(actor)


def _error_of(trial: "Trial") -> Exception | None:
    """The error with which a trial ended, as Tune has kept it on this machine."""
    if trial.pickled_error_file is None or not Path(trial.pickled_error_file).is_file():
        return None
    error: Exception = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    return error


class _EndStopper(tune.Stopper):
    """Ends Tune's loop when the executor is shut down."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    def __call__(self, *_: Any) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._exchange.is_over


def load_run_config(text: str) -> "RunConfig":
    """The `ray.tune.RunConfig` that `FILE.py:NAME` or `package.module:NAME` is, or returns. Raises `ExecutorError`."""
    where, _, name = text.rpartition(":")
    remedy = "Write `FILE.py:NAME` or `package.module:NAME`; NAME is a `ray.tune.RunConfig`, or a function without "
    remedy += "arguments that returns one."
    try:
        names = (
            runpy.run_path(str(Path(where).absolute()))
            if where.endswith(".py")
            else vars(importlib.import_module(where))
        )
        config = names[name]() if callable(names[name]) else names[name]
    except Exception as error:
        rule = f"the configuration of Ray Tune must be found, but {cause_of(error)}"
        raise ExecutorError(rule, value=text, place="--tune-config", remedy=remedy) from error
    if not isinstance(config, tune.RunConfig):
        rule = f"the configuration of Ray Tune must be a `ray.tune.RunConfig`, but is a {type(config).__name__}"
        raise ExecutorError(rule, value=text, place="--tune-config", remedy=remedy)
    _require_usable(config, text)
    return config


def _require_usable(config: "RunConfig", text: str) -> None:
    """Refuse what the driver of a study decides itself."""
    decided = {
        "stop": config.stop is not None,
        "failure_config": config.failure_config not in (None, tune.FailureConfig()),
        "checkpoint_config": config.checkpoint_config != tune.CheckpointConfig(),
    }
    for name, is_given in decided.items():
        if is_given:
            raise ExecutorError(
                f"`{name}` of Ray Tune's configuration must be left out, since the driver of a study decides that",
                value=getattr(config, name),
                place=text,
                remedy="Stops, repeated attempts and checkpoints are those of the study file.",
            )


class TuneExecutor:
    """Trains as many runs at a time as there are workers, each as a trial of Ray Tune."""

    def __init__(self, request: WorkerRequest, run_config: "RunConfig | None" = None) -> None:
        if run_config is None and request.tune_config is not None:
            run_config = load_run_config(request.tune_config)
        elif run_config is not None:
            _require_usable(run_config, "RunConfig")
        if request.address is None:
            ray_cluster.start_cluster()
        else:
            ray_cluster.connect(request.address)
        try:
            self.slots, self._gpus = ray_cluster.allocate(request)
        except ExecutorError:
            ray_cluster.disconnect()
            raise
        self._cpus = request.cpus
        self._exchange = _Exchange(self.slots)
        self._folder: str | None = None
        self._error: BaseException | None = None
        try:
            tuner = self._tuner(run_config)
        except Exception as error:
            ray_cluster.disconnect()
            rule = f"Ray Tune must take its configuration, but {cause_of(error)}"
            remedy = "`storage_path` is an absolute path, or an address such as s3://bucket/folder."
            raise ExecutorError(rule, place=request.tune_config, remedy=remedy) from error
        self._thread = threading.Thread(target=self._run, args=(tuner,), daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """See `Executor`, as for all methods of this class."""
        with self._exchange.lock:
            self._exchange.waiting.append(replace(job, folder=job.folder.absolute(), cpus=self._cpus, gpus=self._gpus))

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:  # noqa: D102
        records: list[tuple[str, Record]] = []
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(queue.Empty):
                wait_s = 0.0 if records else min(1.0, max(0.0, deadline - time.monotonic()))
                records.append(self._exchange.records.get(block=wait_s > 0, timeout=wait_s or None))
                continue
            if not records and not self._thread.is_alive():
                raise ExecutorError(
                    "Ray Tune must run for as long as a study is trained",
                    place="its loop has ended" if self._error is None else cause_of(self._error),
                    remedy="Nothing is lost: run the same command again.",
                )
            if records or time.monotonic() >= deadline:
                return records

    def stop(self, run_id: str) -> None:  # noqa: D102
        exchange = self._exchange
        with exchange.lock:
            exchange.stopping |= {trial for trial, task in exchange.running.items() if task.run_id == run_id}
            for job in [job for job in exchange.waiting if job.run.id == run_id]:
                exchange.waiting.remove(job)
                cause = "stopped before it began"
                exchange.records.put((run_id, Ended(RunState.STOPPED, wall_s=0.0, cause=cause)))

    def shutdown(self) -> None:  # noqa: D102
        if self._exchange.is_over:
            return
        with self._exchange.lock:
            self._exchange.is_over = True
            self._exchange.waiting.clear()
        self._thread.join(END_S)
        ray_cluster.disconnect(by_force=self._thread.is_alive())
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, tuner: "tune.Tuner") -> None:
        try:
            tuner.fit()
        except BaseException as error:
            self._error = error

    def _tuner(self, run_config: "RunConfig | None") -> "tune.Tuner":
        if run_config is None:
            self._folder = tempfile.mkdtemp(prefix="harness-tune-")
            run_config = tune.RunConfig(storage_path=self._folder, verbose=0)
            os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
            os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # whose silence is not silent
        os.environ["RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE"] = "1"  # else Tune starts such a trial again by itself
        config = replace(
            run_config,
            callbacks=[_RecordCallback(self._exchange), *(run_config.callbacks or ())],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # runs keep their own
            stop=_EndStopper(self._exchange),
        )
        return tune.Tuner(
            RunTrainable,
            tune_config=tune.TuneConfig(
                search_alg=_JobSearcher(self._exchange),
                scheduler=_StopScheduler(self._exchange),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"{trial.config['run']}_{trial.trial_id}",
            ),
            run_config=config,
        )
