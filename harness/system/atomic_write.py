"""Files and folders that are written in one piece: whoever reads them finds the old one or the new one, never a part.

What is being written has a name of its own in the same folder, and is renamed when it is whole.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPLACED = "replaced"
"""The old folder inside the new one, until it is removed."""


@contextmanager
def atomic_write(path: Path, *, partial: Path | None = None, is_shared: bool = False) -> Iterator[Path]:
    """The file to be written, which takes the place of `path` at the end, and is removed after an error.

    Its name follows from that of `path`, so that what a killed process has left is overwritten by the next one. With
    `is_shared`, for files that several processes or threads may write at once, it is another one each time. `partial`
    is a file to be written in place of either.
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


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """A new folder next to `folder`, to be filled and then renamed; what is left of it at the end is removed."""
    fresh = folder.with_name(f".{folder.name}.{_token()}")
    fresh.mkdir(parents=True)
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Give a folder that was filled its place; an old one there is removed."""
    if folder.exists():
        folder.rename(fresh / REPLACED)
    fresh.rename(folder)
    shutil.rmtree(folder / REPLACED, ignore_errors=True)


def _token() -> str:
    return os.urandom(16).hex()
