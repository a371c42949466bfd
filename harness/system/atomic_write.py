"""Atomic writes of files and folders: a reader finds the old version or the new one, never a part.

The new version is written under a temporary name in the same folder, and renamed when it is complete.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPLACED = "replaced"
"""Name of the old folder inside the new one, until it is removed."""


@contextmanager
def atomic_write(path: Path, *, partial: Path | None = None, is_shared: bool = False) -> Iterator[Path]:
    """Yield a temporary file to write; it replaces `path` at the end, and is removed after an error.

    Its name is derived from `path`, so that the next process overwrites the file that a killed process left. With
    `is_shared`, for files that several processes or threads may write at once, the name is unique. `partial` is a file
    to use instead of either.
    """
    if partial is None:
        partial = path.with_name(f"{path.name}.{_token()}.partial" if is_shared else f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def atomic_write_text(path: Path, text: str, *, is_shared: bool = False) -> None:
    """Write a text in UTF-8; see `atomic_write`."""
    with atomic_write(path, is_shared=is_shared) as partial:
        partial.write_text(text, encoding="utf-8")


def write_cache(path: Path, content: object) -> None:
    """Write JSON for later processes to read with `read_json`; if that fails, they compute the content again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(content), is_shared=True)


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder next to `folder`, to be filled and renamed; if it still exists at the end, it is removed."""
    fresh = folder.with_name(f".{folder.name}.{_token()}")
    fresh.mkdir(parents=True)
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Rename a filled folder to its final name; an old folder of that name is removed."""
    if folder.exists():
        folder.rename(fresh / REPLACED)
    fresh.rename(folder)
    shutil.rmtree(folder / REPLACED, ignore_errors=True)


def _token() -> str:
    return os.urandom(16).hex()
