"""Several studies in one results folder, whose scripted workers have environments of their own."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_studies import EPOCHS, HERE, SCRIPTED, VERSIONS, epoch, quality, write_study

from harness.analysis.claims import evaluate_claims
from harness.analysis.results import StudyResults, study_results
from harness.analysis.reuse import ReuseMode
from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.study_file import load_study
from harness.executors.scripted import ScriptedExecutor
from harness.search.events import StudyEvent
from harness.search.session import open_for_driving
from harness.storage import Store
from harness.storage.workspace import Workspace
from harness.training.environment import Environment
from harness.training.run import Ended, Job, Measured, Record, RunState, Started

OLD = replace(HERE, operator="a1b2", torch="2.14")
WORDS = "operator revision a1b2, torch 2.14"
THREE: dict[str, Any] = {"axes": {"K": [[3, 3, 3, 3], [13, 13, 13, 13]]}, "when": {}, "search": {"seeds": 3}}
ONE: dict[str, Any] = THREE | {"axes": {"K": [[3, 3, 3, 3]]}}
CLAIM = {"name": "c", "says": "larger is better", "metric": "top1", "contrast": {"K=13": 1, "K=3": -1}, "expect": "> 0"}


def worker(
    environment: Environment | None, *, latency_ms: float = 1.0, gain: float = 0.0, keeps_weights: bool = True
) -> Callable[[Job], Iterator[Record]]:
    """The records that a worker of an environment yields for a job; it writes weights as a file."""

    def script(job: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu (test, 1 thread)", 1, VERSIONS, epochs=EPOCHS, environment=environment)
        if not job.only_times:
            for n in range(1, EPOCHS + 1):
                yield epoch(n, (quality(job) + gain) * n / EPOCHS)
            yield Measured("peak_memory_bytes", 5e8)
            if keeps_weights:
                job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
                job.checkpoint.write_text("weights")
        yield Measured("latency_ms_p50", latency_ms * job.run.spec.K[0])
        yield Ended(RunState.COMPLETE, wall_s=12.0 if not job.only_times else 0.1)

    return script


class StudiesFolder:
    """Several studies in one results folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "results")
        self.jobs: list[Job] = []
        """What the last driver submitted."""

    def file(self, name: str, **keys: Any) -> Path:
        (self.folder / name).mkdir(exist_ok=True)
        return write_study(self.folder / name, SCRIPTED | keys, study=name)

    def run(
        self,
        path: Path,
        script: Callable[[Job], Iterator[Record]],
        *,
        reuse: ReuseMode = "any",
        is_cluster: bool = False,
        stop_at: type[StudyEvent] | None = None,
    ) -> list[StudyEvent]:
        file = load_study(path)
        executor = ScriptedExecutor(script)
        events = []
        space = open_space(file)
        with open_for_driving(
            file, space, self.workspace, lambda: executor, reuse=reuse, is_cluster=is_cluster
        ) as driven:
            study_events = driven.driver.events()
            for event in study_events:
                events.append(event)
                if stop_at is not None and isinstance(event, stop_at):
                    study_events.close()
        self.jobs = executor.submitted
        return events

    def results(self, path: Path, here: Environment | None = None) -> StudyResults:
        with open_study_reader(path, self.workspace) as reader:
            study = reader.file.study
            claims = evaluate_claims(study, open_space(reader.file), reader.store, here)
            return study_results(study, reader.store, reader.trials, {}, claims, here)

    def store(self) -> Store:
        return Store.open(self.workspace.database)


def number_trained(studies: StudiesFolder) -> int:
    return sum(not job.only_times for job in studies.jobs)


def shared(studies: StudiesFolder, **options: Any) -> Path:
    """A study that takes three runs of an older environment, and has had three of its own trained."""
    studies.run(studies.file("old", **ONE), worker(OLD, **options))
    path = studies.file("new", **THREE, claims=[CLAIM])
    studies.run(path, worker(HERE, latency_ms=2.0))
    return path
