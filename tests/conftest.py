"""What many tests look at and none changes: a study that a script has played, and one that was trained."""

import pytest
import torch
from tiny_studies import RAY, TINY, Finished, Played, harness, write_study

from harness.analysis.results import StudyResults


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Random weights and inputs that do not hang on which tests ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The folder of a study that was run to its end by two workers, and what was printed meanwhile."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder, TINY)
    return folder, harness("run", "study.yaml", "--workers", "2", cwd=folder, **RAY)


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A finished study of five configurations with three seeds each."""
    study = Played(tmp_path_factory.mktemp("played"))
    for _ in study.events():
        pass
    return study


@pytest.fixture(scope="session")
def said(played: Played) -> StudyResults:
    return played.answer()
