"""What a training at full scale is trained on, on record in its folder and compared whenever the training is resumed.

The record holds the names of the classes and a digest of the images: of the list of their files with sizes, of the
content of those files too where that is quickly read, and of arrays where images are generated or kept in memory. The
folder that the images are in is named for people, and is not compared: data that were moved are the same data.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from harness.data import Split
from harness.data.dataset import ARRAYS
from harness.errors import DataError
from harness.system.device_slot import computing, offer
from harness.training.full_scale.folder import CLASSES, DATA, WEIGHTS, is_started

CONTENT_BYTES = 1 << 28
"""Up to this size of all files together, their content is part of the digest; above, their names and sizes alone."""
CHUNK_BYTES = 1 << 20
NAMED = 6
"""Classes that a message lists."""

Source = Sequence[Path] | Split
"""The images of a split: files, or arrays in memory."""


@dataclass(frozen=True, slots=True)
class DataRecord:
    """The data of a training."""

    dataset: str
    classes: tuple[str, ...]
    """Names, in the order of the labels."""
    images: Mapping[str, int]
    """Number by split."""
    digest: str
    folder: str | None = None
    """Where the images were when the training began; not compared."""

    def is_same(self, other: "DataRecord") -> bool:
        """Whether two records are of the same data."""
        return (self.dataset, self.classes, self.digest) == (other.dataset, other.classes, other.digest)

    def __str__(self) -> str:
        counts = " and ".join(f"{count:,} {split}" for split, count in self.images.items())
        where = self.dataset if self.folder is None else self.folder
        return f"{counts} images of {_named(self.classes)} in {where}, digest {self.digest[:8]}"

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record in a file; None where there is none that can be read."""
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**values | {"classes": tuple(values["classes"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, path: Path) -> None:
        """Write the record in one piece."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")
        partial.replace(path)


@computing()
def record_data(
    dataset: str,
    classes: Sequence[str],
    sources: Mapping[str, Source],
    *,
    images: Mapping[str, int],
    root: Path | None = None,
    annotations: Iterable[Path] = (),
) -> DataRecord:
    """The record of images by split; `annotations` are files whose content always counts."""
    digest = blake2b(digest_size=16)
    for split, source in sources.items():
        digest.update(f"{split}\0".encode())
        if isinstance(source, Split):
            _add_arrays(digest, source)
        else:
            _add_files(digest, source, root or Path())
    for path in annotations:
        _add_content(digest, path)
    return DataRecord(dataset, tuple(classes), dict(images), digest.hexdigest(), None if root is None else str(root))


def _add_arrays(digest: Any, split: Split) -> None:
    for name in ARRAYS:
        values = getattr(split, name)
        if values is not None:
            digest.update(f"{name} {values.dtype} {values.shape}\0".encode())
            digest.update(memoryview(values).cast("B"))


def _add_files(digest: Any, paths: Sequence[Path], root: Path) -> None:
    """Names below the root and sizes; and the content, where there is not much of it."""
    sizes = [path.stat().st_size for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        digest.update(os.fsencode(os.path.relpath(path, root)) + f"\0{size}\n".encode())
    if sum(sizes) <= CONTENT_BYTES:
        for path in paths:
            _add_content(digest, path)


def _add_content(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            offer()


def require_same_data(folder: Path, now: DataRecord) -> None:
    """Raise `DataError` where a training that has begun in the folder is of other data.

    Of a training that began before there were records, the names of the classes are compared, where it has them.
    """
    if not is_started(folder):
        return
    before = DataRecord.read(folder / DATA)
    if before is not None and not before.is_same(now):
        raise _other_data(folder, str(before), str(now), before.folder)
    classes = _earlier_classes(folder) if before is None else None
    if classes is not None and classes != now.classes:
        raise _other_data(folder, f"images of {_named(classes)}", str(now), None)


def keep_data(folder: Path, now: DataRecord) -> None:
    """Write the record, and the names of the classes, into the folder of a training; see `require_same_data`."""
    require_same_data(folder, now)
    is_known = DataRecord.read(folder / DATA) is not None
    if is_started(folder) and is_known:
        return
    if is_started(folder):
        print(
            f"warning: an earlier version began this training and did not record its data; from now on they are "
            f"{now} ({folder / DATA})",
            file=sys.stderr,
        )
    folder.mkdir(parents=True, exist_ok=True)
    now.write(folder / DATA)
    names = json.dumps(now.classes, indent=1, ensure_ascii=False)
    (folder / CLASSES).write_text(names, encoding="utf-8")


def _other_data(folder: Path, before: str, now: str, where: str | None) -> DataError:
    resume = f"Give `--data {where}` to resume it, " if where else "Give those to resume it, "
    return DataError(
        f"a training must be resumed with the data that it began with ({before})",
        value=now,
        place=str(folder),
        remedy=f"{resume}another folder with `--results` to train on these, or `--fresh` to begin anew in its place.",
    )


def _earlier_classes(folder: Path) -> tuple[str, ...] | None:
    """The classes of a training without a record: a classifier's list, or what its weights with a head name."""
    from harness.models.weights.files import read_metadata

    try:
        if (folder / CLASSES).is_file():
            return tuple(json.loads((folder / CLASSES).read_text(encoding="utf-8")))
        named = read_metadata(folder / WEIGHTS["best"]).get("classes")
        return None if named is None else tuple(json.loads(named))
    except (OSError, ValueError, TypeError):
        return None


def _named(classes: Sequence[str]) -> str:
    more = ", ..." if len(classes) > NAMED else ""
    return f"{len(classes):,} classes ({', '.join(classes[:NAMED])}{more})"
