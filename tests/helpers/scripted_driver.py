"""A driver with a scripted executor on a real database."""

import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import optuna

from harness.config.recipes.proxy import ProxyRecipe
from harness.config.study_file import StudyFile, build_space, load_study
from harness.executors.scripted import ScriptedExecutor
from harness.search.driver import Driver, DriverContext
from harness.search.events import StudyEvent
from harness.search.samplers import build_pruner, build_sampler
from harness.storage import Store, open_study
from harness.training.environment import local_environment
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started

EPOCHS = 6


HERE = local_environment(ProxyRecipe())


def started(first_epoch: int = 1) -> Started:
    return Started(
        "host", 1, "cpu (test, 1 thread)", 1, {"torch": "2"}, epochs=EPOCHS, first_epoch=first_epoch, environment=HERE
    )


def epoch(n: int, top1: float) -> Epoch:
    return Epoch(n, train_loss=1.0, val_loss=1.0, top1=top1, lr=0.1, wall_s=2.0, images_per_s=100.0)


def quality(job: Job) -> float:
    """The accuracy that a run ends with: larger kernels are better, seeds differ by a point."""
    return 50.0 + job.run.spec.K[0] + job.run.seed


def well(job: Job) -> Iterator[Record]:
    """A run that goes well."""
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, quality(job) * n / EPOCHS)
    yield Measured("latency_ms_p50", float(job.run.spec.K[0]))
    yield Ended(RunState.COMPLETE, wall_s=12.0)


def make_study(folder: Path, *, search: dict[str, Any] | None = None, **overrides: Any) -> StudyFile:
    keys: dict[str, Any] = {
        "study": "question",
        "base": "replknet_nano",
        "axes": {"K": [3, 7, 13]},
        "search": {"sampler": "grid", "seeds": 2} | (search or {}),
        "proxy": {"epochs": EPOCHS},
    }
    path = folder / "study.yaml"
    path.write_text(json.dumps(keys | overrides))
    return load_study(path)


class Bench:
    """A study with its database; `drive` starts a driver on it, as often as wanted."""

    def __init__(self, folder: Path, file: StudyFile) -> None:
        self.folder = folder
        self.file = file
        self.study = file.study
        self.executor: ScriptedExecutor | None = None

    def drive(self, script: Callable[[Job], Iterator[Record]] = well, slots: int = 1) -> Generator[StudyEvent]:
        def start() -> ScriptedExecutor:
            self.executor = ScriptedExecutor(script, slots=slots)
            return self.executor

        self.executor = None
        with Store.open(self.folder / "studies.db") as store:
            trials = self.open_trials(store)
            space = build_space(self.file, classes=8, channels=1)
            yield from Driver(DriverContext(self.study, space, store, trials, self.folder, start)).events()

    def open_trials(self, store: Store) -> optuna.Study:
        search = self.study.search
        study = open_study(store, self.study.study, directions=list(self.study.objectives.values()))
        study.sampler = build_sampler(search, build_space(self.file, classes=8, channels=1), 0, self.file.plugin)
        study.pruner = build_pruner(search.pruner, self.study.proxy.epochs)
        return study

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        with Store.open(self.folder / "studies.db") as store:
            return self.open_trials(store).get_trials()

    def trained(self) -> list[tuple[int, int]]:
        """(K, seed) of every job that the last driver submitted."""
        return [(job.run.spec.K[0], job.run.seed) for job in self.executor.submitted] if self.executor else []


E = TypeVar("E")


def of(events: list[StudyEvent], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]
