"""Tables of curves: written and read without loss, refused when damaged, recorded from a finished study only."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from curve_tables import space_file, synthetic_table
from tiny_studies import EPOCHS, Played, quality, well

from harness.analysis.curve_table import CurveTable, read_table, table_path, write_table
from harness.analysis.study_reader import open_space, open_study_reader
from harness.analysis.table_recording import record_table, require_replayable
from harness.errors import DataError, NotFound, StudyError, UserError
from harness.training.run import Ended, Job, Record, RunState


@pytest.fixture
def table(tmp_path: Path) -> CurveTable:
    return synthetic_table(space_file(tmp_path / "space"), noise=1.0)


def test_a_table_is_read_as_it_was_written_and_has_the_same_bytes_again(table: CurveTable, tmp_path: Path) -> None:
    path, again = tmp_path / "a.json.gz", tmp_path / "b" / "b.json.gz"
    size = write_table(table, path)
    read = read_table(path)
    assert size == path.stat().st_size
    assert read.curves("top1") == pytest.approx(table.curves("top1"), abs=1e-4)
    assert replace(read, configurations=()) == replace(table, configurations=())
    assert [entry.params for entry in read.configurations] == [entry.params for entry in table.configurations]
    write_table(read, again)
    assert again.read_bytes() == path.read_bytes()
    assert read.size == "96 networks x 3 seeds x 4 epochs" and read.total_epochs == 96 * 3 * 4


def test_three_hundred_networks_take_far_less_than_two_megabytes(table: CurveTable, tmp_path: Path) -> None:
    per_run = write_table(table, tmp_path / "a.json.gz") / (96 * 3)
    assert per_run * 352 * 3 < 500_000


def changed(path: Path, target: Path, **values: object) -> Path:
    content = json.loads(gzip.decompress(path.read_bytes()))
    target.write_bytes(gzip.compress(json.dumps(content | values).encode()))
    return target


def test_a_changed_table_is_refused(table: CurveTable, tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    write_table(table, path)
    with pytest.raises(DataError, match="The digest of the table must be that of its content"):
        read_table(changed(path, tmp_path / "b.json.gz", seeds=[4, 5, 6]))
    with pytest.raises(DataError, match="must have version 1, but got 2"):
        read_table(changed(path, tmp_path / "c.json.gz", version=2))
    with pytest.raises(DataError, match="must be a table of curves"):
        read_table(changed(path, tmp_path / "d.json.gz", format="other"))


@pytest.mark.parametrize(
    "content",
    [b"", b"text", gzip.compress(b"[1]"), gzip.compress(b"{}" * 1000)[:20]],
    ids=["empty", "text", "a list", "cut off"],  # compressed bytes have the time in them, and so would the names
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="table"):
        read_table(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no\.json\.gz"):
        read_table(tmp_path / "no.json.gz")


def test_curves_that_cannot_be_are_refused(table: CurveTable, tmp_path: Path) -> None:
    first, *others = table.configurations
    for wrong, rule in (
        (replace(first, top1=[[101.0] * 4] * 3), "`top1` must be finite"),
        (replace(first, seconds=[[1.0] * 3] * 3), "`seconds` must have 4 values for each of 3 seeds"),
        (replace(first, fingerprint=others[0].fingerprint), "must be in a table once"),
    ):
        write_table(replace(table, configurations=(wrong, *others)), tmp_path / "a.json.gz")
        with pytest.raises(DataError, match=rule):
            read_table(tmp_path / "a.json.gz")


def recorded(played: Played) -> CurveTable:
    with open_study_reader(played.path, played.workspace) as reader:
        return record_table(played.file, open_space(played.file), reader.store)


def test_a_finished_grid_is_recorded_with_its_curves_and_times(tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.answer()
    table = recorded(played)
    assert table.size == "5 networks x 3 seeds x 4 epochs" and table.seeds == (0, 1, 2)
    by_kernel = {tuple(entry.params["K"]): entry for entry in table.configurations if not entry.params.get("reparam")}
    assert by_kernel[13, 13, 13, 13].top1[1] == pytest.approx([73.2 * n / EPOCHS for n in range(1, EPOCHS + 1)])
    assert by_kernel[3, 3, 3, 3].seconds == [[2.0] * EPOCHS] * 3
    assert table.environments[0]["runs"] == 15 and table.environments[0]["torch"] is not None
    write_table(table, table_path(tmp_path, "question"))
    read = read_table(table_path(tmp_path, "question"))
    require_replayable(played.file, read, open_space(played.file), "the table")


def test_a_grid_that_lacks_runs_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    played = Played(tmp_path)
    events = played.events()
    for _ in range(40):
        next(events)
    events.close()
    with pytest.raises(StudyError, match=r"of 15 runs, .*\d+ not trained.*, but got 'K=.* seed \d"):
        recorded(played)


def test_diverged_runs_are_refused_with_their_remedy(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Record]:
        records = list(well(job))
        is_largest = quality(job) > 90
        yield from records[:2] if is_largest else records
        if is_largest:
            yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the loss is not finite")

    played = Played(tmp_path)
    for _ in played.events(script):
        pass
    with pytest.raises(StudyError, match=r"diverged.*Leave these networks out with a rule"):
        recorded(played)


def test_a_table_of_another_proxy_or_of_fewer_values_is_refused(table: CurveTable, tmp_path: Path) -> None:
    other = space_file(tmp_path / "proxy", proxy={"epochs": 5, "schedule": {"warmup_epochs": 0}})
    with pytest.raises(StudyError, match=r"`proxy` must be that of the table T"):
        require_replayable(other, table, open_space(other), "T")
    wide = space_file(tmp_path / "wide", axes={"K[0]": [7, 9]}, when={})
    with pytest.raises(StudyError, match=r"lacks 1 of 2, but got 'K\[0\]=9'"):
        require_replayable(wide, table, open_space(wide), "T")
    costs = space_file(tmp_path / "costs", objectives={"macs": "minimize"})
    with pytest.raises(StudyError, match="must be top1 or val_loss to be replayed"):
        require_replayable(costs, table, open_space(costs), "T")


def test_a_folder_that_cannot_be_written_is_named(table: CurveTable, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the folder of a table must be writable"):
        write_table(table, tmp_path / "file" / "a.json.gz")
