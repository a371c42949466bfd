"""The location of a study: its results folder and its database; and the run and trial of a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from harness.errors import NotFound
from harness.storage import Store
from harness.system.command_line import without_password
from harness.training.run import Run

DATABASE = "studies.db"
DEFAULT_RESULTS = Path("results")
CLAIMS_FOLDER = "claims"
"""Subfolder of a results folder with the summaries of claim studies, one folder each."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The location of a study."""

    results: Path
    storage: str | None = None
    """URL of the database, if it is not in the results folder."""

    @property
    def database(self) -> str | Path:
        """The database that the store opens."""
        return self.storage or self.results / DATABASE

    @property
    def data_cache(self) -> Path:
        """The folder of prepared data sets for all studies."""
        return self.results / "data"

    @property
    def options(self) -> list[str]:
        """The command-line options for this location; empty for the default one."""
        results = [] if self.results == DEFAULT_RESULTS else ["--results", str(self.results)]
        return results + ([] if self.storage is None else ["--storage", without_password(self.storage)])

    def folder(self, study: str) -> Path:
        """The study's own folder: its resolved file, logs, checkpoints and summary."""
        return self.results / study


def run_of(path: Path, workspace: Workspace) -> Run:
    """The run of a checkpoint, from its study's database. Raises `NotFound`."""
    try:
        with Store.open(workspace.database, read_only=True) as store:
            return store.run(path.stem).run
    except NotFound as error:
        raise NotFound(
            f"the run of a checkpoint must be known to a database, which holds its network ({error.place})",
            place=str(path),
            remedy="Leave it in its study's folder, as results/STUDY/checkpoints/RUN.pt, or give `--storage URL`; or "
            "name its network: `harness weights import FILE --network NETWORK --output OUT.safetensors`.",
        ) from error


def trial_of(path: Path, study: str, workspace: Workspace) -> int | None:
    """The first trial of a study that owns the run of a checkpoint; None if there is none."""
    with Store.open(workspace.database, read_only=True) as store:
        links = store.trial_runs(study)
    return next((trial for trial, runs in links.items() if path.stem in runs), None)
