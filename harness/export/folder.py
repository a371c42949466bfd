"""The folder of an export: it gets all of its files at once, or none."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from harness.errors import UserError

RECORD = "export.json"
"""Says what an export has written; the last file to come, and the first to go."""


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, to write into and then to `settle`; what is left of it goes in the end.

    Raises `UserError` where `folder` holds anything that no export has written, and where nothing can be written.
    """
    _require_free(folder)
    fresh = folder.with_name(f".{folder.name}.{uuid4().hex}")
    try:
        fresh.mkdir(parents=True)
        yield fresh
    except OSError as error:
        rule = f"the folder must be writable ({error.strerror or error})"
        raise UserError(rule, place=str(folder), remedy="Free space there, or choose another with `--to`.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def settle(fresh: Path, folder: Path) -> None:
    """Give the files their place, the record last; those of an earlier export go."""
    if not folder.exists():
        fresh.rename(folder)
        return
    for name in reversed(_written(folder)):
        (folder / name).unlink(missing_ok=True)
    for file in sorted(fresh.iterdir(), key=lambda file: file.name == RECORD):
        file.replace(folder / file.name)


def _require_free(folder: Path) -> None:
    is_ours = (folder / RECORD).is_file()
    if folder.exists() and not (folder.is_dir() and (is_ours or not any(folder.iterdir()))):
        raise UserError(
            "`--to` must be a new or an empty folder, or one that `harness export` has written",
            value=str(folder),
            remedy="Choose another.",
        )


def _written(folder: Path) -> list[str]:
    """The files of the earlier export in a folder, its record last; plain names alone, whatever the record says."""
    try:
        names = [str(name) for name in json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, TypeError, LookupError):
        names = []
    return [*(name for name in names if Path(name).name == name and name != RECORD), RECORD]
