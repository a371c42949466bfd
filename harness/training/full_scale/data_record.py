"""Record of the data of a training at full scale, kept in its folder and compared whenever the training is resumed.

The record contains the names of the classes and a digest of the images: of their file names and sizes, also of the
content of these files if it is read quickly, and of arrays if images are generated or kept in memory. The folder of
the images is recorded for the user only, and is not compared: data that were moved are the same data.
"""

import json
import sys
from pathlib import Path

from harness.data.data_record import DataRecord, classes_text
from harness.errors import DataError
from harness.training.full_scale.folder import CLASSES, DATA, WEIGHTS, is_started


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
    is_known = DataRecord.read(folder / DATA) is not None
    if is_started(folder) and is_known:
        return
    if is_started(folder):
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
