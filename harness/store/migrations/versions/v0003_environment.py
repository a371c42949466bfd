"""What computed a run, and what it was trained on.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Two columns, unknown for runs of earlier versions."""
    with op.batch_alter_table("runs", recreate="auto") as batch:
        batch.add_column(sa.Column("environment", sa.Text(), nullable=True))
        batch.add_column(sa.Column("data", sa.Text(), nullable=True))
