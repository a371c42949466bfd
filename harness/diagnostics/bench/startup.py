"""Waiting times of a user: for the help, and from the command to the first training step of a study.

The time of the first step is the end of the first reported epoch minus the duration of this epoch. Except for the first
start, the files of Python and its libraries are in the disk's cache; the results folder is always new, so database and
data are created.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.config.study_file import load_study
from harness.diagnostics.bench.base import ROOT, BenchResult, BenchSize, run_study
from harness.errors import HarnessError
from harness.storage import Store
from harness.storage.workspace import DATABASE
from harness.system.device_slot import measuring, separate_slots

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
    start = time.perf_counter()
    lines: list[_Line] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_plain(os.environ), cwd=ROOT
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


def _plain(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in COLORS}
