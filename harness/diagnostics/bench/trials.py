"""What a trial costs in addition to its training: in a study with each executor, and with Ray Tune and Optuna's search.

All have random search, the same number of workers and trials that take next to no time. A study's trial is driven,
stored and trained in a worker, for an epoch of a tiny network; its overhead is the time of a worker per trial less
what the run itself takes. Of `ray.tune` with `OptunaSearch`, which stores nothing in a database, the trial is a
function that reports one number, and all of its time is overhead. Time counts from the start of the first trial to the
end of the last one, so that no start of a cluster is in it.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.analysis.study_reader import open_space
from harness.config.study_file import load_study
from harness.diagnostics.bench.base import BenchResult, BenchSize
from harness.errors import HarnessError
from harness.executors import WITH_RAY, make_executor, ray_cluster
from harness.executors.base import WorkerRequest
from harness.search.events import RunEnded, RunStarted
from harness.search.session import open_for_driving
from harness.storage.workspace import Workspace
from harness.system.machine import available_cpus
from harness.training.run import RunState

OVER_TUNE = 0.2
"""The target: the overhead of a study's trial, over that of a trial of `ray.tune` with `OptunaSearch`."""
STUDY: dict[str, Any] = {
    "study": "trial_cost",
    "base": {"B": [1, 1, 1, 1], "C": [4, 4, 8, 8], "K": [3, 3, 3, 3], "stem_stride": 2, "ffn_ratio": 2},
    "axes": {"recipe.optimizer.lr": {"low": 0.001, "high": 1.0, "step": 0.001}},  # of one network, timed once
    "search": {"sampler": "random", "seeds": 1},
    "proxy": {
        "rendering": "textured",
        "difficulty": 0,
        "resolution": 16,
        "train_size": 8,
        "val_size": 8,
        "final_val_size": 8,
        "epochs": 1,
        "batch_size": 8,
        "schedule": {"warmup_epochs": 0},
    },
}


def trial_overhead(effort: BenchSize) -> Iterator[BenchResult]:
    """Milliseconds of a worker per trial that are not training, by round, and their ratios to Tune's."""
    workers = min(2, available_cpus())
    ways: dict[str, Callable[[], float]] = {
        executor: lambda executor=executor: _of_study(executor, workers, effort.overhead_trials)  # type: ignore[misc]
        for executor in WITH_RAY
    }
    ways["OptunaSearch"] = lambda: _of_optuna_search(workers, effort.overhead_trials)
    overheads_ms: dict[str, list[float]] = {way: [] for way in ways}
    for i in range(effort.rounds):
        for way in list(ways)[:: -1 if i % 2 else 1]:
            overheads_ms[way].append(1000 * ways[way]())
    for executor in WITH_RAY:
        ratios = [a / b for a, b in zip(overheads_ms[executor], overheads_ms["OptunaSearch"], strict=True)]
        name = f"overhead of a trial with --executor {executor}, over ray.tune with OptunaSearch"
        yield BenchResult(name=name, unit="x", values=tuple(ratios), at_most=OVER_TUNE)
        yield BenchResult(name=f"--executor {executor}", unit="ms", values=tuple(overheads_ms[executor]), is_part=True)
    values = tuple(overheads_ms["OptunaSearch"])
    yield BenchResult(name="ray.tune with OptunaSearch", unit="ms", values=values, is_part=True)


def _of_study(executor: str, workers: int, trials: int) -> float:
    """Seconds of a worker per trial that are not training."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "study.yaml")
        path.write_text(json.dumps(STUDY | {"search": STUDY["search"] | {"trials": trials}}), encoding="utf-8")
        file = load_study(path)
        request = WorkerRequest(workers=workers)
        start_s, end_s, run_s = 0.0, 0.0, []
        with open_for_driving(
            file, open_space(file), Workspace(Path(folder, "results")), lambda: make_executor(executor, request)
        ) as driven:
            for event in driven.driver.events():
                if isinstance(event, RunStarted) and not start_s:
                    start_s = time.perf_counter()
                elif isinstance(event, RunEnded):
                    if event.state != RunState.COMPLETE:
                        raise HarnessError(f"a run of the bench must be complete, but is {event.state}: {event.cause}")
                    end_s = time.perf_counter()
                    run_s.append(event.wall_s)
    return (end_s - start_s) * workers / len(run_s) - statistics.fmean(run_s)


def _of_optuna_search(workers: int, trials: int) -> float:
    """Seconds of a worker per trial of `ray.tune` that reports a number."""
    import optuna
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    starts: list[float] = []

    class FirstStart(tune.Callback):
        def on_trial_start(self, **_: Any) -> None:  # type: ignore[override]
            starts.append(time.perf_counter())

    def trial(config: dict[str, Any]) -> None:
        tune.report({"top1": config["lr"]})

    space = {"lr": tune.quniform(0.001, 1.0, 0.001)}
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        ray_cluster.start_cluster()
        stack.callback(ray_cluster.disconnect)
        stack.enter_context(_without_tables())
        search = OptunaSearch(metric="top1", mode="max", sampler=optuna.samplers.RandomSampler(seed=0))
        tuner = tune.Tuner(
            trial,
            param_space=space,
            tune_config=tune.TuneConfig(search_alg=search, num_samples=trials, max_concurrent_trials=workers),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[FirstStart()]),
        )
        results = tuner.fit()
        end_s = time.perf_counter()
    if results.num_errors or len(results) != trials:
        raise HarnessError(f"all {trials} trials of Ray Tune must end well, but {results.num_errors} did not")
    return (end_s - starts[0]) * workers / trials


@contextmanager
def _without_tables() -> Iterator[None]:
    """Tune prints no tables meanwhile."""
    before = os.environ.get("RAY_AIR_NEW_OUTPUT")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    try:
        yield
    finally:
        del os.environ["RAY_AIR_NEW_OUTPUT"]
        if before is not None:
            os.environ["RAY_AIR_NEW_OUTPUT"] = before
