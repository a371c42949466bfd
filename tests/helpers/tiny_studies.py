"""Studies small enough for tests: trained for real in a subprocess, or played by a script."""

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console, RenderableType

from harness.analysis.results import StudyResults, study_results
from harness.analysis.study_reader import open_space, open_study_reader
from harness.cli import main
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.study_file import StudyFile, load_study
from harness.executors.scripted import ScriptedExecutor
from harness.search.events import Progress, StudyEvent
from harness.search.samplers import SCREENING_SEEDS
from harness.search.session import DrivenStudy, open_for_driving
from harness.storage.workspace import Workspace
from harness.training.environment import local_environment
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started

REPOSITORY = Path(__file__).parents[2]
EPOCHS = 4
HERE = local_environment(ProxyRecipe())
VERSIONS = {"harness": "0.1.0", "python": "3.11.9", "torch": "2.15.0"}

TINY: dict[str, Any] = {
    "study": "tiny",
    "base": {"B": [1, 1, 1, 1], "C": [4, 4, 8, 8], "K": [3, 3, 3, 3], "stem_stride": 2, "ffn_ratio": 2},
    "axes": {"K": [[3, 3, 3, 3], [5, 5, 3, 3]]},
    "search": {"seeds": 2},
    "proxy": {
        "rendering": "textured",
        "difficulty": 0,
        "resolution": 16,
        "train_size": 256,
        "val_size": 32,
        "epochs": 2,
        "batch_size": 8,
        "schedule": {"warmup_epochs": 0},
    },
}
"""Trained in a second or two per run, to just above chance."""
BRIEF: dict[str, Any] = TINY["proxy"] | {"train_size": 64, "val_size": 8}
"""The proxy of studies in which no accuracy needs to be above chance."""

SCRIPTED: dict[str, Any] = {
    "study": "question",
    "base": "replknet_nano",
    "axes": {"K": [[3, 3, 3, 3], [13, 13, 13, 13], [31, 29, 27, 13]], "reparam": [None, 5]},
    "when": {"reparam": "max(K) > 5"},
    "search": {"seeds": 3},
    "proxy": {"epochs": EPOCHS, "schedule": {"warmup_epochs": 0}},
}


FOUR = {"axes": {"K": [[3, 3, 3, 3], [7, 7, 7, 7], [13, 13, 13, 13], [31, 29, 27, 13]]}, "when": {}}
"""Keys of a study with four configurations."""
INLINE = ("--executor", "inline")
RAY = {"PYTHONWARNINGS": ""}
"""Environment of processes that start Ray, which warns of itself."""
Finished = tuple[Path, subprocess.CompletedProcess[str]]
"""The folder of a study that was run to its end, and what was printed meanwhile."""


def write_study(folder: Path, keys: dict[str, Any], comment: str = "How large?", **overrides: Any) -> Path:
    """A study file; JSON is YAML."""
    path = folder / "study.yaml"
    path.write_text(f"# {comment}\n{json.dumps(keys | overrides, indent=1)}\n")
    return path


def harness(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environ(**environment), capture_output=True, text=True, timeout=120
    )


@dataclass(frozen=True)
class CommandResult:
    """What came of a command line in this process."""

    returncode: int
    stdout: str
    stderr: str


def called(*arguments: str | Path, cwd: Path) -> CommandResult:
    """Run a command line in this process, where a process of its own would only cost time."""
    out, err = io.StringIO(), io.StringIO()
    here = mock.patch.dict(os.environ)
    with here, contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        os.environ.pop("COLUMNS", None)  # a worker of pytest's has one
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # how argparse ends
            code = int(ended.code or 0)
    return CommandResult(code, out.getvalue(), err.getvalue())


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "harness", *map(str, arguments)]


def environ(**more: str) -> dict[str, str]:
    """This process's environment, with one thread and no terminal's width."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE")
    }
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"} | more


def started(first_epoch: int = 1) -> Started:
    return Started(
        "host", 1, "cpu (test, 1 thread)", 1, VERSIONS, epochs=EPOCHS, first_epoch=first_epoch, environment=HERE
    )


def epoch(n: int, top1: float) -> Epoch:
    return Epoch(n, train_loss=2.0 / n, val_loss=2.5 / n, top1=top1, lr=0.1, wall_s=2.0, images_per_s=100.0)


def quality(job: Job) -> float:
    """The accuracy that a run ends with: the larger the first kernel the better; seeds differ by 0.2 points."""
    spec = job.run.spec
    return 60.0 + spec.K[0] + 2.0 * (spec.reparam[0] is not None) + 0.2 * job.run.seed


def well(job: Job) -> Iterator[Record]:
    """A run that goes well."""
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, quality(job) * n / EPOCHS)
    yield Measured("latency_ms_p50", 0.5 * job.run.spec.K[0])
    yield Measured("peak_memory_bytes", 5e8)
    yield Ended(RunState.COMPLETE, wall_s=12.0)


Script = Callable[[Job], Iterator[Record]]
NOISE = (0.3, -0.5, 0.9, -1.1, 0.4, -0.2, 0.8, -0.7)


def gains(**by_kernel: float) -> Script:
    """A script in which a network's accuracy is that of its first kernel's side, and noise that the seed decides."""

    def script(job: Job) -> Iterator[Record]:
        spec, seed = job.run.spec, job.run.seed
        top1 = 60.0 + by_kernel.get(f"K{spec.K[0]}", 0.0) + NOISE[(seed + spec.K[0]) % len(NOISE)]
        yield started()
        for n in range(1, EPOCHS + 1):
            yield epoch(n, top1 * n / EPOCHS)
        yield Measured("latency_ms_p50", 0.5 * spec.K[0])
        yield Ended(RunState.COMPLETE, wall_s=12.0)

    return script


def noisy(seed: int, *, decay: float = 0.0) -> Script:
    """Runs whose accuracy is that of the kernel and noise that configuration and seed decide; later seeds are worse."""

    def script(job: Job) -> Iterator[Record]:
        run = job.run
        late = decay * min(run.seed, 10) if run.seed < SCREENING_SEEDS else 0.0
        top1 = 50.0 + run.spec.K[0] / 10 + random.Random(f"{seed} {run.id}").gauss(0, 2) - late
        yield started()
        for n in range(1, EPOCHS + 1):
            yield epoch(n, top1 * n / EPOCHS)
        yield Measured("latency_ms_p50", 1.0)
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    return script


class Played:
    """A study in a folder that is driven by a script."""

    def __init__(self, folder: Path, **overrides: Any) -> None:
        self.path = write_study(folder, SCRIPTED, **overrides)
        self.file: StudyFile = load_study(self.path)
        self.workspace = Workspace(folder / "results")
        self.executor: ScriptedExecutor | None = None

    def events(self, script: Script = well, *, slots: int = 1) -> Generator[tuple[StudyEvent, Progress, DrivenStudy]]:
        """Drive the study, and give what is known at every event."""

        def start() -> ScriptedExecutor:
            self.executor = ScriptedExecutor(script, slots=slots)
            return self.executor

        with ExitStack() as stack:
            driven = stack.enter_context(open_for_driving(self.file, open_space(self.file), self.workspace, start))
            for event in driven.driver.events():
                yield event, driven.driver.progress(), driven

    def answer(self, script: Script = well) -> StudyResults:
        """Drive the study to its end and give its answer."""
        for _ in self.events(script):
            pass
        with open_study_reader(self.path, self.workspace) as reader:
            return study_results(self.file.study, reader.store, reader.trials, reader.size().ruled_out)


def text_of(view: RenderableType, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, highlight=False, emoji=False).print(view)
    return out.getvalue()
