"""Insert a row, or change the one that has its key: the same statement on SQLite and on PostgreSQL."""

import functools
from collections.abc import Mapping

from sqlalchemy import Connection, Insert, Table
from sqlalchemy.dialects import postgresql, sqlite


def upsert(connection: Connection, table: Table, keys: tuple[str, ...], row: Mapping[str, object]) -> None:
    """Write one row; `keys` are the columns of a unique constraint, and the row's other columns are set."""
    connection.execute(_statement(table, keys, tuple(row), connection.dialect.name), row)


@functools.cache
def _statement(table: Table, keys: tuple[str, ...], columns: tuple[str, ...], dialect: str) -> Insert:
    statement = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
    changes = {name: statement.excluded[name] for name in columns if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changes)
