"""The schema of a database: its revision, the check that the tables are ours, and migration to the newest revision."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from harness.errors import StoreError

VERSION_TABLE = "harness_alembic"
"""The table with our revision; Optuna has its own in `alembic_version`."""
REVISIONS = ("0001", "0002", "0003")
"""All revisions of the schema, oldest first; the last is the one that this code reads and writes."""
SCRIPTS = Path(__file__).parent / "migrations"
MIGRATION_KEY = 0x6861726E6573735F
"""PostgreSQL's advisory lock under which tables are created and changed."""


def current_revision(connection: Connection, place: str) -> str | None:
    """The revision of the database's schema, or None for an empty database.

    Raises `StoreError` for a database of another program, and for one of a newer harness.
    """
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        if tables:
            raise StoreError(
                "the database must be one of the harness, or empty",
                value=sorted(tables)[:5],
                place=place,
                remedy="Its tables are not ours; give another file or another database with `--storage`.",
            )
        return None
    revision = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()
    if revision is not None and revision not in REVISIONS:
        rule = f"the database's schema must be known to this version (up to {REVISIONS[-1]})"
        remedy = "A newer harness wrote it: upgrade this one."
        raise StoreError(rule, value=revision, place=place, remedy=remedy)
    return None if revision is None else str(revision)


def migrate(engine: Engine, place: str) -> None:
    """Create the tables, or migrate them to the newest revision, in one transaction; one process at a time does so."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection, _exclusive_transaction(connection):
        current_revision(connection, place)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _exclusive_transaction(connection: Connection) -> Iterator[None]:
    """One exclusive transaction around all changes of the schema."""
    if connection.dialect.name != "sqlite":
        with connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_KEY})
            yield
        return
    # SQLite changes a table by copying and dropping it; with foreign keys on, the drop would delete what refers to it.
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        assert not broken, f"a migration left rows that refer to nothing: {broken[:3]}"
        connection.commit()
    finally:
        connection.rollback()
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
