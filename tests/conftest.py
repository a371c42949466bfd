"""What many tests read and none changes, and what keeps tests apart from each other."""

import gc
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from brief_timing import time_three_passes
from filelock import FileLock
from hypothesis import settings
from properties import BRIEF_PROFILE
from tiny_studies import RAY, TINY, Finished, Played, harness, write_study

from harness.analysis.results import StudyResults
from harness.cli import full_scale, network_accuracy
from harness.measures import speed
from harness.system.device_slot import separate_slots

settings.register_profile(BRIEF_PROFILE)
IS_ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER" in os.environ
"""Whether this is one of the processes that pytest-xdist started."""


def pytest_configure() -> None:
    """Thousands of tests, and the modules that they import, are no garbage: looking for it among them takes time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on, only what tests create is looked at."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """What was frozen ends as always."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Random weights and inputs that do not depend on which tests ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def slots_of_this_process() -> Iterator[None]:
    """Tests of one process do not wait for the measurements of another; `alone` tests use the machine's slots."""
    if IS_ONE_OF_SEVERAL:
        with separate_slots():
            yield
    else:
        yield


@pytest.fixture(scope="session", autouse=True)
def optunas_schema_versions() -> Iterator[None]:
    """Optuna reads the list of its schema versions two or three times for each new database; here once."""
    from optuna.storages._rdb.storage import _VersionManager

    versions: list[Any] = []
    read = _VersionManager._create_alembic_script

    def read_once(manager: Any) -> Any:
        if not versions:
            versions.append(read(manager))
        return versions[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", read_once)
        yield


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that compute in this process take one thread, because the other processors have tests of their own."""
    torch.set_num_threads(1)
    for command in (full_scale, network_accuracy):
        monkeypatch.setattr(command, "available_cpus", lambda: 1)


@pytest.fixture(autouse=True)
def brief_latency(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A latency is that of three passes, except where the measure itself is tested."""
    if request.path.parent.name != "measures":
        monkeypatch.setattr(speed, "time_until_precise", time_three_passes)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The folder of a study that was run to its end by two workers, and what was printed meanwhile.

    It is trained once for all processes of pytest-xdist; each has a copy.
    """
    base = tmp_path_factory.getbasetemp()
    original = (base.parent if IS_ONE_OF_SEVERAL else base) / "trained_by_two_workers"
    with FileLock(f"{original}.lock"):
        if not original.exists():
            _train_with_two_workers(original)
    folder = Path(shutil.copytree(original, tmp_path_factory.mktemp("finished") / "study"))
    output = json.loads((folder / "output.json").read_text())
    (folder / "output.json").unlink()
    return folder, subprocess.CompletedProcess(**output)


def _train_with_two_workers(folder: Path) -> None:
    folder.mkdir()
    write_study(folder, TINY)
    result = harness("run", "study.yaml", "--workers", "2", cwd=folder, **RAY)
    (folder / "output.json").write_text(json.dumps(vars(result)))


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A finished study of five configurations with three seeds each."""
    study = Played(tmp_path_factory.mktemp("played"))
    for _ in study.events():
        pass
    return study


@pytest.fixture(scope="session")
def played_results(played: Played) -> StudyResults:
    return played.answer()
