"""CIFAR and image folders, on small copies of the layouts in which they are distributed."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar_folders import as_python_2, batch, write_cifar10, write_cifar100
from PIL import Image

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import describe, load
from harness.data.image_file import CroppedImage, decode_square
from harness.data.subsets import stratified_subset
from harness.errors import DataError

# --- CIFAR


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    return write_cifar10(tmp_path)


@pytest.fixture
def cifar100(tmp_path: Path) -> Path:
    return write_cifar100(tmp_path)


def of(dataset: str, root: Path | None, **values: object) -> ProxyRecipe:
    root_value = None if root is None else str(root)
    whole = {"dataset": dataset, "root": root_value, "resolution": 32, "resample": "none"}
    return ProxyRecipe.model_validate(whole | values)


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_is_read_from_its_folder_or_the_one_above(cifar10: Path, tmp_path: Path, inside: bool) -> None:
    root = cifar10 / "cifar-10-batches-py" if inside else cifar10
    dataset = load(of("cifar10", root), tmp_path / "cache", 0)
    assert (dataset.info.classes, dataset.info.channels, dataset.info.names[9]) == (10, 3, "kind 9")
    expected = np.concatenate([batch(i, 20, 10)["data"] for i in range(1, 6)]).reshape(-1, 3, 32, 32)
    assert np.array_equal(dataset.train.images[:], expected)
    assert dataset.train.labels.tolist() == [*range(10)] * 10
    assert dataset.val.images.shape == (30, 3, 32, 32)
    assert dataset.train.masks is None and dataset.conflict is None


def test_cifar100_has_its_fine_classes(cifar100: Path, tmp_path: Path) -> None:
    dataset = load(of("cifar100", cifar100), tmp_path / "cache", 0)
    assert dataset.info.classes == 100 and dataset.info.names[42] == "kind 42"
    assert np.array_equal(dataset.val.images[:].reshape(100, -1), batch(1, 100, 100)["data"])


def test_cifar_comes_at_another_resolution_and_in_stratified_subsets(cifar10: Path, tmp_path: Path) -> None:
    dataset = load(of("cifar10", cifar10, resolution=48, train_size=50, val_size=10), tmp_path / "cache", 0)
    assert dataset.train.images.shape == (50, 3, 48, 48)
    assert np.bincount(dataset.train.labels).tolist() == [5] * 10
    assert len(dataset.val) == 30 and dataset.interim_val == 10
    assert np.bincount(dataset.val.labels[:10]).tolist() == [1] * 10


def test_cifar_that_changes_is_read_again(cifar10: Path, tmp_path: Path) -> None:
    before = load(of("cifar10", cifar10), tmp_path / "cache", 0)
    (cifar10 / "cifar-10-batches-py" / "test_batch").write_bytes(as_python_2(batch(99, 40, 10)))
    after = load(of("cifar10", cifar10), tmp_path / "cache", 0)
    assert len(before.val) == 30 and len(after.val) == 40


class Harmful:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit('the pickle was run')",)


BROKEN: dict[str, bytes] = {
    "harmful": pickle.dumps(Harmful(), protocol=2),
    "truncated": as_python_2(batch(0, 20, 10))[:1000],
    "empty": b"",
    "no pickle": b"<html>Not found</html>",
    "a list": pickle.dumps([1, 2], protocol=2),
    "no data": pickle.dumps({"labels": [1]}, protocol=2),
    "no labels": pickle.dumps({"data": batch(0, 20, 10)["data"]}, protocol=2),
    "too few labels": pickle.dumps(batch(0, 20, 10) | {"labels": [1]}, protocol=2),
    "a label too high": pickle.dumps(batch(0, 20, 10) | {"labels": [10] * 20}, protocol=2),
    "another shape": pickle.dumps(batch(0, 20, 10) | {"data": np.zeros((20, 5), np.uint8)}, protocol=2),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_batch_is_refused_by_name(cifar10: Path, tmp_path: Path, content: bytes) -> None:
    (cifar10 / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match="data_batch_3") as caught:
        load(of("cifar10", cifar10), tmp_path / "cache", 0)
    assert caught.value.place and caught.value.remedy
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_description_without_names_is_refused(cifar10: Path) -> None:
    (cifar10 / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({}, protocol=2))
    with pytest.raises(DataError, match=r"batches\.meta.*label_names"):
        describe(of("cifar10", cifar10))


def test_a_missing_file_of_cifar_is_named(cifar10: Path) -> None:
    (cifar10 / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match="missing: data_batch_4") as caught:
        describe(of("cifar10", cifar10))
    assert "cifar-10-batches-py" in str(caught.value) and caught.value.place == "proxy.root"


# --- image folders


def picture(side: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side[1], side[0], 3)).astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for split, count in (("train", 6), ("val", 3)):
        for c, name in enumerate(("cat", "dog", "eel")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                ending = ("jpg", "png", "JPEG")[i % 3]
                picture((40 + 5 * i, 50), seed=10 * c + i).save(root / split / name / f"{i}.{ending}")
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / ".hidden").mkdir()
    return root


def test_an_image_folder_is_read_by_class(folder: Path, tmp_path: Path) -> None:
    dataset = load(of("imagefolder", folder), tmp_path / "cache", 0)
    assert dataset.info.names == ("cat", "dog", "eel") and dataset.info.channels == 3
    assert dataset.train.images.shape == (18, 3, 32, 32)
    assert np.bincount(dataset.train.labels).tolist() == [6, 6, 6]
    assert len(dataset.val) == 9 and dataset.notes == ()
    with Image.open(folder / "train" / "cat" / "1.png") as image:
        assert image.size == (45, 50)
        cut = image.resize((32, 32), Image.Resampling.BICUBIC, box=(0, 2.5, 45, 47.5))
    assert np.array_equal(dataset.train.images[1].transpose(1, 2, 0), np.asarray(cut))


def test_subsets_of_a_folder_are_stratified(folder: Path, tmp_path: Path) -> None:
    dataset = load(of("imagefolder", folder, train_size=9, val_size=3), tmp_path / "cache", 0)
    assert np.bincount(dataset.train.labels).tolist() == [3, 3, 3]
    assert dataset.interim_val == 3 and np.bincount(dataset.val.labels[:3]).tolist() == [1, 1, 1]
    assert len(dataset.val) == 9, "the last epoch is judged on all"


def test_a_changed_folder_is_read_again(folder: Path, tmp_path: Path) -> None:
    load(of("imagefolder", folder), tmp_path / "cache", 0)
    picture((64, 64)).save(folder / "val" / "eel" / "new.png")
    assert len(load(of("imagefolder", folder), tmp_path / "cache", 0).val) == 10


def test_damaged_files_are_left_out_and_reported(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "train" / "dog" / "0.jpg").read_bytes()
    (folder / "train" / "dog" / "0.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "eel" / "1.png").write_bytes(b"")
    dataset = load(of("imagefolder", folder), tmp_path / "cache", 0)
    assert np.bincount(dataset.train.labels).tolist() == [6, 5, 5]
    assert dataset.train.images.shape == (16, 3, 32, 32) and dataset.train.images[-1].any()
    (note,) = dataset.notes
    assert "2 of the training images" in note and "dog/0.jpg" in note and "eel/1.png" in note
    assert load(of("imagefolder", folder), tmp_path / "cache", 0).notes == dataset.notes


def test_a_class_of_damaged_files_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in (folder / "val" / "eel").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"every class of `val` must hold a readable image, but got 'eel'"):
        load(of("imagefolder", folder), tmp_path / "cache", 0)


def test_a_class_without_images_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "val" / "dog")
    (folder / "val" / "dog").mkdir()
    with pytest.raises(DataError, match="every class must hold images, but got 'dog'"):
        load(of("imagefolder", folder), tmp_path / "cache", 0)


def test_a_class_that_was_never_trained_is_refused(folder: Path) -> None:
    (folder / "val" / "fox").mkdir()
    with pytest.raises(DataError, match="unknown: fox"):
        describe(of("imagefolder", folder))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_refused(folder: Path, split: str) -> None:
    shutil.rmtree(folder / split)
    with pytest.raises(DataError, match=f"`{split}` must be a folder") as caught:
        describe(of("imagefolder", folder))
    assert "train and val" in str(caught.value)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagefolder"])
def test_a_data_set_without_its_root_tells_the_layout(dataset: str, tmp_path: Path) -> None:
    for root in (None, tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(DataError, match=r"proxy\.root") as caught:
            describe(of(dataset, root))
        assert "Expected there" in str(caught.value) and "Nothing is downloaded" in str(caught.value)
        assert caught.value.place == "proxy.root"


@pytest.mark.parametrize("key", ["train_size", "val_size", "final_val_size"])
@pytest.mark.parametrize("resample", ["none", "split", "bootstrap"])
def test_more_images_than_there_are_cannot_be_asked_for(folder: Path, tmp_path: Path, key: str, resample: str) -> None:
    with pytest.raises(DataError, match=f"`{key}` must be at most the") as caught:
        load(of("imagefolder", folder, **{key: 1000}, resample=resample), tmp_path / "cache", 0)
    assert caught.value.place == f"proxy.{key}"


# --- single images


def channel_means(path: Path) -> list[float]:
    image = decode_square(path, 8)
    assert isinstance(image, CroppedImage) and image.pixels.shape == (3, 8, 8)
    return [float(mean) for mean in image.pixels.mean(axis=(1, 2))]


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 90, (90, 90, 90)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (200, 100, 50, 128), (200, 100, 50)),
        ("LA", (90, 10), (90, 90, 90)),
        ("I;16", 90 * 256, (90, 90, 90)),
    ],
)
def test_every_kind_of_png_becomes_rgb(tmp_path: Path, mode: str, color: Any, expected: tuple[int, ...]) -> None:
    Image.new(mode, (20, 30), color).save(tmp_path / "x.png")
    assert channel_means(tmp_path / "x.png") == pytest.approx(expected, abs=1)


def test_a_palette_with_transparency_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 30), (200, 100, 50)).quantize(4)
    image.save(tmp_path / "x.png", transparency=bytes([0, 128]))
    assert channel_means(tmp_path / "x.png") == pytest.approx((200, 100, 50), abs=2)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (20, 30), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=95)
    assert channel_means(tmp_path / "x.jpg") == pytest.approx((254, 0, 0), abs=4)


def test_an_image_is_turned_back_as_in_its_exif(tmp_path: Path) -> None:
    upright = Image.new("RGB", (30, 30), (0, 0, 0))
    upright.paste((255, 255, 255), (0, 0, 30, 15))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90).save(tmp_path / "x.jpg", exif=exif, quality=95)
    image = decode_square(tmp_path / "x.jpg", 8)
    assert isinstance(image, CroppedImage)
    assert image.pixels[:, :3].min() > 240 and image.pixels[:, 5:].max() < 15


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_the_smallest_and_the_narrowest_images_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "x.png")
    assert channel_means(tmp_path / "x.png") == [10, 20, 30]


# --- subsets


def test_a_larger_subset_holds_the_smaller_and_keeps_proportions() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    rng = np.random.default_rng(3)
    labels = labels[rng.permutation(len(labels))]
    small, large = (stratified_subset(labels, size, seed=1, key="train_size") for size in (100, 500))
    assert set(small) <= set(large) and len(set(large)) == 500
    assert np.bincount(labels[small]).tolist() == [60, 30, 10]
    assert not np.array_equal(small, stratified_subset(labels, 100, seed=2, key="train_size"))


@pytest.mark.parametrize("size", [1, 7, 999, 1000])
def test_classes_of_a_subset_differ_by_at_most_one_from_their_share(size: int) -> None:
    labels = np.arange(1000) % 7
    counts = np.bincount(labels[stratified_subset(labels, size, seed=0, key="val_size")], minlength=7)
    assert counts.sum() == size and np.abs(counts - size * np.bincount(labels) / 1000).max() <= 1
