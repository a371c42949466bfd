"""Translates SQLite and PostgreSQL errors into `StoreError`s with a remedy."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from harness.errors import StoreError

SQLITE_ERRORS: dict[str, tuple[str, str]] = {
    "SQLITE_BUSY": (
        "the database must not be held by another process",
        "End the process that holds it and run the same command again; what was recorded is kept.",
    ),
    "SQLITE_FULL": (
        "the disk must have space for the database",
        "Free some space and run the same command again; what was recorded is kept.",
    ),
    "SQLITE_READONLY": ("the database must be writable", "Change its permissions, or choose another with `--storage`."),
    "SQLITE_PERM": ("the database must be readable", "Change its permissions, or choose another with `--storage`."),
    "SQLITE_CANTOPEN": ("the database must be a file that can be opened", "Check the path and its permissions."),
    "SQLITE_NOTADB": ("the file must be an SQLite database", "Give another path with `--storage` or `--results`."),
    "SQLITE_CORRUPT": (
        "the database must not be damaged",
        "Put a copy in its place, or move it away to start again.",
    ),
    "SQLITE_IOERR": ("the disk must read and write without errors", "Check the disk, then run the same command again."),
}
"""Rule and remedy by the beginning of SQLite's name for the error."""

POSTGRES_ERRORS: dict[str, tuple[str, str]] = {
    "08": ("the database server must answer", "Check that it runs, and the host and port in `--storage`."),
    "25006": ("the database must be writable", "Give the server that takes writes with `--storage`."),
    "28": ("the database server must let this user in", "Check user and password in `--storage`."),
    "3D000": ("the database must exist", "Create it with `createdb`, or give another with `--storage`."),
    "42501": ("the database must allow this user to create and write tables", "Grant it, or give another user."),
    "53100": ("the server's disk must have space for the database", "Free some space and run the same command again."),
    "53": ("the database server must have resources to spare", "Run the same command again when it has."),
    "57": ("the database server must stay up", "Run the same command again when it does; what was recorded is kept."),
}
"""Rule and remedy by the beginning of the SQLSTATE. Errors without one are connection errors, class 08."""


def study_deleted(name: str, place: str) -> StoreError:
    """The error of a driver if another process has deleted its study."""
    rule = f"a study must not be deleted while it is driven; another process has deleted `{name}`"
    remedy = "Run the same command again to bring it back: its runs and their checkpoints are kept."
    return StoreError(rule, place=place, remedy=remedy)


@contextmanager
def translate_errors(place: str) -> Iterator[None]:
    """Raise database errors in the `with` block as `StoreError`; all other errors pass unchanged.

    This includes calls of Optuna, whose storage wraps the same errors.
    """
    try:
        yield
    except Exception as error:
        refused = _translate(error)
        if refused is None:
            raise
        (rule, remedy), output = refused
        raise StoreError(rule, value=output, place=place, remedy=remedy) from error


def _translate(error: BaseException | None) -> tuple[tuple[str, str], str] | None:
    """Rule and remedy for the database error in a chain of causes, and the first line of its message."""
    while error is not None:
        if isinstance(error, DBAPIError) and error.orig is not None:
            output = str(error.orig).strip().partition("\n")[0]
            entry = _sqlite(error.orig) if isinstance(error.orig, sqlite3.Error) else _postgres(error)
            return None if entry is None else (entry, output)
        error = error.__cause__
    return None


def _sqlite(error: sqlite3.Error) -> tuple[str, str] | None:
    name = getattr(error, "sqlite_errorname", "")
    return next((entry for start, entry in SQLITE_ERRORS.items() if name.startswith(start)), None)


def _postgres(error: DBAPIError) -> tuple[str, str] | None:
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        is_connection = type(error.orig).__name__ == "OperationalError"
        return POSTGRES_ERRORS["08"] if is_connection else None
    return next((entry for start, entry in POSTGRES_ERRORS.items() if state.startswith(start)), None)
