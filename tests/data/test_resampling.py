"""Images of its own for every seed: newly generated, or drawn again from a folder; the same for all networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_folders import write_cifar10
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from tiny_runs import RECIPE, tiny_spec, with_

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import DataInfo, Dataset, Rows, Split, load
from harness.data.cache import CacheWriter, cached, statistics
from harness.data.resampling import draw_indices, resampled
from harness.errors import DataError
from harness.models.build import build
from harness.training.fit import fit, validate

CPU = torch.device("cpu")


def pixels(dataset: Dataset) -> tuple[bytes, bytes]:
    return dataset.train.images[:].tobytes(), dataset.val.images[:].tobytes()


def test_every_seed_has_generated_images_of_its_own(tmp_path: Path) -> None:
    first, second, again = (pixels(load(RECIPE, tmp_path, seed)) for seed in (0, 1, 0))
    assert first == again
    assert first[0] != second[0] and first[1] != second[1]


def test_without_resampling_all_seeds_share_one_set(tmp_path: Path) -> None:
    recipe = with_(resample="none")
    assert pixels(load(recipe, tmp_path, 0)) == pixels(load(recipe, tmp_path, 7))
    assert pixels(load(recipe, tmp_path, 0)) != pixels(load(RECIPE, tmp_path, 0))
    assert pixels(load(recipe, tmp_path, 0)) != pixels(load(with_(recipe, data_seed=1), tmp_path, 0))


def test_a_bootstrap_of_generated_images_is_refused() -> None:
    with pytest.raises(ValidationError, match="`resample` must be split or none where images are generated"):
        ProxyRecipe(resample="bootstrap")


def test_fewer_final_images_than_in_between_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"`final_val_size` must be at least `val_size` \(100\), but got 99"):
        ProxyRecipe(val_size=100, final_val_size=99)


def test_how_images_are_resampled_is_part_of_a_recipe() -> None:
    assert len({with_(**changes).fingerprint() for changes in ({}, {"resample": "none"}, {"final_val_size": 40})}) == 3


def test_the_larger_validation_set_begins_with_the_smaller(tmp_path: Path) -> None:
    dataset = load(RECIPE, tmp_path, 0)
    assert len(dataset.val) == 8 * 32 and dataset.interim_val == 32
    small = load(with_(final_val_size=32), tmp_path, 0)
    assert len(small.val) == 32 and np.array_equal(small.val.images[:], dataset.val.images[:32])


def test_only_the_last_epoch_is_judged_on_all_validation_images(tmp_path: Path) -> None:
    dataset = load(RECIPE, tmp_path, 0)
    model = build(tiny_spec(), seed=0)
    for epoch in fit(model, dataset, RECIPE, seed=0, device=CPU):
        on_few, on_all = (validate(model, dataset, RECIPE, CPU, count=count) for count in (32, None))
        assert (epoch.val_loss, epoch.top1) == (on_all if epoch.epoch == RECIPE.epochs else on_few) and on_all != on_few


# --- folders


def labels(*counts: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize("is_bootstrap", [False, True])
def test_no_image_is_both_trained_on_and_judged_on(is_bootstrap: bool) -> None:
    train, val = labels(40, 60, 1), labels(20, 10, 1)
    for seed in range(20):
        drawn = draw_indices(train, val, (101, 31), seed=seed, is_bootstrap=is_bootstrap)
        assert not set(drawn.train) & set(drawn.val)
        assert len(set(drawn.val)) == len(drawn.val), "none is judged on twice"


def test_a_split_keeps_the_sizes_and_the_classes_of_both_parts() -> None:
    train, val = labels(40, 60, 1, 0), labels(20, 10, 0, 2)
    both = np.concatenate([train, val])
    parts = [draw_indices(train, val, (101, 32), seed=seed, is_bootstrap=False) for seed in range(5)]
    for drawn in parts:
        assert np.bincount(both[drawn.train]).tolist() == [40, 60, 1]
        assert np.bincount(both[drawn.val]).tolist() == [20, 10, 0, 2]
    assert len({drawn.val.tobytes() for drawn in parts}) == 5


def test_every_beginning_of_the_validation_images_holds_the_classes_in_proportion() -> None:
    train, val = labels(100, 50), labels(80, 40)
    drawn = draw_indices(train, val, (150, 120), seed=0, is_bootstrap=False)
    counts = np.bincount(np.concatenate([train, val])[drawn.val][:30])
    assert np.abs(counts - [20, 10]).max() <= 1


def test_every_image_is_judged_on_equally_often() -> None:
    train, val = labels(30, 10), labels(10, 10)
    seen = np.zeros(60)
    for seed in range(400):
        seen[draw_indices(train, val, (40, 20), seed=seed, is_bootstrap=False).val] += 1
    expected = np.where(np.concatenate([train, val]) == 0, 400 * 10 / 40, 400 * 10 / 20)
    assert np.abs(seen - expected).max() < 5 * np.sqrt(expected.max())


def test_a_bootstrap_draws_with_replacement_and_judges_on_the_rest() -> None:
    train, val = labels(200, 200), labels(200, 200)
    drawn = draw_indices(train, val, (400, 400), seed=0, is_bootstrap=True)
    assert np.bincount(np.concatenate([train, val])[drawn.train]).tolist() == [200, 200]
    distinct = len(set(drawn.train.tolist()))
    assert distinct == pytest.approx(2 * 400 * (1 - np.exp(-1 / 2)), rel=0.05)
    assert len(drawn.val) == 400, "of the rest, as many as were asked for"


def test_a_class_of_one_image_has_none_to_validate_on_and_that_is_reported() -> None:
    dataset = resampled(
        blank(labels(6, 1), labels(3)), ProxyRecipe(dataset="imagefolder", resample="bootstrap"), seed=0
    )
    assert set(dataset.val.labels) == {0} and set(dataset.train.labels) == {0, 1}
    assert dataset.notes == ("no validation image of 1 of 2 classes: b",)


def test_a_bootstrap_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="must leave images to validate on"):
        resampled(blank(labels(1, 1), labels()), ProxyRecipe(dataset="imagefolder", resample="bootstrap"), seed=0)


def blank(train: NDArray[np.int64], val: NDArray[np.int64]) -> Dataset:
    first, second = (
        Split(np.zeros((len(split_labels), 3, 8, 8), np.uint8), split_labels) for split_labels in (train, val)
    )
    return Dataset(DataInfo(2, 3, ("a", "b")), first, second, mean=(0.5,) * 3, std=(1.0,) * 3)


def test_every_seed_draws_new_subsets(tmp_path: Path) -> None:
    root = write_cifar10(tmp_path)
    recipe = of(root, dataset="cifar10", train_size=20, val_size=10, final_val_size=10)
    drawn = [load(recipe, tmp_path / "cache", seed) for seed in range(4)]
    for dataset in drawn:
        assert np.bincount(dataset.train.labels).tolist() == [2] * 10
        assert np.bincount(dataset.val.labels).tolist() == [1] * 10
    assert len({pixels(dataset) for dataset in drawn}) == 4
    assert len(list((tmp_path / "cache").glob("cifar10-*/"))) == 1, "decoded once for all seeds"


def test_the_statistics_are_those_of_the_images_trained_on(tmp_path: Path) -> None:
    dataset = load(of(folder(tmp_path, cat=(6, 3), eel=(6, 3))), tmp_path / "cache", 3)
    assert (dataset.mean, dataset.std) == statistics(dataset.train.images[:])


def test_rows_are_read_as_arrays_are() -> None:
    rng = np.random.default_rng(0)
    stored = [rng.integers(0, 256, (n, 1, 2, 2)).astype(np.uint8) for n in (4, 3)]
    index = np.array([6, 0, 3, 4, 0])
    rows, whole = Rows(stored, index), np.concatenate(stored)[index]
    assert rows.shape == whole.shape and len(rows) == 5
    for key in (slice(None), slice(1, 3), np.array([4, 1]), 2, -1):
        assert np.array_equal(rows[key], whole[key])


def test_a_network_sees_the_same_images_from_a_pool_as_from_an_array(tmp_path: Path) -> None:
    root = folder(tmp_path, cat=(10, 6), eel=(10, 6))
    recipe = with_(of(root), epochs=1, batch_size=4)
    dataset = load(recipe, tmp_path / "cache", 1)
    train, val = (Split(split.images[:], split.labels) for split in (dataset.train, dataset.val))
    losses = []
    for source in (dataset, Dataset(dataset.info, train, val, dataset.mean, dataset.std)):
        model = build(tiny_spec(in_channels=3, classes=2), seed=0)
        (epoch,) = fit(model, source, recipe, seed=0, device=CPU)
        losses.append((epoch.train_loss, epoch.val_loss, epoch.top1))
    assert losses[0] == losses[1]


def folder(root: Path, **counts: tuple[int, int]) -> Path:
    """Noise images; `counts` are the numbers of training and validation images by class; no folder where it is 0."""
    rng = np.random.default_rng(0)
    for name, numbers in counts.items():
        for split, number in zip(("train", "val"), numbers, strict=True):
            for i in range(number):
                path = root / "folder" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(path)
    return root / "folder"


def of(root: Path, **values: object) -> ProxyRecipe:
    defaults = {"dataset": "imagefolder", "root": str(root), "resolution": 32, "schedule": {"warmup_epochs": 0}}
    return ProxyRecipe.model_validate(defaults | values)


# --- the cache


def test_generated_sets_are_bounded_and_the_longest_unopened_goes_first(tmp_path: Path) -> None:
    built: list[int] = []

    def made(key: int) -> Dataset:
        def build(writer: CacheWriter) -> None:
            built.append(key)
            split = Split(
                np.tile(np.arange(100, dtype=np.uint8).reshape(1, 1, 10, 10), (10, 1, 1, 1)), np.zeros(10, int)
            )
            writer.save("train", split)
            writer.save("val", split)
            writer.finish(DataInfo(1, 1, ("a",)))

        return cached(tmp_path, "x", {"seed": key}, build, max_bytes=10_000)

    first = made(0)
    for key in (1, 2, 0, 3, 4):
        made(key)
    assert 2 <= len([path for path in tmp_path.iterdir() if path.is_dir()]) <= 3
    assert first.train.images[:].sum() == 10 * 4950, "what is mapped stays readable"
    made(4)
    made(0)
    assert built == [0, 1, 2, 3, 4], "those opened last are kept"
    made(1)
    assert built[-1] == 1, "one that was removed is made again"
