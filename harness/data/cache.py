"""Data sets on disk, under a hash of all that decides their content; built once, opened by all workers of a machine.

A folder holds `meta.json` and, per split, one `.npy` file per array. It is built beside its place and renamed into it,
so that what stands under the final name is whole; `meta.json` says what every file must look like.
"""

import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from harness.data.base import ARRAYS, DataInfo, Dataset, Split
from harness.errors import DataError
from harness.fingerprint import fingerprint

LAYOUT = 1
"""Part of every hash; raised when this file changes what a folder looks like."""
CHECKED_BYTES = 1 << 28
"""Files up to this size are read whole to check their sum on opening; of larger ones only the size is checked."""

LOOK_S = 1.0
"""How often to look at what another process builds."""
TELL_S = 30.0
"""How long to wait for it without a word."""
STALL_S = 1800.0
"""How long it may write nothing; images that are generated are written at the end."""

SPLITS = ("train", "val", "conflict")


class Writer:
    """Writes the arrays of one data set into a folder; the images may be filled in piece by piece."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def array(self, split: str, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """A new zeroed array on disk, to be filled in place."""
        (self.folder / split).mkdir(exist_ok=True)
        return np.lib.format.open_memmap(self.folder / split / f"{name}.npy", "w+", ARRAYS[name], shape)

    def shrink(self, split: str, name: str, count: int) -> None:
        """Keep the first `count` rows of an array, where it turned out to have fewer than expected."""
        path = self.folder / split / f"{name}.npy"
        rows = np.load(path, mmap_mode="r")
        if count < len(rows):
            shorter = np.lib.format.open_memmap(path.with_suffix(".new"), "w+", rows.dtype, (count, *rows.shape[1:]))
            shorter[:] = rows[:count]
            path.with_suffix(".new").replace(path)

    def save(self, split: str, arrays: Split) -> None:
        """Write all arrays of a split that fits into memory."""
        (self.folder / split).mkdir(exist_ok=True)
        for name in ARRAYS:
            if (values := getattr(arrays, name)) is not None:
                np.save(self.folder / split / f"{name}.npy", values.astype(ARRAYS[name], copy=False))

    def finish(self, info: DataInfo, notes: tuple[str, ...] = ()) -> None:
        """Measure the training images and write `meta.json`; the folder is whole then."""
        mean, std = statistics(np.load(self.folder / "train" / "images.npy", mmap_mode="r"))
        files = {str(path.relative_to(self.folder)): _sum(path) for path in sorted(self.folder.glob("*/*.npy"))}
        meta = {"info": asdict(info), "mean": mean, "std": std, "notes": notes, "files": files}
        (self.folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        for path in self.folder.rglob("*.*"):
            _flush(path)


def cached(cache: Path, name: str, key: Mapping[str, Any], build: Callable[[Writer], None]) -> Dataset:
    """The data set under the hash of `key`; `build` writes it where it is missing or damaged.

    Several processes may ask at once: one builds while the others wait. Raises `DataError` where the cache cannot be
    written.
    """
    folder = cache / f"{name}-{fingerprint([LAYOUT, dict(key)])}"
    if (found := _open(folder)) is not None:
        return found
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if (found := _open(folder)) is None:
                _build(folder, build)
                found = _open(folder)
    except OSError as error:
        raise DataError(
            f"the cache of data sets must be writable ({error.strerror or error})",
            place=str(cache),
            remedy="Free space there, or choose another results folder.",
        ) from error
    assert found is not None, f"a data set that has just been written can be read: {folder}"
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a data set; waits for another process that builds it, and says so after a while.

    Raises `DataError` where nothing of what the other process builds has changed for `STALL_S`.
    """
    lock, start = FileLock(f"{folder}.lock"), time.monotonic()
    seen, changed, is_told = _progress(folder), start, False
    while True:
        try:
            lock.acquire(timeout=LOOK_S)
            break
        except Timeout:
            now = time.monotonic()
            if (progress := _progress(folder)) != seen:
                seen, changed = progress, now
            if now - changed > STALL_S:
                raise DataError(
                    f"the process that builds a data set must come to an end; it has written nothing for "
                    f"{now - changed:.0f} s",
                    place=f"{folder}.lock",
                    remedy="End that process, which frees the lock, and run the same command again.",
                ) from None
            if now - start > TELL_S and not is_told:
                print(f"waiting for another process that builds the data set {folder}", file=sys.stderr)
                is_told = True
    try:
        yield
    finally:
        lock.release()


def _progress(folder: Path) -> tuple[int, int]:
    """What changes while another process builds: the number of files, and the time of the last change."""
    times = []
    for path in folder.parent.glob(f"{folder.name}.*/**/*"):
        with suppress(OSError):
            times.append(path.stat().st_mtime_ns)
    return len(times), max(times, default=0)


def _build(folder: Path, build: Callable[[Writer], None]) -> None:
    for left in folder.parent.glob(f"{folder.name}.*/"):  # by a builder that was killed: the lock is ours
        shutil.rmtree(left)
    fresh = folder.with_name(f"{folder.name}.{uuid4().hex}")
    fresh.mkdir()
    try:
        build(Writer(fresh))
        if folder.exists():  # damaged, or it would have been opened
            folder.rename(fresh / "damaged")
        fresh.rename(folder)
        shutil.rmtree(folder / "damaged", ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _open(folder: Path) -> Dataset | None:
    """The data set in the folder, memory-mapped copy-on-write; None where it is missing or damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if any(_sum(folder / file) != expected for file, expected in meta["files"].items()):
            return None
    except (OSError, ValueError, KeyError):
        return None
    splits = {name: _split(folder / name) for name in SPLITS if (folder / name).exists()}
    info = DataInfo(meta["info"]["classes"], meta["info"]["channels"], tuple(meta["info"]["names"]))
    return Dataset(info, mean=tuple(meta["mean"]), std=tuple(meta["std"]), notes=tuple(meta["notes"]), **splits)


def _split(folder: Path) -> Split:
    """Copy-on-write maps: their pages are shared by all processes, and torch takes them without a warning."""
    return Split(**{path.stem: np.load(path, mmap_mode="c") for path in folder.glob("*.npy")})


def _sum(path: Path) -> str:
    size = path.stat().st_size
    return f"{size}-{zlib.crc32(path.read_bytes()):08x}" if size <= CHECKED_BYTES else f"{size}"


def _flush(path: Path) -> None:
    """Bring the file to the disk before the rename that makes it count, so that a power cut leaves no hole in it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images (N, C, H, W) scaled to [0, 1]."""
    counts = np.zeros((images.shape[1], 256))
    for start in range(0, len(images), 256):
        for channel, row in enumerate(counts):
            row += np.bincount(images[start : start + 256, channel].ravel(), minlength=256)
    share, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ levels
    std = np.sqrt(share @ levels**2 - mean**2)
    return tuple(map(float, mean)), tuple(float(s) or 1.0 for s in std)
