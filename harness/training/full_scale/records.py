"""The folder of a training at full scale: its lock, and its records of network, recipe, data and environments.

The record of the data contains the names of the classes and a digest of the images: of their file names and sizes, also
of the content of these files if it is read quickly, and of arrays if images are generated or kept in memory. The folder
of the images is recorded for the user only, and is not compared: data that were moved are the same data. A training may
be resumed in another environment; all of them are recorded, each with its first epoch.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from harness.config.space import plain_fields
from harness.config.yaml_file import write_yaml
from harness.data.data_record import DataRecord, classes_text
from harness.errors import DataError, UserError
from harness.system.atomic_write import atomic_write_text
from harness.training.environment import Environment, describe_difference, differs
from harness.training.full_scale.folder import (
    CLASSES,
    DATA,
    NETWORK,
    RECIPE,
    STATE_PATTERN,
    WEIGHTS,
    is_started,
    lock_of,
)
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import Message, read_epochs

ENVIRONMENTS = "environments.json"
"""File in the training's folder: the list of its environments, each with its first epoch."""


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Lock the folder of a training. Raises `UserError` if another process has locked it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = lock_of(folder).acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            "a training must run in one process at a time, and another process is running this one", place=str(folder)
        ) from error
    with held:
        yield


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
    for name, values in ((NETWORK, plain_fields(run.spec)), (RECIPE, run.recipe.model_dump(mode="json"))):
        (job.folder / name).write_text(write_yaml(values, f"Of the training {run.id}."), encoding="utf-8")


def require_unchanged_data(folder: Path, now: DataRecord) -> None:
    """Raise `DataError` if the folder contains a training on other data.

    For a training of an earlier version, without a record, only the names of the classes are compared, if it has them.
    """
    if not is_started(folder):
        return
    before = DataRecord.read(folder / DATA)
    if before is not None and not before.is_same(now):
        raise _other_data(folder, str(before), str(now), before.folder)
    classes = _earlier_classes(folder) if before is None else None
    if classes is not None and classes != now.classes:
        raise _other_data(folder, f"images of {classes_text(classes)}", str(now), None)


def write_data_record(folder: Path, now: DataRecord) -> None:
    """Write the record, and the names of the classes, into the folder of a training; see `require_unchanged_data`."""
    require_unchanged_data(folder, now)
    if is_started(folder):
        if DataRecord.read(folder / DATA) is not None:
            return
        print(
            f"warning: an earlier version began this training and did not record its data; they are now recorded as "
            f"{now} ({folder / DATA})",
            file=sys.stderr,
        )
    folder.mkdir(parents=True, exist_ok=True)
    now.write(folder / DATA)
    names = json.dumps(now.classes, indent=1, ensure_ascii=False)
    (folder / CLASSES).write_text(names, encoding="utf-8")


def _other_data(folder: Path, before: str, now: str, where: str | None) -> DataError:
    resume = f"Use `--data {where}` to resume it, " if where else "Use those data to resume it, "
    return DataError(
        f"a training must be resumed with the data that it began with ({before})",
        value=now,
        place=str(folder),
        remedy=f"{resume}another folder with `--results` to train on these, or `--fresh` to start again in its place.",
    )


def _earlier_classes(folder: Path) -> tuple[str, ...] | None:
    """The classes of a training without a record: of its `CLASSES` file, or of the metadata of its weights."""
    from harness.models.weights.files import read_metadata

    try:
        if (folder / CLASSES).is_file():
            return tuple(json.loads((folder / CLASSES).read_text(encoding="utf-8")))
        classes = read_metadata(folder / WEIGHTS["best"]).get("classes")
        return None if classes is None else tuple(json.loads(classes))
    except (OSError, ValueError, TypeError):
        return None


def record_environment(folder: Path, environment: Environment, epoch: int, *, is_resumed: bool) -> Iterator[Message]:
    """Record the environment that computes from `epoch` on; yields a warning if an earlier epoch had another one."""
    earlier = read_environments(folder) if is_resumed else []
    before = earlier[-1][1] if earlier else None
    if is_resumed and (not earlier or differs(before, environment)):
        difference = describe_difference(before, environment)
        yield Message(f"warning: resumed in another environment (before: {difference}); the result comes from both")
    if not earlier or before != environment:
        values = [{"epoch": first, "environment": entry and entry.values()} for first, entry in earlier]
        if is_resumed and not earlier:
            values.append({"epoch": 1, "environment": None})
        values.append({"epoch": epoch, "environment": environment.values()})
        atomic_write_text(folder / ENVIRONMENTS, json.dumps(values, indent=1))


def read_environments(folder: Path) -> list[tuple[int, Environment | None]]:
    """The environments, each with its first epoch; empty if none is recorded."""
    try:
        values = json.loads((folder / ENVIRONMENTS).read_text(encoding="utf-8"))
        return [(int(entry["epoch"]), Environment.from_values(entry["environment"])) for entry in values]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def earlier_environments(folder: Path) -> list[Environment | None]:
    """The distinct environments that computed a training before its current one."""
    environments = [environment for _, environment in read_environments(folder)]
    return [
        environment
        for i, environment in enumerate(environments[:-1])
        if environment != environments[-1] and environment not in environments[:i]
    ]
