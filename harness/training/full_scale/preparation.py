"""The folder of a training at full scale before it is trained: its lock, its description, and what it must hold."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from harness.config.space import plain_fields
from harness.config.yaml_file import write_yaml
from harness.data.data_record import DataRecord
from harness.errors import UserError
from harness.training.full_scale.folder import NETWORK, RECIPE, STATE_PATTERN, lock_of
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.logger import read_epochs
from harness.training.full_scale.records import write_data_record


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Lock the folder of a training. Raises `UserError` if another process has locked it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            "a training must run in one process at a time, and another process is running this one", place=str(folder)
        ) from error
    try:
        yield
    finally:
        lock.release()


def has_state(job: FullScaleJob[Any]) -> bool:
    """Whether there is a state to resume from."""
    return any(job.checkpoints.glob(f"{STATE_PATTERN}*"))


def prepare_folder(job: FullScaleJob[Any], data: DataRecord, *, is_fresh: bool) -> None:
    """Write what is trained, and on which data, into the training's folder; another training is not overwritten.

    Raises `UserError` if the folder's training is on other data, or has completed epochs but no state.
    """
    if is_fresh and job.folder.is_dir():
        shutil.rmtree(job.folder)
    write_data_record(job.folder, data)
    done = read_epochs(job.folder)
    if done and not has_state(job):
        raise UserError(
            f"a training of which {len(done)} epochs are done must have a state to be resumed from",
            place=str(job.checkpoints),
            remedy="Put its states back, choose another folder with `--results`, or start again with `--fresh`, which "
            "deletes its weights.",
        )
    write_description(job)


def write_description(job: FullScaleJob[Any]) -> None:
    """Write network and recipe, with all defaults, as files that `harness train` can read."""
    job.folder.mkdir(parents=True, exist_ok=True)
    run = job.run
    texts: dict[str, dict[str, Any]] = {
        NETWORK: plain_fields(run.spec),
        RECIPE: run.recipe.model_dump(mode="json"),
    }
    for name, values in texts.items():
        (job.folder / name).write_text(write_yaml(values, f"Of the training {run.id}."), encoding="utf-8")
