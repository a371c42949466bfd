"""Alembic's environment script: `harness.storage.migrate.migrate` runs it on its own connection."""

from alembic import context

from harness.storage.migrate import VERSION_TABLE
from harness.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
