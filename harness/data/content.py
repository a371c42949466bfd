"""Identity of files by their content: a digest that does not depend on the path of the folder.

The digest covers the relative names, because their order decides the order of the images, and every byte of the files.
Digests of single files are cached by path, size, inode and times of change, so that a second call reads no content.
Above `LARGE_BYTES` the digest covers the names and sizes of all files, and the content of a sample of them.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from harness.data.threads import map_in_threads
from harness.errors import DataError
from harness.system.atomic_write import read_json, write_cache
from harness.system.device_slot import computing
from harness.system.fingerprint import fingerprint

LARGE_BYTES = 4 << 30
"""Total size above which only a sample of the files is read."""
SAMPLE = 4096
"""Number of files of a large folder whose content is read."""
UNCHANGED_FOR_NS = 2_000_000_000
"""Files that were changed less than this ago are not cached: a change within one tick of the clock would be missed."""
DIGESTS_FOLDER = "digests"
"""Folder of the cached digests in the cache of data sets."""

FileStamp = tuple[int, int, int, int]
"""Size, inode, and times of the last change of content and of the inode. A program cannot set the latter, so that a
replacement by a file of the same size and time is detected."""


@dataclass(frozen=True, slots=True)
class ContentDigest:
    """The identity of files by their content."""

    digest: str
    """Sixteen hexadecimal digits."""
    note: str | None = None
    """A note if not all content was read."""


@computing()
def read_content(root: Path, files: Sequence[str], *, extra: object = None, cache: Path | None = None) -> ContentDigest:
    """The identity of `files`, given relative to `root`, and of `extra`, plain values that also affect the images.

    `cache` is the folder of prepared data sets; nothing is written where it does not exist. Raises `DataError` for a
    file that cannot be read.
    """
    stamps = [_stamp(root / file) for file in files]
    total = sum(stamp[0] for stamp in stamps)
    chosen = range(len(files)) if total <= LARGE_BYTES else _sample(files)
    digests = _digests(root, [files[i] for i in chosen], [stamps[i] for i in chosen], cache)
    texts = (os.fsencode(file).decode("utf-8", "backslashreplace") for file in files)  # bytes may not be UTF-8
    names = [[text, stamp[0]] for text, stamp in zip(texts, stamps, strict=True)]
    digest = fingerprint([extra, names, digests])
    if total <= LARGE_BYTES:
        return ContentDigest(digest)
    return ContentDigest(
        digest,
        f"the data set is identified by the names and sizes of its {len(files):,} files and by the content of "
        f"{len(digests):,} of them, because it is larger than {LARGE_BYTES >> 30} GiB",
    )


def _stamp(path: Path) -> FileStamp:
    try:
        stat = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


def _sample(files: Sequence[str]) -> list[int]:
    """Indices of the files whose names have the smallest digests: the same ones for any location of the folder."""
    order = sorted(range(len(files)), key=lambda i: blake2b(os.fsencode(files[i]), digest_size=8).digest())
    return sorted(order[:SAMPLE])


def _digests(root: Path, files: Sequence[str], stamps: Sequence[FileStamp], cache: Path | None) -> list[str]:
    """The digest of each file, from the cache if its stamp has not changed."""
    store = None if cache is None else cache / DIGESTS_FOLDER / f"{fingerprint(os.fspath(root.absolute()))}.json"
    cached = _read(store)
    entries = [(file, list(stamp)) for file, stamp in zip(files, stamps, strict=True)]
    missing = [i for i, (file, stamp) in enumerate(entries) if cached.get(file, [None])[0] != stamp]
    started = time.time_ns()
    fresh = dict(zip(missing, map_in_threads(lambda i: _hash(root / files[i]), missing), strict=True))
    digests = [fresh[i] if i in fresh else str(cached[file][1]) for i, (file, _) in enumerate(entries)]
    if fresh and store is not None and store.parent.parent.is_dir():
        settled = (i for i, stamp in enumerate(stamps) if max(stamp[2:]) < started - UNCHANGED_FOR_NS)
        write_cache(store, {entries[i][0]: [entries[i][1], digests[i]] for i in settled})
    return digests


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def _read(store: Path | None) -> dict[str, list[object]]:
    """The cached digests by file, `[stamp, digest]`; empty if they are missing or damaged."""
    digests: Any = {} if store is None else read_json(store)
    is_sound = isinstance(digests, dict) and all(
        isinstance(entry, list) and len(entry) == 2 for entry in digests.values()
    )
    return digests if is_sound else {}


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that the operating system cannot read, whatever its content."""
    remedy = "It is a link to nothing: restore the file, or remove the link." if path.is_symlink() else None
    if isinstance(error, PermissionError):
        remedy = "Allow this user to read it, or remove it from the folder."
    return DataError(
        f"every file of the data set must be readable ({error.strerror or error})",
        place=str(path),
        remedy=remedy or "Check the disk and the path, and run the same command again.",
    )
