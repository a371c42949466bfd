"""The record of a training's data: the names of the classes and a digest of the files."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, Self

from harness.data import Split
from harness.data.dataset import ARRAYS
from harness.errors import first_of
from harness.system.atomic_write import atomic_write_text
from harness.system.device_slot import computing, yield_slot

CONTENT_BYTES = 1 << 28
"""Up to this total size, the content of the files is part of the digest; above it, only their names and sizes."""
CHUNK_BYTES = 1 << 20
MAX_NAMED = 6
"""Maximum number of classes that a message lists."""


class RecordedImages(Protocol):
    """The images of a split."""

    def __len__(self) -> int: ...

    def recorded(self) -> Sequence[Path] | Split:
        """Their files, or the arrays in memory."""
        ...


@dataclass(frozen=True, slots=True)
class DataRecord:
    """The record of a training's data."""

    dataset: str
    classes: tuple[str, ...]
    """Names, in the order of the labels."""
    images: Mapping[str, int]
    """Number of images by split."""
    digest: str
    folder: str | None = None
    """Folder of the images when the training started; not compared."""

    def is_same(self, other: "DataRecord") -> bool:
        """Whether two records are of the same data."""
        return (self.dataset, self.classes, self.digest) == (other.dataset, other.classes, other.digest)

    def __str__(self) -> str:
        counts = " and ".join(f"{count:,} {split}" for split, count in self.images.items())
        where = self.dataset if self.folder is None else self.folder
        return f"{counts} images of {classes_text(self.classes)} in {where}, digest {self.digest[:8]}"

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record in a file; None if there is no valid one."""
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**values | {"classes": tuple(values["classes"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, path: Path) -> None:
        """Write the record atomically."""
        atomic_write_text(path, json.dumps(asdict(self), indent=1, ensure_ascii=False))


def classes_text(classes: Sequence[str]) -> str:
    """The number of classes, and the first ones."""
    return f"{len(classes):,} classes ({first_of(classes, MAX_NAMED)})"


@computing()
def record_data(
    dataset: str,
    classes: Sequence[str],
    images: Mapping[str, RecordedImages],
    *,
    root: Path | None = None,
    annotations: Iterable[Path] = (),
) -> DataRecord:
    """The record of the images of each split; `annotations` are files whose content is always part of the digest."""
    digest = blake2b(digest_size=16)
    for split, split_images in images.items():
        digest.update(f"{split}\0".encode())
        source = split_images.recorded()
        if isinstance(source, Split):
            _add_arrays(digest, source)
        else:
            _add_files(digest, source, root or Path())
    for path in annotations:
        _add_content(digest, path)
    counts = {split: len(split_images) for split, split_images in images.items()}
    return DataRecord(dataset, tuple(classes), counts, digest.hexdigest(), None if root is None else str(root))


def _add_arrays(digest: Any, split: Split) -> None:
    for name in ARRAYS:
        values = getattr(split, name)
        if values is not None:
            digest.update(f"{name} {values.dtype} {values.shape}\0".encode())
            digest.update(memoryview(values).cast("B"))


def _add_files(digest: Any, paths: Sequence[Path], root: Path) -> None:
    """Add names relative to the root and sizes; and the content, up to `CONTENT_BYTES`."""
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
            yield_slot()
