"""One driver per study and database: a lock that the operating system or the server releases when its holder dies."""

import hashlib
import os
import socket
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.engine import URL

from harness.errors import StoreError
from harness.storage.database import sqlite_file
from harness.storage.errors import translate_errors
from harness.storage.rows import RunRow
from harness.storage.store import Store

ACQUIRE_TIMEOUT_S = 0.3
"""How long a second driver retries: a killed holder, or a check by `driver_of`, may take a moment to release it."""
RETRY_S = 0.05
NAME_BYTES = 63
"""PostgreSQL truncates application names to this length."""
KEEPALIVE_S = 30
"""Idle time after which the server checks that the holder's host still responds."""

FIND_HOLDER = text(
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
    "AND objsubid = 2 AND classid = CAST(:high AS oid) AND objid = CAST(:low AS oid) AND pid != pg_backend_pid() "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class DriverLock:
    """The exclusive right to drive a study, until the `with` block or the process ends.

    SQLite: a lock on a file next to the database. PostgreSQL: an advisory lock on a separate connection.
    Raises `StoreError`, which names the holder, if another driver has the lock.
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

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def driver_of(store: Store, study: str) -> str | None:
    """The process that drives a study now, as `process 4711 on host`; None if there is none."""
    lock = _lock(store.url, study)
    with translate_errors(store.location):
        if isinstance(lock, _FileLock) and not lock.path.exists():
            return None
        holder = lock.acquire()
        if holder is None:
            lock.release()
    return holder


class _FileLock:
    """A lock on the file `<database>.<study>.lock`, which contains the holder's name, and is empty after release."""

    def __init__(self, database: Path, study: str) -> None:
        self.path = database.with_name(f"{database.name}.{quote(study, safe='')}.lock")
        self._lock = FileLock(self.path, timeout=0, thread_local=False, fallback_to_soft=False)

    def acquire(self) -> str | None:
        """Take the lock and return None, or return the name of its holder."""
        try:
            self._lock.acquire()
        except Timeout:
            return self.path.read_text() or "another process"
        except OSError as error:
            if isinstance(error, PermissionError) and self.path.exists():  # a read-only folder of another user
                return self.path.read_text() or None
            rule = "the folder of the database must allow lock files"
            remedy = "Choose a local folder that you may write to with `--results`."
            raise StoreError(rule, value=error.strerror, place=str(self.path), remedy=remedy) from error
        self.path.write_text(_own_name())
        return None

    def release(self) -> None:
        if self._lock.is_locked:
            self.path.write_text("")
            self._lock.release()


class _ServerLock:
    """A session-level advisory lock; the application name of its connection is the holder's name."""

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
    """Close the open runs of a study without a driver, which may never get another one; see `Store.mark_lost_runs`.

    Changes nothing and returns an empty list if the study has a driver.
    """
    try:
        with DriverLock(store, study):
            return store.mark_lost_runs(study)
    except StoreError:  # the study has a driver, which limits the time of its runs itself
        return []


def _lock(url: URL, study: str) -> "_FileLock | _ServerLock":
    file = sqlite_file(url)
    return _ServerLock(url, study) if file is None else _FileLock(file, study)


def _own_name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
