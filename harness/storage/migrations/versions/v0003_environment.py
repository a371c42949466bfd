"""The environment of a run, and the digest of the data that it was trained on."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("runs", sa.Column("environment", sa.Text()))
    op.add_column("runs", sa.Column("data", sa.Text()))
    op.add_column("full_runs", sa.Column("environment", sa.Text()))
