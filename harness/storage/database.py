"""An open database: its URL, connection settings and transactions, and the checks of its file.

SQLite runs in WAL mode with `synchronous=NORMAL`: readers never wait for the writer, and a commit costs no flush to the
disk. This needs memory that all processes with the open file share, which a network file system does not provide.
"""

import functools
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from harness.errors import NotFound, StoreError
from harness.storage import migrate
from harness.storage.errors import translate_errors

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


class Database:
    """An open study database; a context manager. Create it with `open`."""

    def __init__(self, url: URL, engine: Engine, *, is_read_only: bool, busy_s: float) -> None:
        self.url = url
        self.engine = engine
        self.is_read_only = is_read_only
        self.busy_s = busy_s
        self.resources = ExitStack()
        """Other resources on this database, which are closed with it."""
        self.resources.callback(engine.dispose)
        self._file_id = file_id(sqlite_file(url))
        self.require_file_with(engine)

    @classmethod
    def open(cls, where: str | Path, *, read_only: bool = False, busy_s: float = BUSY_S) -> Self:
        """Open the database at a URL or path: create it if it does not exist, bring its tables up to date.

        With `read_only`, creates and changes nothing, and raises `NotFound` if there is no database. Raises
        `StoreError` for a foreign database, for one of a newer harness, and for an SQLite file on a network file
        system.
        """
        url = database_url(where)
        file = sqlite_file(url)
        with translate_errors(database_label(url)):
            if file is not None:
                check_file_system(file)
            revision = None if file is not None and not file.exists() else _schema_revision(url, busy_s)
            if read_only:
                _check_readable(revision, url)
            elif file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            engine = make_engine(url, read_only=read_only, busy_s=busy_s)
            with ExitStack() as undo:
                undo.callback(engine.dispose)
                if not read_only and revision != migrate.REVISIONS[-1]:
                    migrate.migrate(engine, database_label(url))
                undo.pop_all()
        return cls(url, engine, is_read_only=read_only, busy_s=busy_s)

    def close(self) -> None:
        """Close all connections."""
        self.resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def location(self) -> str:
        """The database as messages name it."""
        return database_label(self.url)

    def translate_errors(self) -> AbstractContextManager[None]:
        """Raise database errors of Optuna's storage as `StoreError`; the store's own methods already do so."""
        return translate_errors(self.location)

    def require_file_with(self, engine: Engine) -> None:
        """Check the database's file before every transaction of an engine; see `require_file`."""
        if not self.is_read_only:
            event.listen(engine, "begin", lambda _: self.require_file())

    def require_file(self) -> None:
        """Raise `StoreError` if the file of an SQLite database is no longer the one that was opened.

        A process that has a removed or replaced file open can still write to it, but what it writes is lost.
        """
        if not self.is_read_only and file_id(sqlite_file(self.url)) != self._file_id:
            raise StoreError(
                "the database must stay where it is while it is written to; its file was removed or replaced",
                place=self.location,
                remedy="Put it back, or continue without it: run the same command again. What the checkpoints hold is "
                "written into the database that is there then.",
            )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction; its rows stay readable after it."""
        self.require_file()  # before connecting, which would create a file
        with translate_errors(self.location), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @property
    def root(self) -> Path | None:
        """The database's folder; folders inside it are stored relative to it, so that a results folder can be moved."""
        file = sqlite_file(self.url)
        return None if file is None else file.parent

    def relative(self, folder: Path) -> str:
        """A folder as it is stored; see `root`."""
        folder = folder.absolute()
        return str(folder.relative_to(self.root) if self.root and folder.is_relative_to(self.root) else folder)


def _schema_revision(url: URL, busy_s: float) -> str | None:
    """The schema's revision, read without changing anything; None for an empty database."""
    engine = make_engine(url, read_only=True, busy_s=busy_s)
    try:
        with engine.connect() as connection:
            return migrate.current_revision(connection, database_label(url))
    finally:
        engine.dispose()


def _check_readable(revision: str | None, url: URL) -> None:
    if revision is None:
        raise NotFound(
            "a study must have been run here", place=database_label(url), remedy="Start one: `harness run FILE`."
        )
    if revision != migrate.REVISIONS[-1]:
        rule = f"the database's schema must be at revision {migrate.REVISIONS[-1]} to be read"
        remedy = "Run one of its studies once with this version, which brings it up to date."
        raise StoreError(rule, value=revision, place=database_label(url), remedy=remedy)


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
        rule = "an SQLite database must be on a local disk"
        remedy = "Give a local folder with `--results`, or a server with `--storage postgresql+psycopg://...`."
        raise StoreError(rule, value=kind, place=str(file), remedy=remedy)


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
    rule = "`--storage` must name an SQLite file or a PostgreSQL database"
    remedy = "Write `sqlite:///path/to/studies.db` or `postgresql+psycopg://user@host/database`."
    return StoreError(rule, value=url, remedy=remedy)


def upsert(connection: Connection, table: Table, keys: tuple[str, ...], row: Mapping[str, object]) -> None:
    """Insert a row, or update it if it exists; `keys` are the columns of a unique constraint."""
    connection.execute(_upsert_statement(table, keys, tuple(row), connection.dialect.name), row)


@functools.cache
def _upsert_statement(table: Table, keys: tuple[str, ...], columns: tuple[str, ...], dialect: str) -> Insert:
    statement = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
    changes = {name: statement.excluded[name] for name in columns if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changes)
