"""Opening a database: what is created, what is refused, and in which words."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from harness.config.recipes.proxy import ProxyRecipe
from harness.errors import NotFound, StoreError
from harness.models.spec.presets import preset
from harness.storage import Store, load_study, open_study
from harness.storage.database import check_file_system, database_label, database_url
from harness.training.run import Run

pytest_plugins = ["postgres"]

RUN = Run(preset("replknet_nano"), ProxyRecipe(), seed=0)


def test_a_path_is_created_with_its_folders(tmp_path: Path) -> None:
    with Store.open(tmp_path / "results" / "deep" / "studies.db") as store:
        store.ensure_run(RUN)
    with Store.open(str(tmp_path / "results" / "deep" / "studies.db")) as store:
        assert store.run(RUN.id).run == RUN


@pytest.mark.long
@pytest.mark.parametrize("name", ["a b.db", "{x}.db", "100%.db", "what?.db", "#1.db", "größe.db", "it's.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    for address in (file, database_url(file).render_as_string()):
        with Store.open(address) as store:
            store.ensure_run(RUN)
            open_study(store, "s", directions=["maximize"])
    assert file.exists()
    with Store.open(file, read_only=True) as store:
        assert load_study(store, "s").study_name == "s"


def test_sqlite_has_our_settings_for_us_and_for_optuna(tmp_path: Path) -> None:
    with Store.open(tmp_path / "studies.db") as store:
        study = open_study(store, "s", directions=["maximize"])
        for owner in (store.engine, study._storage._rows.engine):  # type: ignore[attr-defined]
            with owner.connect() as connection:
                pragmas = [
                    connection.execute(text(f"PRAGMA {name}")).scalar()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                ]
            assert pragmas == ["wal", 1, 1, 30_000]


def test_reading_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="a study must have been run here"):
        Store.open(tmp_path / "none" / "studies.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_reading_an_empty_server_creates_nothing(postgres_url: str) -> None:
    for _ in range(2):
        with pytest.raises(NotFound, match="a study must have been run here"):
            Store.open(postgres_url, read_only=True)


def test_reading_changes_nothing(database: str) -> None:
    with Store.open(database) as store:
        store.ensure_run(RUN)
    with Store.open(database, read_only=True) as store:
        assert store.run(RUN.id).run == RUN
        with pytest.raises(StoreError, match="the database must be writable"):
            store.event("s", "kind", "message")
        with pytest.raises(NotFound, match="a study must have been run here"):
            load_study(store, "s")


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path / "studies.db") as store:
        store.ensure_run(RUN)
    monkeypatch.setattr(os, "access", lambda *_: False)
    before = sorted(tmp_path.iterdir())
    with Store.open(tmp_path / "studies.db", read_only=True) as store:
        assert store.run(RUN.id).run == RUN
        assert sorted(tmp_path.iterdir()) == before
    with Store.open(tmp_path / "studies.db") as writer:
        writer.event("s", "kind", "written beside the reader")
        with Store.open(tmp_path / "studies.db", read_only=True) as store:
            assert [event.message for event in store.events("s")] == ["written beside the reader"]


def test_somebody_elses_tables_are_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    before = file.read_bytes()
    for read_only in (True, False):
        with pytest.raises(StoreError, match=r"one of the harness, or empty, but got \['customers'\]"):
            Store.open(file, read_only=read_only)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_somebody_elses_server_is_refused(postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    with pytest.raises(StoreError, match=r"one of the harness, or empty, but got \['customers'\]"):
        Store.open(postgres_url)


@pytest.mark.parametrize("content", [b"study: kernel_size\n" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.yaml"
    file.write_bytes(content)
    for read_only in (True, False):
        with pytest.raises(StoreError, match=r"must (be an SQLite database|not be damaged)") as caught:
            Store.open(file, read_only=read_only)
        assert str(file) in str(caught.value)
    assert file.read_bytes() == content


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "studies.db"
    with Store.open(file) as store:
        store.ensure_run(RUN)
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(StoreError, match="must not be damaged"), Store.open(file) as store:
        store.run(RUN.id)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="must be a file that can be opened"):
        Store.open(tmp_path)


def test_a_newer_schema_is_refused(database: str) -> None:
    with Store.open(database) as store, store.engine.begin() as connection:
        connection.execute(text("UPDATE harness_alembic SET version_num = '9999'"))
    for read_only in (True, False):
        with pytest.raises(StoreError, match=r"known to this version .* but got '9999' .* upgrade this one"):
            Store.open(database, read_only=read_only)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
        "sqlite:///x.db?mode=memory",
        "mysql://host/db",
        "redis://host",
        "://",
        "nonsense://",
        "postgresql://host:port/db",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match="must name an SQLite file or a PostgreSQL database"):
        Store.open(url)


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    url = database_url("postgres://me:secret@127.0.0.1:1/db")
    assert database_label(url) == "postgresql+psycopg://me:***@127.0.0.1:1/db"
    with pytest.raises(StoreError, match="the database server must answer") as caught:
        Store.open("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError) as refused:
        Store.open(f"oracle://me:secret@{tmp_path.name}/db")
    assert "secret" not in str(refused.value)


def test_a_database_that_is_not_there_is_named(postgres_url: str) -> None:
    with pytest.raises(StoreError, match=r"the database (server )?must (exist|answer)"):
        Store.open(make_url(postgres_url).set(database="nowhere").render_as_string(hide_password=False))


MOUNTS = r"""
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/scratch xfs rw 0 0
//nas/data /mnt/my\040data cifs rw 0 0
me@host: /mnt/ssh fuse.sshfs rw 0 0
auto /mnt/late autofs rw 0 0
server:/late /mnt/late nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/results/studies.db", None),
        ("/home/me/results/studies.db", "nfs4"),
        ("/home/me/scratch/studies.db", None),
        ("/homely/studies.db", None),
        ("/mnt/my data/studies.db", "cifs"),
        ("/mnt/ssh/studies.db", "fuse.sshfs"),
        ("/mnt/late/studies.db", "nfs"),
    ],
)
def test_network_file_systems_are_refused(file: str, kind: str | None) -> None:
    if kind is None:
        check_file_system(Path(file), MOUNTS.strip())
        return
    with pytest.raises(StoreError, match=rf"on a local disk, but got '{kind}' .*postgresql\+psycopg"):
        check_file_system(Path(file), MOUNTS.strip())


