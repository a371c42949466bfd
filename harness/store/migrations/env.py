"""Alembic's door: run by `harness.store.schema.migrate` on the connection that it passes, never from a command line."""

from alembic import context

from harness.store.schema import VERSION_TABLE
from harness.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
