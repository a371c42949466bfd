"""One driver per study and database: a lock that the operating system or the server releases when its holder dies."""

import hashlib
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.engine import URL

from harness.errors import StoreError
from harness.storage.engine import sqlite_file
from harness.storage.errors import translate_errors
from harness.storage.rows import RunRow
from harness.storage.store import Store

ACQUIRE_TIMEOUT_S = 0.3
"""How long a second driver tries: a holder that was killed, or a look at the lock, may take a moment to let go."""
RETRY_S = 0.05
NAME_BYTES = 63
"""PostgreSQL cuts the names of applications to this length."""
KEEPALIVE_S = 30
"""How often the server asks whether a silent holder's host is still there."""

FIND_HOLDER = text(
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
    "AND objsubid = 2 AND classid = CAST(:high AS oid) AND objid = CAST(:low AS oid) AND pid != pg_backend_pid() "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class DriverLock:
    """The right to drive a study, for as long as the `with` block lasts or the process lives.

    SQLite: a lock on a file beside the database. PostgreSQL: an advisory lock, held by a connection of its own.
    Raises `StoreError`, naming the holder, where another driver has it.
    """

    def __init__(self, store: Store, study: str) -> None:
        self._study = study
        self._place = store.location
        self._lock = _lock(store.url, study)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + ACQUIRE_TIMEOUT_S
        with translate_errors(self._place):
            while (holder := self._lock.acquire()) is not None and time.monotonic() < deadline:
                time.sleep(RETRY_S)
        if holder is None:
            return self
        raise StoreError(
            "a study must have one driver at a time",
            value=f"a second one for `{self._study}`, which {holder} drives",
            place=self._place,
            remedy="Watch that one with `harness status`, or end it first.",
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


def driver_of(store: Store, study: str) -> str | None:
    """Who drives a study now, as `process 4711 on host`; None where nobody does."""
    lock = _lock(store.url, study)
    with translate_errors(store.location):
        if isinstance(lock, _FileLock) and not lock.path.exists():
            return None
        holder = lock.acquire()
        if holder is None:
            lock.release()
    return holder


class _Lock(Protocol):
    def acquire(self) -> str | None:
        """Take the lock and return None, or return the name of who has it."""

    def release(self) -> None:
        """Give the lock back."""


class _FileLock:
    """A lock on `<database>.<study>.lock`, which names its holder and stays behind empty."""

    def __init__(self, database: Path, study: str) -> None:
        self.path = database.with_name(f"{database.name}.{quote(study, safe='')}.lock")
        self._lock = FileLock(self.path, timeout=0, thread_local=False, fallback_to_soft=False)

    def acquire(self) -> str | None:
        try:
            self._lock.acquire()
        except Timeout:
            return self.path.read_text() or "another process"
        except OSError as error:
            if isinstance(error, PermissionError) and self.path.exists():  # somebody else's folder: can only be read
                return self.path.read_text() or None
            raise StoreError(
                "the folder of the database must allow lock files",
                value=error.strerror,
                place=str(self.path),
                remedy="Choose a local folder that you may write to with `--results`.",
            ) from error
        self.path.write_text(_own_name())
        return None

    def release(self) -> None:
        if self._lock.is_locked:
            self.path.write_text("")
            self._lock.release()


class _ServerLock:
    """A session's advisory lock; the application's name on its connection is the holder's."""

    def __init__(self, url: URL, study: str) -> None:
        self._engine = create_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"application_name": _own_name()[:NAME_BYTES]},
        )
        digest = hashlib.sha256(f"harness driver {study}".encode()).digest()
        self._key = {"high": int.from_bytes(digest[:4]) >> 1, "low": int.from_bytes(digest[4:8]) >> 1}
        self._connection: Connection | None = None

    def acquire(self) -> str | None:
        self._connection = self._engine.connect()
        try:
            self._connection.execute(text(f"SET tcp_keepalives_idle = {KEEPALIVE_S}"))
            if self._connection.scalar(text("SELECT pg_try_advisory_lock(:high, :low)"), self._key):
                return None
            holder = self._connection.scalar(FIND_HOLDER, self._key)
        except BaseException:
            self.release()
            raise
        self.release()
        return holder or "another process"

    def release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def reap_undriven(store: Store, study: str) -> list[RunRow]:
    """Close the runs of a study whose driver is gone; its next driver may never come; see `Store.mark_lost_runs`.

    Nothing of a study that is driven.
    """
    try:
        with DriverLock(store, study):
            return store.mark_lost_runs(study)
    except StoreError:  # it is driven: its runs have a limit of their own
        return []


def _lock(url: URL, study: str) -> _Lock:
    file = sqlite_file(url)
    return _ServerLock(url, study) if file is None else _FileLock(file, study)


def _own_name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
