"""Augmentation: reproducible from its generator alone, and each part does what its name promises."""

import random

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from harness.config.recipes.proxy import Augmentation
from harness.data import DataInfo, Dataset, Split
from harness.data.augment import augment, erase, flip, mix, normalize, rand_augment, shift
from harness.data.cache import statistics

OFF = Augmentation(flip=False)
EVERYTHING = Augmentation(
    flip=True, shift=4, randaugment="rand-m9-n2-mstd0.5-inc1", random_erasing=0.5, mixup=0.8, cutmix=1.0
)


def world(channels: int = 3, count: int = 12, side: int = 20) -> tuple[Dataset, Tensor, Tensor]:
    rng = np.random.default_rng(5)
    smooth = rng.uniform(0, 255, (count, channels, side // 4, side // 4)).repeat(4, axis=2).repeat(4, axis=3)
    images, labels = smooth.astype(np.uint8), np.arange(count) % 4
    mean, std = statistics(images)
    split = Split(images, labels)
    dataset = Dataset(DataInfo(4, channels, ("a", "b", "c", "d")), split, split, mean, std)
    return dataset, torch.from_numpy(images), torch.from_numpy(labels)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalized_images_have_mean_zero_and_deviation_one() -> None:
    dataset, images, _ = world()
    x = normalize(images, dataset)
    assert x.dtype == torch.float32
    assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (x.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_nothing_asked_for_is_normalization_alone() -> None:
    dataset, images, labels = world()
    x, targets = augment(images, labels, OFF, dataset, generator())
    assert torch.equal(x, normalize(images, dataset)) and torch.equal(targets, labels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", [Augmentation(shift=3), EVERYTHING], ids=["light", "everything"])
def test_the_same_generator_gives_the_same_batch(channels: int, augmentation: Augmentation) -> None:
    dataset, images, labels = world(channels)
    original = images.clone()
    first, first_targets = augment(images, labels, augmentation, dataset, generator(7))
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    second, second_targets = augment(images, labels, augmentation, dataset, generator(7))
    other, _ = augment(images, labels, augmentation, dataset, generator(8))
    assert torch.equal(first, second) and torch.equal(first_targets, second_targets)
    assert not torch.equal(first, other)
    assert torch.equal(images, original), "the data set's own images stay as they are"


def test_global_streams_are_left_as_they_were() -> None:
    dataset, images, labels = world()
    random.seed(1)
    np.random.seed(1)
    expected = (random.random(), np.random.rand())
    random.seed(1)
    np.random.seed(1)
    augment(images, labels, EVERYTHING, dataset, generator())
    assert (random.random(), np.random.rand()) == expected


def test_two_batches_from_one_generator_differ() -> None:
    dataset, images, labels = world()
    stream = generator()
    first, _ = augment(images, labels, EVERYTHING, dataset, stream)
    second, _ = augment(images, labels, EVERYTHING, dataset, stream)
    assert not torch.equal(first, second)


def test_a_flip_is_its_own_inverse_and_leaves_the_others() -> None:
    dataset, images, _ = world()
    x, chosen = normalize(images, dataset), torch.arange(len(images)) % 3 == 0
    flipped = flip(x, chosen)
    assert torch.equal(flip(flipped, chosen), x)
    assert torch.equal(flipped[~chosen], x[~chosen])
    assert torch.equal(flipped[chosen], x[chosen].flip(3))


def test_half_of_the_images_are_flipped() -> None:
    dataset, images, labels = world(count=400)
    x, _ = augment(images, labels, Augmentation(), dataset, generator())
    unflipped = (x == normalize(images, dataset)).flatten(1).all(dim=1).float().mean()
    assert 0.4 < unflipped < 0.6


def test_a_shift_equals_a_cut_from_the_reflected_image() -> None:
    dataset, images, _ = world()
    x = normalize(images, dataset)
    offsets = torch.randint(-5, 6, (len(x), 2), generator=generator())
    padded = torch.nn.functional.pad(x, [5] * 4, mode="reflect")
    side = x.shape[2]
    cuts = [p[:, 5 - dy : 5 - dy + side, 5 - dx : 5 - dx + side] for p, (dy, dx) in zip(padded, offsets, strict=True)]
    assert torch.equal(shift(x, offsets), torch.stack(cuts))


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_shift_beyond_the_border_is_reflected_again(side: int) -> None:
    x = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side)
    moved = shift(x, torch.tensor([[7, -7]]))
    assert moved.shape == x.shape and set(moved.flatten().tolist()) <= set(x.flatten().tolist())


def test_erasing_sets_one_rectangle_to_the_mean() -> None:
    x = torch.full((50, 3, 32, 32), 5.0)
    erased = erase(x.clone(), 1.0, generator())
    holes = (erased == 0).all(dim=1)
    assert torch.equal(erased != 5.0, holes[:, None].expand_as(erased))
    for hole in holes:
        rows, columns = hole.any(dim=1).sum(), hole.any(dim=0).sum()
        assert hole.sum() == rows * columns and 0.01 < hole.float().mean() < 0.36
    assert torch.equal(erase(x.clone(), 1e-9, generator()), x)


@pytest.mark.parametrize("count", [1, 2, 11, 12])
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixed_targets_sum_to_one_and_name_both_images(count: int, mixup: float, cutmix: float) -> None:
    dataset, images, labels = world(count=count)
    x = normalize(images, dataset)
    mixed, targets = mix(x.clone(), labels, Augmentation(mixup=mixup, cutmix=cutmix), 4, generator(3))
    assert torch.allclose(targets.sum(dim=1), torch.ones(count))
    even = count // 2 * 2
    partners = torch.cat([labels[:even].flip(0), labels[even:]])
    pairs = torch.nn.functional.one_hot(labels, 4) + torch.nn.functional.one_hot(partners, 4)
    assert not targets[pairs == 0].any()
    assert torch.equal(mixed[even:], x[even:])


def test_the_share_of_a_mixup_is_that_of_its_target() -> None:
    dataset, images, _ = world(count=2)
    x = normalize(images, dataset)
    mixed, targets = mix(x.clone(), torch.tensor([0, 1]), Augmentation(mixup=0.8), 4, generator(1))
    share = targets[0, 0]
    assert 0 < share < 1
    assert torch.allclose(mixed[0], share * x[0] + (1 - share) * x[1], atol=1e-5)


def test_the_share_of_a_cutmix_is_its_area() -> None:
    x = torch.stack([torch.zeros(3, 40, 40), torch.ones(3, 40, 40)])
    for seed in range(10):
        mixed, targets = mix(x.clone(), torch.tensor([0, 1]), Augmentation(cutmix=1.0), 2, generator(seed))
        assert mixed[0].mean() == pytest.approx(float(targets[0, 1]), abs=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_changes_bytes_into_bytes(channels: int) -> None:
    dataset, images, _ = world(channels)
    changed = rand_augment(images, "rand-m9-mstd0.5-inc1", dataset, generator())
    assert changed.shape == images.shape and changed.dtype == torch.uint8
    assert not torch.equal(changed, images)
    assert torch.equal(rand_augment(images, "rand-m9-p0", dataset, generator()), images)


@pytest.mark.parametrize("policy", ["", "rand-m9-inc1-x4", "augmix-m3", "rand-m", "rand-m9-mstd", "rand-tcolor"])
def test_a_policy_that_timm_cannot_read_is_refused(policy: str) -> None:
    with pytest.raises(ValidationError, match="randaugment"):
        Augmentation(randaugment=policy)


@pytest.mark.parametrize(
    "policy", ["rand", "rand-m9-mstd0.5-inc1", "rand-m7-n3-p0.6-mmax9", "rand-m5-tweights", "rand-t3a"]
)
def test_a_policy_that_timm_can_read_is_used(policy: str) -> None:
    dataset, images, labels = world()
    x, _ = augment(images, labels, Augmentation(randaugment=policy), dataset, generator())
    assert torch.isfinite(x).all()
