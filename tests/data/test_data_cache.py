"""The cache: built once, shared, whole or rebuilt; and the table of data sets."""

import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from filelock import FileLock

from harness.config.recipes.full_scale import ClassificationDataConfig
from harness.config.recipes.proxy import ProxyRecipe, Transfer
from harness.data import DATASETS, Dataset, cache, describe, load
from harness.data.cache import CacheWriter, cached, statistics
from harness.errors import DataError
from harness.system.fingerprint import fingerprint

SMALL = ProxyRecipe(train_size=40, val_size=16, resolution=16)


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def same(a: Dataset, b: Dataset) -> bool:
    splits = ((a.train, b.train), (a.val, b.val))
    equal = [np.array_equal(x.images[:], y.images[:]) and np.array_equal(x.labels, y.labels) for x, y in splits]
    return all(equal) and (a.mean, a.std, a.info) == (b.mean, b.std, b.info)


def test_the_second_load_reads_what_the_first_wrote(tmp_path: Path) -> None:
    first = load(SMALL, tmp_path, 0)
    (folder,) = folders(tmp_path)
    written = folder.stat().st_mtime_ns
    assert same(first, load(SMALL, tmp_path, 0))
    assert folders(tmp_path) == [folder] and folder.stat().st_mtime_ns == written


def test_every_field_that_decides_the_content_has_its_own_folder(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [
        {},
        {"rendering": "textured"},
        {"rendering": "textured", "cue_correlation": 0.5},
        {"difficulty": 0.4},
        {"train_size": 41},
        {"val_size": 17},
        {"data_seed": 1},
        {"resample": "none"},
        {"final_val_size": 17},
        {"transfer": Transfer()},
        {"resolution": 17},
    ]
    for change in changes:
        load(SMALL.model_copy(update=change), tmp_path, 0)
    assert len(folders(tmp_path)) == len(changes)
    load(SMALL.model_copy(update={"epochs": 99, "batch_size": 8}), tmp_path, 0)
    assert len(folders(tmp_path)) == len(changes), "training does not change the data"


def test_splits_are_maps_of_the_file_that_torch_takes_without_a_warning(tmp_path: Path) -> None:
    dataset = load(SMALL, tmp_path, 0)
    assert isinstance(dataset.train.images, np.memmap)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = torch.from_numpy(dataset.train.images)
    tensor.zero_()
    assert load(SMALL, tmp_path, 0).train.images[:].any(), "writing into a map changes no file"


def test_mean_and_deviation_are_those_of_the_training_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 3, 5, 7)).astype(np.uint8)
    images[:, 1] //= 3
    mean, std = statistics(images)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 2, 3)))
    assert std == pytest.approx((images / 255).std(axis=(0, 2, 3)))


def test_constant_images_have_no_deviation_of_zero() -> None:
    assert statistics(np.full((2, 1, 4, 4), 7, np.uint8))[1] == (1.0,)


def truncate(folder: Path) -> None:
    path = folder / "train" / "images.npy"
    os.truncate(path, path.stat().st_size // 2)


def flip_a_byte(folder: Path) -> None:
    path = folder / "val" / "images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def delete_an_array(folder: Path) -> None:
    (folder / "train" / "labels.npy").unlink()


def spoil_the_description(folder: Path) -> None:
    (folder / "meta.json").write_text('{"info": ')


def forget_part_of_the_description(folder: Path) -> None:
    (folder / "meta.json").write_text("{}")


@pytest.mark.parametrize(
    "damage", [truncate, flip_a_byte, delete_an_array, spoil_the_description, forget_part_of_the_description]
)
def test_a_damaged_folder_is_built_again(tmp_path: Path, damage: object) -> None:
    reference = load(SMALL, tmp_path / "reference", 0)
    load(SMALL, tmp_path / "damaged", 0)
    (folder,) = folders(tmp_path / "damaged")
    assert callable(damage)
    damage(folder)
    assert same(reference, load(SMALL, tmp_path / "damaged", 0))
    assert folders(tmp_path / "damaged") == [folder], "nothing is left beside it"


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def build(writer: CacheWriter) -> None:
        writer.array("train", "images", (2, 1, 4, 4))
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left on device") as caught:
        cached(tmp_path, "x", {}, build)
    assert folders(tmp_path) == [] and caught.value.place == str(tmp_path)


def test_a_cache_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="must be writable"):
        load(SMALL, tmp_path / "file" / "data", 0)


def test_what_a_killed_builder_left_is_cleared(tmp_path: Path) -> None:
    load(SMALL, tmp_path, 0)
    (folder,) = folders(tmp_path)
    truncate(folder)
    left = folder.with_name(f"{folder.name}.0123")
    (left / "train").mkdir(parents=True)
    load(SMALL, tmp_path, 0)
    assert folders(tmp_path) == [folder]


LOADER = """
import sys
from pathlib import Path
from harness.data import load
from harness.config.recipes.proxy import ProxyRecipe

print("ready", flush=True)
sys.stdin.readline()
print(int(load(ProxyRecipe(train_size=40, val_size=16, resolution=16), Path(sys.argv[1]), 0).train.images[:].sum()))
"""


def test_processes_that_build_at_once_end_with_one_whole_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADER, str(tmp_path / "shared")]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    sums = {int(worker.communicate()[0]) for worker in workers}
    assert len(folders(tmp_path / "shared")) == 1
    assert sums == {int(load(SMALL, tmp_path / "reference", 0).train.images[:].sum())}


def test_a_training_at_full_scale_takes_every_data_set() -> None:
    assert get_args(ClassificationDataConfig.model_fields["dataset"].annotation) == tuple(DATASETS)


def test_the_size_of_a_data_set_is_in_its_row_unless_its_folder_decides() -> None:
    assert [name for name, source in DATASETS.items() if source.sizes is None] == ["imagefolder"]
    read = {name for name, source in DATASETS.items() if not source.is_generated}
    assert {name for name, source in DATASETS.items() if source.distributed} == read - {"imagefolder"}


def test_an_unknown_data_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError) as caught:
        describe(ProxyRecipe(dataset="imagenett"))
    output = str(caught.value)
    assert "'imagenett'" in output and all(name in output for name in DATASETS)
    assert caught.value.place == "proxy.dataset"


def test_a_builder_that_hangs_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("POLL_S", 0.02), ("NOTICE_AFTER_S", 0.03), ("STALL_TIMEOUT_S", 0.3)):
        monkeypatch.setattr(cache, name, value)
    key = {"a": 1}
    folder = tmp_path / f"test-{fingerprint([cache.CACHE_VERSION, key])}"
    with FileLock(f"{folder}.lock"), pytest.raises(DataError, match="has written nothing for"):
        cache.cached(tmp_path, "test", key, lambda _: None)
    assert capsys.readouterr().err.count("waiting for another process that builds the data set") == 1
    building = folder.with_name(f"{folder.name}.0123")
    building.mkdir()

    def work(lock: FileLock) -> None:
        for i in range(20):  # slower than the limit, but never for long without a file
            time.sleep(0.05)
            (building / f"{i}.npy").touch()
        lock.release()

    lock = FileLock(f"{folder}.lock", thread_local=False)
    lock.acquire()
    builder = threading.Thread(target=work, args=(lock,))
    builder.start()
    with pytest.raises(RuntimeError, match="it is our turn"):
        cache.cached(tmp_path, "test", key, our_turn)
    builder.join()


def our_turn(_: CacheWriter) -> None:
    raise RuntimeError("it is our turn")
