"""Waiting times of a user, for the help and the first training step of a study, and the cost of the search per trial.

The time of the first step is the end of the first reported epoch minus the duration of this epoch. Except for the first
start, the files of Python and its libraries are in the disk's cache; the results folder is always new, so database and
data are created.

A trial costs: ask, ten epochs that are stored, reported and checked by the pruner, tell. Nothing is trained: a script
yields a worker's records immediately. Every trial is better than all before it, so none is pruned and each one has all
ten epochs. All trials are really driven, on an SQLite database of their own.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.analysis.study_reader import open_space
from harness.config.study_file import StudyFile, load_study
from harness.diagnostics.bench.base import ROOT, BenchResult, BenchSize, run_study
from harness.errors import HarnessError
from harness.executors.scripted import ScriptedExecutor
from harness.search.events import TrialEnded
from harness.search.session import open_for_driving
from harness.storage import Store
from harness.storage.workspace import DATABASE, Workspace
from harness.system.device_slot import measuring, measuring_in_turns, separate_slots
from harness.training.environment import local_environment
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started

HELP_S = 0.5
FIRST_STEP_S = {"inline": 5.0, "ray": 10.0}
"""The targets, by executor."""
PARTS = (
    "imports of the driver",
    "database and sampler",
    "start of the executor",
    "imports of the worker",
    "data and network",
)
"""The parts of the time to the first step, in order."""
PART_PATTERNS = (r"opening ", r"starting ", r"\d+ workers? ready", r"{run}: training on ")
"""Patterns of the lines of the study's output at which each part except the last ends."""
FIRST_EPOCH = re.compile(r"\S+ \S+  (\[\d+/\d+\] )?(?P<run>#(?P<trial>\d+) .*seed (?P<seed>\d+)): epoch \d+/")
COLORS = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Environment variables that would make output to a pipe look like output to a terminal."""
STOP_S = 60.0
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


def help_time(effort: BenchSize) -> Iterator[BenchResult]:
    """Measure the seconds of a process that prints the help."""
    values = []
    for _ in range(effort.helps):
        with measuring():
            start = time.perf_counter()
            subprocess.run([sys.executable, run_study(), "--help"], stdout=subprocess.DEVNULL, check=True)
            values.append(time.perf_counter() - start)
    yield BenchResult(name="run_study.py --help", unit="s", values=tuple(values), at_most=HELP_S)


def first_step(effort: BenchSize) -> Iterator[BenchResult]:
    """Measure the seconds from the command to the first training step of smoke.yaml, with each executor in turn."""
    study = ROOT / "search_spaces" / "smoke.yaml"
    times_s: dict[str, list[dict[str, float]]] = {executor: [] for executor in FIRST_STEP_S}
    with separate_slots() as alone:
        for i in range(effort.starts):
            for executor in list(times_s)[:: -1 if i % 2 else 1]:
                with TemporaryDirectory() as results, alone():
                    times_s[executor].append(parts_of_start(study, executor, Path(results)))
    for executor, starts in times_s.items():
        totals = tuple(sum(parts.values()) for parts in starts)
        name = f"command to first step, {executor}"
        yield BenchResult(name=name, unit="s", values=totals, at_most=FIRST_STEP_S[executor])
        for part in PARTS:
            yield BenchResult(name=part, unit="s", values=tuple(parts[part] for parts in starts), is_part=True)


def parts_of_start(study: Path, executor: str, results: Path) -> dict[str, float]:
    """Start a study in a new process and stop it after its first epoch; returns the seconds of each part."""
    lines = _lines_to_first_epoch(study, executor, results)
    epoch = FIRST_EPOCH.match(lines[-1].text)
    assert epoch is not None
    marks = [_time_of(mark.format(run=re.escape(epoch["run"])), lines) for mark in PART_PATTERNS]
    step = lines[-1].time_s - _seconds_of_first_epoch(study, results, int(epoch["trial"]), int(epoch["seed"]))
    ends = [*marks, step]
    return {part: end - start for part, start, end in zip(PARTS, [0.0, *ends], ends, strict=False)}


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that a process printed, and its time in seconds since the start of the process."""

    time_s: float
    text: str


def _lines_to_first_epoch(study: Path, executor: str, results: Path) -> list[_Line]:
    """The output of the study up to the end of its first epoch. Raises `HarnessError` if it ends before that."""
    command = [sys.executable, run_study(), str(study), "--executor", executor, "--results", str(results)]
    environment = {name: value for name, value in os.environ.items() if name not in COLORS}
    start = time.perf_counter()
    lines: list[_Line] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            lines.append(_Line(time.perf_counter() - start, text))
            if FIRST_EPOCH.match(text):
                _stop(process)
                return lines
    raise HarnessError(f"{study} ended before its first epoch: {' '.join(line.text for line in lines[-3:])}")


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop the process as Ctrl-C does, so that no remaining worker disturbs the next start."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _time_of(mark: str, lines: list[_Line]) -> float:
    pattern = re.compile(rf"\S+ \S+  (\[\d+/\d+\] )?{mark}")
    first = next((line for line in lines if pattern.match(line.text)), None)
    if first is None:
        raise HarnessError(f"the study must print a line with `{mark}` before its first epoch")
    return first.time_s


def _seconds_of_first_epoch(study: Path, results: Path, trial: int, seed: int) -> float:
    with Store.open(results / DATABASE, read_only=True) as store:
        runs = store.runs(store.trial_runs(load_study(study).study.study)[trial]).values()
        run_id = next(run.id for run in runs if run.run.seed == seed)
        return store.epochs(run_id)[0].wall_s


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
