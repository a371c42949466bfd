"""The cost of the search itself per trial: ask, ten epochs that are stored, reported and checked by the pruner, tell.

Nothing is trained: a script yields a worker's records immediately. Every trial is better than all before it, so none is
pruned and each one has all ten epochs. All trials are really driven, on an SQLite database of their own.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.analysis.study_reader import open_space
from harness.config.study_file import StudyFile, load_study
from harness.diagnostics.bench.base import BenchResult, BenchSize
from harness.executors.scripted import ScriptedExecutor
from harness.search.events import TrialEnded
from harness.search.session import open_for_driving
from harness.storage.workspace import Workspace
from harness.system.device_slot import measuring_in_turns
from harness.training.environment import local_environment
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started

PER_TRIAL_MS = 60.0
"""The target in milliseconds."""
EPOCHS = 10
SAMPLERS = ("random", "tpe")
STUDY: dict[str, Any] = {
    "study": "driver_cost",
    "base": "replknet_nano",
    "axes": {
        **{f"K[{stage}]": {"low": 3, "high": 31, "step": 2} for stage in range(4)},
        "B[2]": [1, 2, 3],
        "reparam": [None, 3],
        "shortcut": [True, False],
        "drop_path": {"low": 0.0, "high": 0.2, "step": 0.1},
    },
    "search": {"seeds": 1, "pruner": "successive_halving"},
    "proxy": {"epochs": EPOCHS},
}
"""A study with eight axes; sampler and trials are filled in."""


def driver_cost(effort: BenchSize) -> Iterator[BenchResult]:
    """Milliseconds per trial for each sampler, in windows around the given lengths of the study."""
    half = effort.window // 2
    for sampler in SAMPLERS:
        with TemporaryDirectory() as folder:
            costs = trial_costs(Path(folder), sampler, max(effort.trials) + half)
        for n in effort.trials:
            window = costs[max(0, n - half) : n + half]
            walls = tuple(cost.wall_ms for cost in window)
            yield BenchResult(
                name=f"driver per trial, {sampler}, trial {n:,}", unit="ms", values=walls, at_most=PER_TRIAL_MS
            )
            yield BenchResult(name="processor", unit="ms", values=tuple(cost.cpu_ms for cost in window), is_part=True)


@dataclass(frozen=True, slots=True)
class TrialCost:
    """Time from the end of the previous trial to the end of this one: wall-clock time and processor time."""

    wall_ms: float
    cpu_ms: float


def trial_costs(folder: Path, sampler: str, trials: int) -> list[TrialCost]:
    """Drive a study with this number of trials; returns the cost of each."""
    file = _study_file(folder, sampler, trials)
    workspace = Workspace(folder / "results")
    costs = []
    with (
        open_for_driving(
            file, space=open_space(file), workspace=workspace, start_executor=lambda: ScriptedExecutor(_improving())
        ) as driven,
        measuring_in_turns() as renew,
    ):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        for event in driven.driver.events():
            driven.driver.progress()
            if isinstance(event, TrialEnded):
                wall_before, cpu_before = wall_s, cpu_s
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                costs.append(TrialCost(1000 * (wall_s - wall_before), 1000 * (cpu_s - cpu_before)))
                renew()
                wall_s, cpu_s = time.perf_counter(), time.process_time()
        complete = sum(trial.state.name == "COMPLETE" for trial in driven.trials())
    assert len(costs) == complete == trials, f"{complete} of {trials} trials are complete"
    return costs


def _study_file(folder: Path, sampler: str, trials: int) -> StudyFile:
    path = folder / "study.yaml"
    search = STUDY["search"] | {"sampler": sampler, "trials": trials}
    path.write_text(json.dumps(STUDY | {"search": search}), encoding="utf-8")  # JSON is YAML
    return load_study(path)


def _improving() -> Callable[[Job], Iterator[Record]]:
    """A script under which every run is better than all before it."""
    runs = count()

    def script(job: Job) -> Iterator[Record]:
        end = 50 + 0.001 * next(runs)
        yield Started(
            "host",
            1,
            "cpu (scripted)",
            job.cpus,
            {"harness": "0", "torch": "0"},
            epochs=EPOCHS,
            environment=local_environment(job.run.recipe, threads=job.cpus),
        )
        for n in range(1, EPOCHS + 1):
            top1 = end * n / EPOCHS
            yield Epoch(n, train_loss=1.0, val_loss=1.0, top1=top1, lr=0.1, wall_s=2.0, images_per_s=100.0)
        yield Measured("latency_ms_p50", 3.0)
        yield Measured("latency_ms_p90", 4.0)
        yield Measured("peak_memory_bytes", 5e8)
        yield Ended(RunState.COMPLETE, wall_s=20.0)

    return script
