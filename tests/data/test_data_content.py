"""The identity of data that are read from disk: their content decides it, and nothing else does."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cifar_folders import as_python_2, batch, write_cifar10
from folder_data import pixels, write_folder, write_folder_study
from PIL import Image
from tiny_runs import tiny_spec

from harness.cli import main
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.study_file import load_study
from harness.data import content, identify, load
from harness.data.image_file import read_value_range
from harness.errors import DataError
from harness.executors.run_job import run_job
from harness.training.run import Ended, Job, Run, RunState


def of(root: Path | str, **fields: object) -> ProxyRecipe:
    values = {
        "dataset": "imagefolder",
        "root": str(root),
        "resolution": 16,
        "epochs": 1,
        "batch_size": 4,
        "resample": "none",
    }
    return ProxyRecipe.model_validate({**values, "schedule": {"warmup_epochs": 0}, **fields})


def digest(root: Path | str, cache: Path | None = None) -> str:
    content_digest = identify(of(root), cache).digest
    assert content_digest is not None
    return content_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pets")


def test_the_place_and_spelling_of_a_folder_are_no_part_of_its_identity(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digest(folder)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert {digest("pets"), digest("./pets/"), digest("link"), digest("pets/../pets")} == {expected}
    moved = folder.rename(tmp_path / "other name")
    assert digest(moved) == expected
    assert digest(Path(shutil.copytree(moved, tmp_path / "copy"))) == expected
    (moved / "train" / "a" / "notes.txt").write_text("no image")
    (moved / ".hidden").mkdir()
    assert digest(moved) == expected


def changed_labels(root: Path) -> None:
    (root / "train" / "a" / "0.png").rename(root / "train" / "b" / "x.png")
    (root / "train" / "b" / "0.png").rename(root / "train" / "a" / "0.png")


def swapped_labels(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "a").rename(root / split / "t")
        (root / split / "b").rename(root / split / "a")
        (root / split / "t").rename(root / split / "b")


def same_size_and_time(root: Path) -> None:
    path = root / "val" / "a" / "0.png"
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[-20] ^= 255
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def another_class(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "c").mkdir()
        Image.fromarray(pixels(2, 0)).save(root / split / "c" / "0.png")


def renamed_class(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "b").rename(root / split / "c")


@pytest.mark.parametrize("change", [changed_labels, swapped_labels, same_size_and_time, another_class, renamed_class])
def test_labels_content_and_classes_are_the_identity(folder: Path, tmp_path: Path, change: object) -> None:
    (tmp_path / "cache").mkdir()
    before = digest(folder, tmp_path / "cache")
    assert callable(change)
    change(folder)
    after = digest(folder, tmp_path / "cache")
    assert after != before and after == digest(folder)


def test_a_second_look_reads_no_content(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(content, "UNCHANGED_FOR_NS", -(10**12))
    expected = digest(folder, cache)
    monkeypatch.setattr(content, "_hash", lambda path: pytest.fail(f"read again: {path}"))
    assert digest(folder, cache) == expected
    (next((cache / content.DIGESTS_FOLDER).iterdir())).write_text("{")
    monkeypatch.undo()
    assert digest(folder, cache) == expected


def test_files_that_were_changed_just_now_are_not_cached(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    digest(folder, tmp_path / "cache")
    assert all(path.read_text() == "{}" for path in (tmp_path / "cache" / content.DIGESTS_FOLDER).iterdir())


def test_nothing_is_written_where_no_cache_is(folder: Path, tmp_path: Path) -> None:
    digest(folder, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_large_folder_is_sampled_and_that_is_reported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "LARGE_BYTES", 1000)
    monkeypatch.setattr(content, "SAMPLE", 5)
    before = digest(folder)
    assert digest(Path(shutil.copytree(folder, tmp_path / "copy"))) == before
    (note,) = load(of(folder), tmp_path / "cache", 0).notes
    assert "names and sizes of its 32 files and by the content of 5 of them" in note
    (folder / "train" / "a" / "0.png").rename(folder / "train" / "a" / "9.png")
    assert digest(folder) != before


def test_a_file_that_is_not_given_out_is_refused_by_name(folder: Path) -> None:
    (folder / "val" / "b" / "0.png").unlink()
    (folder / "val" / "b" / "0.png").symlink_to(folder / "nowhere")
    with pytest.raises(DataError, match=r"must be readable \(No such file.*b/0\.png.*a link to nothing"):
        digest(folder)


def test_cifar_is_identified_by_its_batches(tmp_path: Path) -> None:
    root = write_cifar10(tmp_path)
    recipe = ProxyRecipe(dataset="cifar10", root=str(root))
    before = identify(recipe).digest
    inside = ProxyRecipe(dataset="cifar10", root=str(root / "cifar-10-batches-py"))
    assert before is not None and identify(inside).digest == before
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(as_python_2(batch(99, 40, 10)))
    assert identify(recipe).digest != before


def test_generated_data_leave_ids_as_they_were() -> None:
    run = Run(tiny_spec(), ProxyRecipe(), 0)
    assert identify(ProxyRecipe()).digest is None
    assert replace(run, data="0123456789abcdef").id != run.id
    assert (
        ProxyRecipe(dataset="imagefolder", root="/a").fingerprint()
        == ProxyRecipe(dataset="imagefolder", root="b").fingerprint()
    )
    assert ProxyRecipe(dataset="imagefolder", root="/a").canonical()["root"] == "/a"


def test_a_moved_folder_is_not_decoded_again(folder: Path, tmp_path: Path) -> None:
    load(of(folder), tmp_path / "cache", 0)
    before = sorted(path.name for path in (tmp_path / "cache").glob("imagefolder-*/"))
    moved = folder.rename(tmp_path / "moved")
    assert load(of(moved), tmp_path / "cache", 0).info.digest == digest(moved)
    assert sorted(path.name for path in (tmp_path / "cache").glob("imagefolder-*/")) == before


def test_a_run_on_other_data_than_its_own_fails_with_both_digests(folder: Path, tmp_path: Path) -> None:
    recipe = of(folder)
    run = Run(tiny_spec(classes=2, in_channels=3), recipe, 0, data=digest(folder))
    changed_labels(folder)
    *_, ended = run_job(Job(run, tmp_path / "results" / "s"))
    assert isinstance(ended, Ended) and ended.state == RunState.FAILED
    assert ended.cause is not None and str(run.data) in ended.cause and digest(folder) in ended.cause


def test_data_that_change_while_they_are_read_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = read_value_range

    def reading(paths: list[Path]) -> object:
        changed_labels(folder)
        return real(paths[:1])

    monkeypatch.setattr("harness.data.image_folder.read_value_range", reading)
    with pytest.raises(DataError, match=r"must stay as it is while it is read|No such file"):
        load(of(folder), tmp_path / "cache", 0)


# --- studies


def run(path: Path, results: Path, *options: str) -> int:
    return main(["run", str(path), "--results", str(results), "--executor", "inline", *options])


def test_a_study_is_not_mixed_of_two_data_sets(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, results = write_folder_study(tmp_path / "s.yaml", folder), tmp_path / "r"
    assert run(path, results, "--quiet") == 0
    before = digest(folder)
    another_class(folder)
    (folder / "val" / "a" / "1.png").unlink()
    capsys.readouterr()
    assert run(path, results) == 2
    output = " ".join(capsys.readouterr().err.split())
    assert before in output and digest(folder) in output and "--fresh" in output
    assert "classes: c added" in output and "16 and 16, now 17 and 16" in output
    assert main(["show", str(path), "--results", str(results)]) == 0
    assert "other data" in " ".join(capsys.readouterr().out.split())
    assert run(path, results, "--quiet", "--fresh") == 0


def test_another_study_on_changed_data_takes_none_of_the_old_runs(folder: Path, tmp_path: Path) -> None:
    from harness.storage import Store

    results = tmp_path / "r"
    assert run(write_folder_study(tmp_path / "s.yaml", folder), results, "--quiet") == 0
    changed_labels(folder)
    assert run(write_folder_study(tmp_path / "more.yaml", folder, seeds=2), results, "--quiet") == 0
    with Store.open(results / "studies.db", read_only=True) as store:
        ids = [run_id for ids in store.trial_runs("more").values() for run_id in ids]
        assert {row.run.data for row in store.runs(ids).values()} == {digest(folder)}
        assert not set(ids) & {run_id for ids in store.trial_runs("s").values() for run_id in ids}


def test_a_study_that_is_moved_with_its_data_trains_nothing_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    write_folder(here / "pets")
    path = write_folder_study(here / "s.yaml", "pets")
    assert run(path, here / "r", "--quiet") == 0  # the working folder is another one
    there = here.rename(tmp_path / "there")
    monkeypatch.chdir(there)
    capsys.readouterr()
    assert run(Path("s.yaml"), Path("r")) == 0
    assert "all 1 run are already done" in capsys.readouterr().out


def test_a_relative_root_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    path = write_folder_study(tmp_path / "studies" / "s.yaml", "../pets/./")
    assert load_study(path).study.proxy.root == str(tmp_path / "pets")


def test_a_checkpoint_is_not_judged_on_other_data_than_its_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write_folder_study(tmp_path / "s.yaml", folder), tmp_path / "r", "--quiet") == 0
    (checkpoint,) = (tmp_path / "r" / "s" / "checkpoints").glob("*.pt")
    capsys.readouterr()
    assert main(["evaluate", str(checkpoint), "--json"]) == 0
    assert '"images": 16' in capsys.readouterr().out
    before = digest(folder)
    changed_labels(folder)
    assert main(["evaluate", str(checkpoint)]) == 2
    output = capsys.readouterr().err
    assert before in output and digest(folder) in output
