"""The schema: what the migrations make is what the tables say, and no migration loses a row."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from full_scale_cases import full_row
from sqlalchemy import inspect, text

from harness.config.recipes.proxy import ProxyRecipe, Schedule
from harness.errors import StoreError
from harness.models.spec.presets import preset
from harness.storage import FullScaleRuns, Store, migrate, open_study
from harness.storage.rows import spec_values
from harness.storage.tables import Base
from harness.training.run import Ended, Epoch, Measured, Run, RunState, Started

pytest_plugins = ["postgres"]

NOW = migrate.REVISIONS
NEXT = "9999"
TIME = "2026-01-01 00:00:00.000000"
RUN = Run(preset("replknet_nano"), ProxyRecipe(epochs=1, schedule=Schedule(warmup_epochs=0)), seed=0)

REBUILD = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{now}"


def upgrade():
    with op.batch_alter_table("runs", recreate="auto") as batch:
        batch.add_column(sa.Column("note", sa.Text(), nullable=False, server_default="none"))
        batch.alter_column("state", type_=sa.String(20))
    {then}
"""


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The migrations of a later version, whose second revision rebuilds the table that all others refer to."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrate, "SCRIPTS", folder)
    monkeypatch.setattr(migrate, "REVISIONS", (*NOW, NEXT))
    yield folder / "versions" / "v9999_rebuild.py"


OLD_ROWS: dict[str, dict[str, object]] = {
    "study_files": {"name": "s", "fingerprint": "f", "resolved": "study: s", "created": TIME, "updated": TIME},
    "runs": {
        "id": RUN.id,
        "spec": json.dumps(spec_values(RUN.spec)),
        "spec_fingerprint": RUN.spec.fingerprint(),
        "recipe": RUN.recipe.model_dump_json(),
        "recipe_fingerprint": RUN.recipe.fingerprint(),
        "seed": 0,
        "state": "complete",
        "attempts": 1,
        "created": TIME,
        "wall_s": 1.0,
        "device": "cpu",
        "versions": '{"torch": "2.15"}',
    },
    "epochs": {"run_id": RUN.id, "epoch": 1, "top1": 50.0},
    "measures": {"run_id": RUN.id, "name": "latency_ms_p50", "value": 1.5},
    "trial_runs": {"study": "s", "trial": 0, "position": 0, "run_id": RUN.id},
    "events": {"id": 1, "time": TIME, "study": "s", "kind": "kind", "message": "message"},
    "full_runs": {
        **dict.fromkeys(("id", "name", "spec", "spec_fingerprint", "recipe", "recipe_name"), "x"),
        **dict.fromkeys(("recipe_fingerprint", "folder", "metric"), "x"),
        "state": "running",
        "created": TIME,
        "updated": TIME,
        "epochs": 2,
        "epochs_done": 1,
    },
    "full_figures": {"run_id": "x", "epoch": 1, "name": "lr", "value": 0.1},
}
"""Rows as the first versions wrote them, by table."""


def fill_old(database: str) -> None:
    """Write into each table that a database of an earlier version has."""
    with Store.open(database) as store, store.engine.begin() as connection:
        tables = inspect(connection).get_table_names()
        for table, row in OLD_ROWS.items():
            if table in tables:
                named = ", ".join(f":{name}" for name in row)
                connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({named})"), row)


def fill(database: str) -> None:
    with Store.open(database) as store:
        store.ensure_run(RUN)
        store.claim(RUN.id, "s", Path("/results/s"))
        started = Started("host", 1, "cpu", 1, {"torch": "2.15"}, epochs=1)
        store.record(RUN.id, [started, Epoch(1, 1.0, 1.0, 50.0, 0.1, 1.0, 10.0), Measured("top1", 50.0)])
        store.record(RUN.id, [Ended(RunState.COMPLETE, 1.0)])
        store.link("s", 0, RUN.id, 0)
        store.event("s", "kind", "message")
        FullScaleRuns(store).save(full_row(Path("/results/f")), {1: {"lr": 0.1}}, is_whole=True)
        open_study(store, "s", directions=["maximize"]).ask()


def content(database: str) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables but the versions', Optuna's among them."""
    with Store.open(database, read_only=True) as store, store.engine.connect() as connection:
        tables = sorted(set(inspect(connection).get_table_names()) - {migrate.VERSION_TABLE})
        return {table: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))] for table in tables}


def test_the_migrations_make_what_the_tables_define(database: str) -> None:
    with Store.open(database) as store, store.engine.connect() as connection:
        options = {"version_table": migrate.VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


def test_the_revisions_are_those_of_the_scripts() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    config.set_main_option("path_separator", "os")
    scripts = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(scripts)) == migrate.REVISIONS


def test_opening_an_up_to_date_database_changes_nothing(database: str) -> None:
    fill(database)
    before = content(database)
    Store.open(database).close()
    assert content(database) == before


def test_a_migration_keeps_every_row(database: str, later: Path) -> None:
    with pytest.MonkeyPatch.context() as as_now:
        as_now.setattr(migrate, "REVISIONS", NOW)
        fill(database)
        before = content(database)
    later.write_text(REBUILD.format(now=NOW[-1], then=""))
    with pytest.raises(StoreError, match=rf"must be at revision {NEXT} to be read, but got '{NOW[-1]}'"):
        Store.open(database, read_only=True)
    with Store.open(database) as store:
        assert store.run(RUN.id).state == RunState.COMPLETE
    after = content(database)
    assert after.pop("runs") == [(*row, "none") for row in before.pop("runs")]
    assert after == before


def test_a_migration_that_fails_changes_nothing(database: str, later: Path) -> None:
    with pytest.MonkeyPatch.context() as as_now:
        as_now.setattr(migrate, "REVISIONS", NOW)
        fill(database)
        before = content(database)
        later.write_text(REBUILD.format(now=NOW[-1], then="raise RuntimeError('the power went')"))
        with pytest.raises(RuntimeError, match="the power went"):
            as_now.setattr(migrate, "REVISIONS", (*NOW, NEXT))
            Store.open(database)
        as_now.setattr(migrate, "REVISIONS", NOW)
        assert content(database) == before
    later.write_text(REBUILD.format(now=NOW[-1], then=""))
    with Store.open(database) as store:
        assert store.run(RUN.id).state == RunState.COMPLETE


@pytest.mark.parametrize("first", NOW[:-1])
def test_a_database_of_an_earlier_version_comes_up_to_date_by_itself(
    database: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = NOW[: NOW.index(first) + 1]
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / "versions").glob("v*.py"):
        if path.name[1:5] not in earlier:
            path.unlink()
    with monkeypatch.context() as then:
        then.setattr(migrate, "SCRIPTS", folder)
        then.setattr(migrate, "REVISIONS", earlier)
        fill_old(database)
        before = content(database)
    with pytest.raises(StoreError, match=f"must be at revision {NOW[-1]} to be read, but got '{first}'"):
        Store.open(database, read_only=True)
    Store.open(database).close()
    after = content(database)
    for table, rows in before.items():
        assert [row[: len(old)] for row, old in zip(after[table], rows, strict=True)] == rows
        assert not any(any(row[len(old) :]) for row, old in zip(after[table], rows, strict=True))
    assert all(after[table] == [] for table in set(after) - set(before))
    with Store.open(database, read_only=True) as store:
        row = store.run(RUN.id)
    assert (row.environment, row.earlier, row.timed) == (None, (), None)
    assert row.run == RUN and row.versions == {"torch": "2.15"}
