"""Faults of data are refused before anything is trained or written, by the code that a training reads them with."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cifar_folders import as_python_2, batch, write_cifar10
from folder_data import pixels, write_folder
from PIL import Image
from preflight_cases import nothing, require_refused
from tiny_runs import tiny_spec
from tiny_studies import called, files_of

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import check, identify, image_folder, load, read_report
from harness.data.cache import require_varied
from harness.errors import DataError
from harness.executors.run_job import run_job
from harness.training.run import Ended, Job, Run, RunState

PROXY: dict[str, Any] = {
    "dataset": "imagefolder",
    "root": "set",
    "resample": "none",
    "resolution": 16,
    "epochs": 1,
    "batch_size": 8,
    "schedule": {"warmup_epochs": 0},
}
INLINE = ("--executor", "inline")


def damage(root: Path, split: str, count: int | None = None, name: str = "*") -> None:
    for path in sorted((root / split).rglob(f"{name}/*.png"), key=lambda path: int(path.stem))[:count]:
        path.write_bytes(path.read_bytes()[:60])


def replace_images(root: Path, split: str, image: Callable[[int], Image.Image]) -> None:
    for i, path in enumerate(sorted((root / split).rglob("*.png"))):
        image(i).save(path)


def of_few_bits(root: Path) -> None:
    """16-bit files of which 8 bits hold two neighboring values."""
    for split in ("train", "val"):
        replace_images(
            root, split, lambda i: Image.fromarray(pixels(i % 2, i)[..., 0].astype(np.uint16) + np.uint16(40_120))
        )


def single_class(root: Path) -> None:
    for split in ("train", "val"):
        for path in (root / split / "b").iterdir():
            path.unlink()
        (root / split / "b").rmdir()


LOADED: list[tuple[str, Callable[[Path], None], dict[str, Any], str]] = [
    ("most are truncated", lambda root: damage(root, "val", 12), {}, "'12 of 16'"),
    ("train truncated", lambda root: damage(root, "train", 3), {}, "10 % of the training images"),
    ("a class", lambda root: damage(root, "val", name="b"), {}, "`val` must hold a readable image, but got 'b'"),
    (
        "constant",
        lambda root: replace_images(root, "val", lambda _: Image.new("RGB", (9, 9))),
        {},
        "more than one value",
    ),
    (
        "a flat channel",
        lambda root: replace_images(root, "train", lambda i: Image.new("RGB", (9, 9), (9 * i, 7, i))),
        {},
        "'7 in",
    ),
    ("nearly constant", of_few_bits, {}, "deviate by at least 1 of 255 levels"),
    ("train_size", nothing, {"train_size": 17}, "train_size` must be at most the 16"),
    ("val_size", nothing, {"val_size": 99}, "val_size` must be at most the 16"),
    ("final_val_size", nothing, {"val_size": 8, "final_val_size": 17}, "final_val_size` must be at most the 16"),
    ("sizes resampled", nothing, {"train_size": 17, "resample": "split"}, "train_size` must be at most the 16"),
]
"""What `load` refuses, too."""
REFUSED = [
    *LOADED,
    ("batch", nothing, {"batch_size": 32}, "`proxy.batch_size` must be at most the 16 training images"),
    ("a class alone", single_class, {"batch_size": 4}, "two classes at least"),
]


def study(folder: Path, **proxy: Any) -> Path:
    values = {
        "study": "s",
        "base": {"B": 1, "C": [4, 4, 8, 8], "K": 3, "stem_stride": 2},
        "axes": {"replica": [0]},
        "search": {"seeds": 1},
        "proxy": PROXY | proxy,
        "resources": {"cpus": 1, "minutes_per_run": 5},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("flags", [["--dry-run"], []], ids=["dry run", "run"])
@pytest.mark.parametrize(("fault", "proxy", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_study_is_refused_with_nothing_written(
    tmp_path: Path, fault: Callable[[Path], None], proxy: dict[str, Any], words: str, flags: list[str]
) -> None:
    fault(write_folder(tmp_path / "set"))
    study(tmp_path, **proxy)
    before = files_of(tmp_path)
    require_refused(called("run", "study.yaml", *flags, *INLINE, cwd=tmp_path), tmp_path, before, words)


@pytest.mark.parametrize(("fault", "fields"), [case[1:3] for case in LOADED], ids=[case[0] for case in LOADED])
def test_the_check_finds_what_the_load_in_a_worker_finds(
    tmp_path: Path, fault: Callable[[Path], None], fields: dict[str, Any]
) -> None:
    fault(write_folder(tmp_path / "set"))
    recipe = ProxyRecipe.model_validate(PROXY | fields | {"root": str(tmp_path / "set")})
    with pytest.raises(DataError) as checked:
        check(recipe, tmp_path / "cache")
    with pytest.raises(DataError) as loaded:
        load(recipe, tmp_path / "cache", 0)
    assert str(checked.value) == str(loaded.value)


@pytest.mark.parametrize("flags", [["--dry-run"], []], ids=["dry run", "run"])
@pytest.mark.parametrize("fault", ["batch", "size", "constant"])
def test_cifar_is_read_before_anything_is_written(tmp_path: Path, fault: str, flags: list[str]) -> None:
    root = write_cifar10(tmp_path)
    folder = root / "cifar-10-batches-py"
    proxy: dict[str, Any] = {"dataset": "cifar10", "root": "."}
    words = "data_batch_3"
    if fault == "batch":
        (folder / "data_batch_3").write_bytes(b"\x80\x02K")
    elif fault == "size":
        proxy |= {"train_size": 101}
        words = "study.yaml"
    else:
        flat = batch(6, 30, 10)
        (folder / "test_batch").write_bytes(as_python_2(flat | {"data": np.full_like(flat["data"], 9)}))
        words = "every channel of the validation images"
    study(tmp_path, **proxy)
    before = files_of(tmp_path)
    require_refused(called("run", "study.yaml", *flags, *INLINE, cwd=tmp_path), tmp_path, before, words)


def test_a_dry_run_reports_what_was_checked_and_lost(tmp_path: Path) -> None:
    damage(write_folder(tmp_path / "set"), "val", 2)
    study(tmp_path)
    before = files_of(tmp_path)
    result = called("run", "study.yaml", "--dry-run", *INLINE, cwd=tmp_path)
    text = " ".join(result.stdout.split())
    assert result.returncode == 0 and files_of(tmp_path) == before
    assert "looked at all 16 training images and all 16 validation images" in text
    assert (
        "2 of the validation images could not be read and are left out, 14 are left: 2 truncated (a/0.png, b/0.png)"
        in text
    )


def test_prepared_data_are_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = write_folder(tmp_path / "set"), tmp_path / "cache"
    recipe = ProxyRecipe.model_validate(PROXY | {"root": str(root)})
    digest = identify(recipe).digest
    assert check(recipe, cache, digest) and not cache.exists()
    load(recipe, cache, 0)
    monkeypatch.setattr(image_folder, "sample_splits", lambda *_: pytest.fail("looked at again"))
    assert check(recipe, cache, digest) == ()


def test_data_that_changed_are_refused_by_a_dry_run_too(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set")
    study(tmp_path)
    assert called("run", "study.yaml", *INLINE, "--quiet", cwd=tmp_path).returncode == 0
    (root / "val" / "a" / "0.png").unlink()
    results = [called("run", "study.yaml", *flags, *INLINE, cwd=tmp_path) for flags in ([], ["--dry-run"])]
    assert results[0].returncode == results[1].returncode == 2 and results[0].stderr == results[1].stderr
    assert "must stay on the data" in results[0].stderr and "16 and 16, now 16 and 15" in results[0].stderr
    assert called("run", "study.yaml", "--fresh", "--dry-run", *INLINE, cwd=tmp_path).returncode == 0


def test_a_worker_on_another_machine_ends_with_the_same_cause(tmp_path: Path) -> None:
    damage(write_folder(tmp_path / "set"), "val", 12)
    recipe = ProxyRecipe.model_validate(PROXY | {"root": str(tmp_path / "set")})
    run = Run(tiny_spec(classes=2, in_channels=3), recipe, 0, data=identify(recipe).digest)
    *_, ended = run_job(Job(run, tmp_path / "results" / "s"))
    assert isinstance(ended, Ended) and ended.state == RunState.FAILED
    assert ended.cause is not None and "'12 of 16'" in ended.cause
    assert ended.cause.endswith(" ...") and len(ended.cause) <= 300


# --- of large data sets, a sample


def test_of_many_images_an_evenly_spread_sample_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_report, "MAX_SAMPLED", 20)
    root = write_folder(tmp_path / "set", count=30)
    recipe = ProxyRecipe.model_validate(PROXY | {"root": str(root)})
    (note,) = check(recipe, tmp_path / "cache")
    assert note == (
        "looked at 20 of 60 training images and 20 of 60 validation images; the others are checked when they are read"
    )
    damage(root, "val")
    with pytest.raises(DataError, match=r"must hold a readable image|'20 of 20 that were looked at, of 60 in all'"):
        check(recipe, tmp_path / "cache")


def test_a_sample_is_refused_only_where_the_whole_is_beyond_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_report, "MAX_SAMPLED", 20)
    root = write_folder(tmp_path / "set", count=30)
    looked = sorted(read_report.spread_indices(60, 20))
    paths = sorted((root / "val").rglob("*.png"), key=lambda path: (path.parent.name, int(path.stem)))
    recipe = ProxyRecipe.model_validate(PROXY | {"root": str(root)})
    for i in looked[:5]:
        files = image_folder.files_of(root / "val", ("a", "b"))
        (root / "val" / files[i][0]).write_bytes(b"")
    assert len(paths) == 60
    notes = check(recipe, tmp_path / "cache")
    assert any(
        "5 of the 20 validation images that were looked at could not be read: 5 an empty file" in n for n in notes
    )
    assert len(load(recipe, tmp_path / "cache", 0).val) == 55


def test_the_time_is_bounded_and_something_is_looked_at_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_report, "MAX_S", 0.0)
    monkeypatch.setattr(image_folder, "MAX_S", 0.0)
    root = write_folder(tmp_path / "set", count=40)
    (note,) = check(ProxyRecipe.model_validate(PROXY | {"root": str(root)}), tmp_path / "cache")
    assert "looked at 32 of 80 training images and 32 of 80 validation images" in note


@pytest.mark.parametrize(("total", "most"), [(1, 5), (5, 5), (6, 5), (1000, 7), (1_281_167, 2048)])
def test_a_sample_is_spread_in_every_beginning(total: int, most: int) -> None:
    indices = read_report.spread_indices(total, most)
    assert len(set(indices)) == min(total, most) and 0 <= min(indices) <= max(indices) < total
    if most == 2048:
        half = np.sort(indices[:1024])
        assert np.diff(half).max() < total / 60 and np.abs(half.mean() / total - 0.5) < 0.03


def test_sizes_are_checked_on_the_whole_of_a_large_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_report, "MAX_SAMPLED", 4)
    root = write_folder(tmp_path / "set", count=30)
    with pytest.raises(DataError, match="`train_size` must be at most the 60 images"):
        check(ProxyRecipe.model_validate(PROXY | {"root": str(root), "train_size": 61}), tmp_path / "cache")


@pytest.mark.long
def test_a_hundred_thousand_files_are_checked_in_seconds(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", count=1)
    for split in ("train", "val"):
        for name in ("a", "b"):
            first = root / split / name / "0.png"
            for i in range(1, 25_000):
                (root / split / name / f"{i}.png").hardlink_to(first)
    start = time.monotonic()
    (note,) = check(ProxyRecipe.model_validate(PROXY | {"root": str(root)}), tmp_path / "cache")
    assert note.startswith("looked at 2,048 of 50,000 training images") and time.monotonic() - start < 60


@pytest.mark.parametrize(("bright", "is_refused"), [(0, True), (1, True), (200, False)])
def test_dark_images_with_a_few_bright_pixels(bright: int, is_refused: bool) -> None:
    images = np.zeros((4, 3, 128, 128), np.uint8)
    images[0, :, 0, :].flat[: bright * 3] = 255
    images[0, :, :2, :100] = 255 if bright == 200 else images[0, :, :2, :100]
    if is_refused:
        with pytest.raises(DataError, match="every channel of the training images"):
            require_varied(images, "training")
    else:
        require_varied(images, "training")
