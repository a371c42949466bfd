"""Cache of prepared data sets by a hash of all that decides their content; built once, opened by all workers.

A folder contains `meta.json` and, per split, one `.npy` file per array. It is built under a temporary name and then
renamed, so that a folder with the final name is complete; `meta.json` has the checksum of every file.
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

from harness.data.dataset import ARRAYS, DataInfo, Dataset, Rows, Split
from harness.errors import DataError
from harness.system.atomic_write import atomic_write, partial_folder, replace_folder
from harness.system.device_slot import computing
from harness.system.fingerprint import fingerprint

CACHE_VERSION = 2
"""Part of every hash; raised when this file changes the format of a folder."""
CHECKED_BYTES = 1 << 28
"""Files up to this size are verified by checksum when opened; of larger ones only the size is checked."""

MIN_DEVIATION = 1.0
"""Standard deviation, in levels of 8 bits, below which a channel contains hardly more than rounding errors."""
GENERATED_BYTES = 4 << 30
"""Maximum size of generated data sets in a cache; beyond it, the least recently opened ones are removed."""
POLL_S = 1.0
"""Interval at which the progress of another process is checked."""
NOTICE_AFTER_S = 30.0
"""Time after which a message about the wait is printed."""
STALL_TIMEOUT_S = 1800.0
"""How long another process may write nothing; generated images are written at the end."""

SPLITS = ("train", "val", "conflict")
SPLIT_TITLES = {"train": "training", "val": "validation"}
"""Names of the splits in messages."""


class CacheWriter:
    """Writes the arrays of one data set into a folder; the images may be filled in piece by piece."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def array(self, split: str, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """A new zeroed array on disk, to be filled in place."""
        (self.folder / split).mkdir(exist_ok=True)
        return np.lib.format.open_memmap(self.folder / split / f"{name}.npy", "w+", ARRAYS[name], shape)

    def shrink(self, split: str, name: str, count: int) -> None:
        """Keep only the first `count` rows of an array that has fewer than expected."""
        path = self.folder / split / f"{name}.npy"
        rows = np.load(path, mmap_mode="r")
        if count < len(rows):
            with atomic_write(path) as partial:
                shorter = np.lib.format.open_memmap(partial, "w+", rows.dtype, (count, *rows.shape[1:]))
                shorter[:] = rows[:count]

    def save(self, split: str, arrays: Split) -> None:
        """Write all arrays of a split that fits into memory."""
        (self.folder / split).mkdir(exist_ok=True)
        for name in ARRAYS:
            if (values := getattr(arrays, name)) is not None:
                np.save(self.folder / split / f"{name}.npy", values.astype(ARRAYS[name], copy=False))

    def finish(self, info: DataInfo, notes: tuple[str, ...] = (), place: str | None = None) -> None:
        """Compute the statistics of the training images and write `meta.json`, which completes the folder.

        Raises `DataError`, with `place`, if all images are alike.
        """
        train, val = (np.load(self.folder / split / "images.npy", mmap_mode="r") for split in SPLIT_TITLES)
        for split, images in zip(SPLIT_TITLES.values(), (train, val), strict=True):
            require_varied(images, split, place)
        mean, std = statistics(train)
        files = {str(path.relative_to(self.folder)): _checksum(path) for path in sorted(self.folder.glob("*/*.npy"))}
        meta = {"info": asdict(info), "mean": mean, "std": std, "notes": notes, "files": files}
        (self.folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        for path in self.folder.rglob("*.*"):  # flushed before the folder is renamed, for a power failure after it
            with path.open("rb") as file:
                os.fsync(file.fileno())


def cached(
    cache: Path,
    name: str,
    key: Mapping[str, Any],
    build: Callable[[CacheWriter], None],
    *,
    max_bytes: int | None = None,
) -> Dataset:
    """The data set with the hash of `key`; `build` writes it if it is missing or damaged.

    Several processes may call this at once: one builds while the others wait. If all data sets of that name, which can
    be generated again, exceed `max_bytes`, the least recently opened ones are removed. Raises `DataError` if the cache
    is not writable.
    """
    folder = _folder(cache, name, key)
    if (dataset := _open(folder)) is not None:
        return dataset
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if (dataset := _open(folder)) is None:
                _build(folder, build)
                dataset = _open(folder)
        if max_bytes is not None:
            _trim(cache, name, max_bytes, keep=folder)
    except OSError as error:
        rule = f"the cache of data sets must be writable ({error.strerror or error})"
        remedy = "Free space there, or choose another results folder."
        raise DataError(rule, place=str(cache), remedy=remedy) from error
    assert dataset is not None, f"a data set that has just been written can be read: {folder}"
    return dataset


def is_cached(cache: Path, name: str, key: Mapping[str, Any]) -> bool:
    """Whether the data set with the hash of `key` is in the cache."""
    return (_folder(cache, name, key) / "meta.json").is_file()


def _folder(cache: Path, name: str, key: Mapping[str, Any]) -> Path:
    return cache / f"{name}-{fingerprint([CACHE_VERSION, dict(key)])}"


def _trim(cache: Path, name: str, max_bytes: int, *, keep: Path) -> None:
    """Remove data sets, the least recently opened one first; processes that have one mapped can still use it."""
    sizes: dict[Path, int] = {}
    opened: dict[Path, float] = {}
    for meta in cache.glob(f"{name}-????????????????/meta.json"):
        with suppress(OSError):  # another process may be removing it
            opened[meta.parent] = meta.stat().st_atime
            sizes[meta.parent] = sum(path.stat().st_size for path in meta.parent.rglob("*.*"))
    for folder in sorted(sizes, key=lambda path: opened[path]):
        if sum(sizes.values()) <= max_bytes:
            return
        if folder == keep:
            continue
        sizes.pop(folder)
        gone = folder.with_name(f"{folder.name}.{uuid4().hex}")
        with suppress(OSError, Timeout), FileLock(f"{folder}.lock", timeout=0):
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a data set; waits for another process that builds it, and prints a message after a while.

    Raises `DataError` if the other process has written nothing for `STALL_TIMEOUT_S`.
    """
    lock, start = FileLock(f"{folder}.lock"), time.monotonic()
    seen, changed, is_announced = _progress(folder), start, False
    while True:
        try:
            lock.acquire(timeout=POLL_S)
            break
        except Timeout:
            now = time.monotonic()
            if (progress := _progress(folder)) != seen:
                seen, changed = progress, now
            if now - changed > STALL_TIMEOUT_S:
                raise DataError(
                    f"the process that builds a data set must come to an end; it has written nothing for "
                    f"{now - changed:.0f} s",
                    place=f"{folder}.lock",
                    remedy="End that process, which frees the lock, and run the same command again.",
                ) from None
            if now - start > NOTICE_AFTER_S and not is_announced:
                print(f"waiting for another process that builds the data set {folder}", file=sys.stderr)
                is_announced = True
    try:
        yield
    finally:
        lock.release()


