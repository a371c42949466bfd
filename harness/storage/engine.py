"""Database connections: URLs, SQLite's settings, the check for network file systems; and `upsert`.

SQLite runs in WAL mode with `synchronous=NORMAL`: readers never wait for the writer, and a commit costs no flush to the
disk. This needs memory that all processes with the open file share, which a network file system does not provide.
"""

import functools
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from harness.errors import StoreError

BUSY_S = 30.0
"""Maximum time that a connection waits for another process that is writing."""
CACHE_KIB = 16_384
MOUNTS = Path("/proc/mounts")
NETWORK_FILE_SYSTEMS = (
    {"9p", "afs", "cifs", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
    | {"beegfs", "ceph", "gfs2", "glusterfs", "gpfs", "lustre", "ocfs2", "orangefs", "pvfs2"}
    | {"davfs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
)
"""File system types in /proc/mounts whose files several machines share; memory mapped from them is not shared."""


class _Writer(sqlite3.Connection):
    """A connection that applies our settings before its first statement; Optuna's connections use it too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"cache_size=-{CACHE_KIB}"):
            self.execute(f"PRAGMA {pragma}")


class _Reader(sqlite3.Connection):
    """A connection that changes nothing, not even the journal mode: the file may not be one of ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA query_only=ON")


def database_url(where: str | Path) -> URL:
    """The URL of a database, from a URL or the path of an SQLite file.

    Raises `StoreError` for anything but an SQLite file and a PostgreSQL database.
    """
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).absolute()))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError) as error:
        raise _bad_url(where) from error
    kind = url.drivername.partition("+")[0]
    if kind == "sqlite":
        return _sqlite_url(url)
    if kind in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise _bad_url(url.render_as_string())


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite database; None for a database on a server."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def file_id(file: Path | None) -> tuple[int, int] | None:
    """Device and inode of a file, which differ for a file that replaces it; None if there is no file."""
    try:
        status = None if file is None else file.stat()
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)


def database_label(url: URL) -> str:
    """The database as messages name it: a path, or a URL without its password."""
    return str(sqlite_file(url) or url.render_as_string(hide_password=True))


def connect_options(url: URL, *, read_only: bool = False, busy_s: float = BUSY_S) -> dict[str, Any]:
    """Keyword arguments of `create_engine` that apply our settings to every connection."""
    if sqlite_file(url) is None:
        options: dict[str, Any] = {
            "pool_pre_ping": True
        }  # a server may drop a connection in the hours between two runs
        return options | ({"execution_options": {"postgresql_readonly": True}} if read_only else {})
    return {"connect_args": {"timeout": busy_s, "factory": _Reader if read_only else _Writer}}


def make_engine(url: URL, *, read_only: bool = False, busy_s: float = BUSY_S) -> Engine:
    """Create an engine for the database, without connecting yet."""
    if read_only:
        url = _without_writing(url)
    return create_engine(url, **connect_options(url, read_only=read_only, busy_s=busy_s))


def check_file_system(file: Path, mounts: str | None = None) -> None:
    """Raise `StoreError` for an SQLite file on a network file system; `mounts` is the text of /proc/mounts."""
    if mounts is None:
        mounts = MOUNTS.read_text() if MOUNTS.exists() else ""
    kind = _file_system(file.resolve(), mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreError(
            "an SQLite database must be on a local disk",
            value=kind,
            place=str(file),
            remedy="Give a local folder with `--results`, or a server with `--storage postgresql+psycopg://...`.",
        )


def _file_system(file: Path, mounts: str) -> str | None:
    """The type of a path's file system: that of the deepest mount point above it, of several the last one mounted."""
    kind, depth = None, -1
    for line in mounts.splitlines():
        _, point, mounted_kind, *_ = line.split(" ")
        folder = Path(point.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace"))
        if file.is_relative_to(folder) and len(folder.parts) >= depth:
            kind, depth = mounted_kind, len(folder.parts)
    return kind


def _sqlite_url(url: URL) -> URL:
    """The URL with an absolute path. Raises `StoreError` for in-memory databases and driver options."""
    name = url.database or ":memory:"
    if url.host or url.query or name == ":memory:" or name.startswith("file:"):
        raise _bad_url(url.render_as_string())
    return URL.create("sqlite", database=str(Path(name).absolute()))


def _without_writing(url: URL) -> URL:
    """A URL that can read an SQLite file in a folder where its write-ahead log cannot be opened for writing."""
    file = sqlite_file(url)
    if file is None or os.access(file.parent, os.W_OK):
        return url
    mode = {"mode": "ro"} if file.with_name(file.name + "-wal").exists() else {"immutable": "1"}
    return URL.create("sqlite", database=file.as_uri(), query=mode | {"uri": "true"})


def _bad_url(url: str) -> StoreError:
    return StoreError(
        "`--storage` must name an SQLite file or a PostgreSQL database",
        value=url,
        remedy="Write `sqlite:///path/to/studies.db` or `postgresql+psycopg://user@host/database`.",
    )


def upsert(connection: Connection, table: Table, keys: tuple[str, ...], row: Mapping[str, object]) -> None:
    """Insert a row, or update it if it exists; `keys` are the columns of a unique constraint."""
    connection.execute(_upsert_statement(table, keys, tuple(row), connection.dialect.name), row)


@functools.cache
def _upsert_statement(table: Table, keys: tuple[str, ...], columns: tuple[str, ...], dialect: str) -> Insert:
    statement = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
    changes = {name: statement.excluded[name] for name in columns if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changes)
