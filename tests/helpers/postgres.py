"""Databases for the tests: SQLite files, and PostgreSQL.

PostgreSQL is the server at HARNESS_TEST_POSTGRES (a URL whose user may create schemas), or else one that is started
for the session where its programs are installed. Without either, the tests that need it are skipped.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

START_S = 60.0


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'studies.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL schema, used in place of a database: creating a database takes a second."""
    schema = f"harness_{uuid.uuid4().hex[:12]}"
    url = make_url(postgres_server).set(drivername="postgresql+psycopg")
    with _administer(postgres_server) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
    yield url.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(hide_password=False)
    with _administer(postgres_server) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a database in which schemas can be created."""
    configured_url = os.environ.get("HARNESS_TEST_POSTGRES")
    if configured_url:
        yield configured_url
        return
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL: install its server, or set HARNESS_TEST_POSTGRES")
    folder = Path(tempfile.mkdtemp(prefix="harness-postgres-"))
    user = _server_user(folder)
    server = _start(programs, folder, user)
    try:
        yield f"postgresql://harness@127.0.0.1:{server.port}/postgres"
    finally:
        server.process.send_signal(signal.SIGINT)
        server.process.wait(START_S)
        shutil.rmtree(folder)


class _Server:
    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port


def _programs() -> Path | None:
    initdb_path = shutil.which("initdb")
    folders = [Path(initdb_path).parent] if initdb_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def _server_user(folder: Path) -> dict[str, Any]:
    """The server refuses to run as root: hand the folder to the user that its package made."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user `postgres`")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _start(programs: Path, folder: Path, user: dict[str, Any]) -> _Server:
    data = folder / "data"
    choices = ["--username=harness", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"]
    initdb = [str(programs / "initdb"), "--pgdata", str(data), *choices]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    log = (folder / "log").open("wb")
    with log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder, **user
        )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=port, user="harness", dbname="postgres").close()
            return _Server(process, port)
        time.sleep(0.1)
    process.kill()
    process.wait()
    raise RuntimeError(f"PostgreSQL did not start:\n{(folder / 'log').read_text()}")


def _administer(server: str) -> "psycopg.Connection[Any]":
    url = make_url(server).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(url, autocommit=True)
