"""An open database: opening and closing, transactions, and the check that its file is not replaced."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from harness.errors import NotFound, StoreError
from harness.storage import migrate
from harness.storage.engine import (
    BUSY_S,
    check_file_system,
    database_label,
    database_url,
    file_id,
    make_engine,
    sqlite_file,
)
from harness.storage.errors import translate_errors


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        raise StoreError(
            f"the database's schema must be at revision {migrate.REVISIONS[-1]} to be read",
            value=revision,
            place=database_label(url),
            remedy="Run one of its studies once with this version, which brings it up to date.",
        )