def _progress(folder: Path) -> tuple[int, int]:
    """Progress of another process that builds the data set: the number of files, and the time of the last change."""
    times = []
    for path in folder.parent.glob(f"*{folder.name}.*/**/*"):
        with suppress(OSError):
            times.append(path.stat().st_mtime_ns)
    return len(times), max(times, default=0)


def _build(folder: Path, build: Callable[[CacheWriter], None]) -> None:
    for left in folder.parent.glob(f"*{folder.name}.*/"):  # of a process that was killed: this one has the lock
        shutil.rmtree(left)
    with partial_folder(folder) as fresh:
        with computing():
            build(CacheWriter(fresh))
        replace_folder(fresh, folder)  # an existing one is damaged, or it would have been opened


def _open(folder: Path) -> Dataset | None:
    """The data set in the folder, memory-mapped copy-on-write; None if it is missing or damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if any(_checksum(folder / file) != expected for file, expected in meta["files"].items()):
            return None
        splits = {name: _split(folder / name) for name in SPLITS if (folder / name).exists()}
        os.utime(folder / "meta.json", (time.time(), (folder / "meta.json").stat().st_mtime))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    about = meta["info"]
    images = None if about["images"] is None else (about["images"][0], about["images"][1])
    info = DataInfo(about["classes"], about["channels"], tuple(about["names"]), about["digest"], images)
    train, val, conflict = (splits.get(name) for name in SPLITS)
    if train is None or val is None:
        return None
    mean, std, notes = (tuple(meta[name]) for name in ("mean", "std", "notes"))
    return Dataset(info, train, val, mean, std, conflict, notes=notes)


def _split(folder: Path) -> Split:
    """A split as copy-on-write maps: all processes share their pages, and torch accepts them without a warning."""
    return Split(**{path.stem: np.load(path, mmap_mode="c") for path in folder.glob("*.npy")})


def _checksum(path: Path) -> str:
    size = path.stat().st_size
    return f"{size}-{zlib.crc32(path.read_bytes()):08x}" if size <= CHECKED_BYTES else f"{size}"


def require_varied(images: NDArray[np.uint8] | Rows, split: str, place: str | None = None) -> None:
    """Apply `require_varied_counts` to images (N, C, H, W)."""
    require_varied_counts(value_counts(images), len(images), split, place)


def require_varied_counts(counts: NDArray[np.float64], images: int, split: str, place: str | None = None) -> None:
    """Raise `DataError` for a channel that is constant, or nearly constant, over all images.

    There is nothing to learn from it, and its standard deviation is too small to divide by. `counts` (C, 256) is how
    often each channel has each value.
    """
    for channel, (row, deviation) in enumerate(zip(counts, 255 * _moments(counts)[1], strict=True)):
        if deviation >= MIN_DEVIATION or row.sum() <= 1:
            continue
        where = f"channel {channel} of {images:,} images"
        if np.count_nonzero(row) == 1:
            rule = f"every channel of the {split} images must have more than one value"
            value = f"{int(row.argmax())} in all pixels of {where}"
        else:
            rule = f"every channel of the {split} images must deviate by at least {MIN_DEVIATION:g} of 255 levels"
            value = f"a standard deviation of {deviation:.2g} levels, most being {int(row.argmax())}, in {where}"
        raise DataError(
            rule,
            value=value,
            place=place,
            remedy="Look at the files: are they masks, empty, of few bits, or drawn in the transparency alone? In "
            "those of more than 8 bits, a single extreme value darkens all others: scale them to 8 bits first.",
        )


def statistics(images: NDArray[np.uint8] | Rows) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images (N, C, H, W) scaled to [0, 1]; 1 for a constant channel.

    A data set with such a channel is refused earlier (`require_varied`); a few sample images are not.
    """
    mean, std = _moments(value_counts(images))
    return tuple(map(float, mean)), tuple(float(s) or 1.0 for s in std)


def _moments(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel scaled to [0, 1], (C,) each; 0 for a channel without values."""
    share, levels = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), np.arange(256) / 255
    mean = share @ levels
    return mean, np.sqrt(np.maximum(share @ levels**2 - mean**2, 0.0))


def value_counts(images: NDArray[np.uint8] | Rows) -> NDArray[np.float64]:
    """How often each channel has each value, (C, 256)."""
    counts = np.zeros((images.shape[1], 256))
    for start in range(0, len(images), 256):
        part = images[start : start + 256]
        for channel, row in enumerate(counts):
            row += np.bincount(part[:, channel].ravel(), minlength=256)
    return counts
