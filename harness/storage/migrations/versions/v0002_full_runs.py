"""Trainings at full scale, and the metrics of each of their epochs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "full_runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("study", sa.Text()),
        sa.Column("trial", sa.Integer()),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("spec_fingerprint", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("recipe_name", sa.Text(), nullable=False),
        sa.Column("recipe_fingerprint", sa.Text(), nullable=False),
        sa.Column("weights", sa.Text()),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("cause", sa.Text()),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("updated", sa.DateTime(), nullable=False),
        sa.Column("host", sa.Text()),
        sa.Column("device", sa.Text()),
        sa.Column("threads", sa.Integer()),
        sa.Column("versions", sa.Text()),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("epochs_done", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("best", sa.Double()),
        sa.Column("best_epoch", sa.Integer()),
        sa.PrimaryKeyConstraint("id", name="pk_full_runs"),
    )
    op.create_index("ix_full_runs_study_trial", "full_runs", ["study", "trial"])
    op.create_table(
        "full_figures",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.ForeignKeyConstraint(["run_id"], ["full_runs.id"], name="fk_full_figures_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "epoch", "name", name="pk_full_figures"),
    )