def test_the_mounts_of_this_machine_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path} nfs rw 0 0\n")
    monkeypatch.setattr("harness.storage.database.MOUNTS", mounts)
    with pytest.raises(StoreError, match="must be on a local disk"):
        Store.open(tmp_path / "studies.db")
    assert list(tmp_path.iterdir()) == [mounts]


def test_a_full_disk_is_named_and_nothing_is_half_written(tmp_path: Path) -> None:
    with Store.open(tmp_path / "studies.db") as store:
        store.event("s", "kind", "before")
        with store.engine.connect() as connection:
            pages = connection.execute(text("PRAGMA page_count")).scalar()
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))
        with pytest.raises(StoreError, match=r"the disk must have space .* what was recorded is kept"):
            store.event("s", "kind", "x" * 1_000_000)
        assert [event.message for event in store.events("s")] == ["before"]


def test_a_held_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "studies.db"
    Store.open(file).close()
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with Store.open(file, busy_s=0.1) as store:
        with pytest.raises(StoreError, match="must not be held by another process"):
            store.event("s", "kind", "message")
        holder.execute("ROLLBACK")
        store.event("s", "kind", "message")
    holder.close()


CREATE_TOGETHER = """
import os, sys
from harness.storage import Store
for i in range(6):
    if os.fork() == 0:
        with Store.open(sys.argv[1]) as store:
            store.event("s", "kind", str(i))
        os._exit(0)
sys.exit(any(os.wait()[1] for _ in range(6)))
"""


@pytest.mark.long
def test_processes_that_create_it_together_all_succeed(database: str) -> None:
    ended = subprocess.run([sys.executable, "-c", CREATE_TOGETHER, database], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    with Store.open(database, read_only=True) as store:
        assert sorted(event.message for event in store.events("s")) == [str(i) for i in range(6)]


def test_importing_the_store_is_cheap() -> None:
    code = "import sys, harness.storage; print(*[m for m in ('optuna', 'alembic', 'torch', 'ray') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
