"""The effective receptive field: what is known in closed form, and what must hold of any map and any network."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from random_statistics import randomize
from tiny_runs import RECIPE, tiny_spec
from torch import Tensor, nn

from harness.data import load
from harness.data.augment import normalize
from harness.measures.base import TrainedRun
from harness.measures.receptive_field import (
    ERF_IMAGES,
    SHARES,
    Map,
    area_fraction,
    area_shares,
    balanced_indices,
    erf,
    erf_resolution,
    radii,
    receptive_fields,
    resize_images,
)
from harness.models.build import build, merge
from harness.models.spec.presets import PRESETS

NANOS = ("replknet_nano", "mobilenet_v2_nano", "convnext_nano")


class Layers(nn.Module):
    """Depth-wise convolutions with constant kernels, and a function of what they leave."""

    def __init__(self, *sides: int, value: float = 1.0, then: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(nn.Conv2d(2, 2, k, padding=k // 2, groups=2, bias=False) for k in sides))
        self.then = then
        for parameter in self.parameters():
            nn.init.constant_(parameter, value)

    def features(self, x: Tensor) -> list[Tensor]:
        return [self.then(self.convs(x))]


def raw(model: nn.Module, images: Tensor, definition: str = "paper", **options: int) -> Map:
    return receptive_fields(model, images, **options)[definition].raw  # type: ignore[arg-type]


def square(map: Map, reach: int) -> float:
    """The sum of a map in a square, as its definition has it."""
    i, j = map.shape[0] // 2, map.shape[1] // 2
    return float(map[max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1].sum())


# Closed forms


@pytest.mark.parametrize("side", [32, 33])
@pytest.mark.parametrize("k", [1, 3, 7, 15])
def test_a_constant_kernel_sees_its_square(k: int, side: int) -> None:
    map = raw(Layers(k), torch.randn(3, 2, side, side))
    expected = np.zeros((side, side))
    low, high = side // 2 - k // 2, side // 2 + k // 2 + 1
    expected[low:high, low:high] = 3 * 2  # images and channels
    np.testing.assert_array_equal(map, expected)
    for t, share in area_shares(map).items():
        inner = next(m for m in range(1, k + 1, 2) if m * m > t / 100 * k * k)
        assert share == inner * inner / side**2


def test_two_constant_kernels_see_a_triangle() -> None:
    map = raw(Layers(7, 7), torch.randn(1, 2, 32, 32))
    triangle = np.maximum(0, 7 - np.abs(np.arange(32) - 16))
    np.testing.assert_allclose(map, 2 * np.outer(triangle, triangle), rtol=1e-6)
    held = np.cumsum([7, *2 * np.arange(6, 0, -1)]) ** 2 / 7**4
    for t, reach in radii(map).items():
        assert reach == int(np.argmax(held > t / 100))


def test_a_flat_map_is_covered_by_its_shares() -> None:
    for t, share in area_shares(np.ones((201, 201))).items():
        assert 0 <= share - t / 100 < 0.0101


def test_a_kernel_beyond_the_border_sees_all() -> None:
    assert area_shares(raw(Layers(63), torch.randn(1, 2, 16, 16)))[99] == 1


# Any map


MAPS = arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.floats(0, 1e300, allow_subnormal=True),
)


@given(MAPS)
def test_squares_are_the_smallest_that_hold_more(map: Map) -> None:
    reaches = radii(map)
    assert bool(reaches) == bool(map.any())
    scaled = map / (map.max() or 1.0)
    for t, reach in reaches.items():
        share = t / 100 * scaled.sum()
        assert square(scaled, reach) > share * (1 - 1e-12)
        assert reach == 0 or square(scaled, reach - 1) <= share * (1 + 1e-12)
        assert 0 < area_fraction(reach, *map.shape) <= 1
    assert list(reaches.values()) == sorted(reaches.values())


@pytest.mark.parametrize("shape", [(8, 8), (9, 9), (6, 11), (1, 1)])
def test_all_of_the_image_is_covered_in_the_end(shape: tuple[int, int]) -> None:
    map = np.zeros(shape)
    map[0, 0] = 1e-320
    assert set(area_shares(map).values()) == {1.0}


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("side", [31, 32])
@pytest.mark.parametrize("length", [1.0, 3.0, 10.0])
def test_logarithms_widen_what_decays(length: float, side: int, scale: float) -> None:
    distance = np.maximum.outer(*[np.abs(np.arange(side) - side // 2)] * 2)
    map = scale * np.exp(-distance / length)
    raws, logs = area_shares(map), area_shares(np.log10(map + 1) if scale > 1e-6 else np.log1p(map))
    assert all(logs[t] >= raws[t] for t in SHARES)
    assert scale < 1e9 or logs[50] > raws[50]


def test_a_map_of_zeros_has_no_shares() -> None:
    shares = area_shares(np.zeros((8, 8)))
    assert list(shares) == list(SHARES) and all(math.isnan(share) for share in shares.values())


# Definitions


def test_the_papers_definition_sums_and_its_code_averages() -> None:
    images = torch.rand(5, 2, 16, 16)
    fields = receptive_fields(Layers(5), images)  # positive, so that the ReLU changes nothing
    np.testing.assert_allclose(fields["paper"].raw, 5 * fields["code"].raw)
    assert area_shares(fields["paper"].raw) == area_shares(fields["code"].raw)
    assert fields["paper"].log.max() == pytest.approx(np.log10(5 * 2 + 1))
    assert fields["code"].log.max() == pytest.approx(np.log10(2 + 1))


def test_features_below_zero_are_dead_in_the_code_alone() -> None:
    images = torch.cat([torch.ones(2, 2, 8, 8), -torch.ones(3, 2, 8, 8)])
    fields = receptive_fields(Layers(3), images)
    assert (fields["paper"].dead, fields["code"].dead) == (0, 3)
    assert fields["code"].raw.max() == 2 * 2 / 5, "dead images count in the average"
    dead = receptive_fields(Layers(3), -torch.ones(3, 2, 8, 8))["code"]
    assert dead.has_no_gradient and dead.dead == 3


def test_gradients_below_zero_do_not_count() -> None:
    assert receptive_fields(Layers(3, value=-1.0), torch.randn(1, 2, 8, 8))["paper"].has_no_gradient


def test_a_dead_centre_has_no_field() -> None:
    field = receptive_fields(Layers(3, value=0.0), torch.randn(4, 2, 8, 8))["paper"]
    assert field.has_no_gradient and (field.images, field.dead) == (4, 4)
    assert all(math.isnan(share) for share in area_shares(field.raw).values())


def test_images_without_a_finite_gradient_are_left_out() -> None:
    images = torch.rand(4, 2, 8, 8)
    whole = raw(Layers(3, then=torch.square), images[1:])
    images[0, 0, 4, 4] = math.nan
    field = receptive_fields(Layers(3, then=torch.square), images)["paper"]
    assert (field.images, field.skipped, field.dead) == (3, 1, 0)
    np.testing.assert_allclose(field.raw, whole)
    none = receptive_fields(Layers(3, then=torch.square), torch.full((2, 2, 8, 8), math.inf))["code"]
    assert none.has_no_gradient and (none.images, none.skipped) == (0, 2)


# Networks


@pytest.mark.parametrize("name", NANOS)
def test_every_family_has_fields_and_is_left_alone(name: str) -> None:
    model = build(PRESETS[name], seed=0).train()
    randomize(model, seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        fields = receptive_fields(model, torch.randn(2, 3, 64, 64))
    assert all(0 < share <= 1 for field in fields.values() for share in area_shares(field.raw).values())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_number_of_images_at_once_changes_nothing() -> None:
    model, images = build(PRESETS["replknet_nano"], seed=0).double(), torch.randn(5, 3, 32, 32).double()
    whole = raw(model, images)
    counts: list[int] = []
    for batch in (1, 2, 5):
        np.testing.assert_allclose(raw(model, images, batch=batch), whole, rtol=1e-9, atol=1e-12 * whole.max())
    receptive_fields(model, images, batch=2, tell=counts.append)
    assert counts == [2, 4, 5]


def test_both_forms_see_alike() -> None:
    model = build(tiny_spec(K=5, reparam=3), seed=0).double()
    randomize(model, seed=1)
    images = torch.randn(2, 1, 32, 32).double()
    np.testing.assert_allclose(raw(merge(model), images), raw(model, images), rtol=1e-9)


def test_larger_kernels_see_farther() -> None:
    images = torch.rand(2, 1, 128, 128)
    shares = []
    for k in (3, 5, 13):
        model = build(tiny_spec(K=k), seed=0)
        for parameter in model.parameters():
            parameter.data.abs_()  # as with trained networks, no contributions that cancel by chance
        field = receptive_fields(model, images)["paper"]
        shares.append([area_shares(map) for map in (field.raw, field.log)])
    for small, large in pairwise(shares):
        assert all(a[t] <= b[t] for a, b in zip(small, large, strict=True) for t in SHARES)
        assert all(a[50] < b[50] for a, b in zip(small, large, strict=True))


# The measure


def test_the_measure_yields_what_the_definition_states(tmp_path: Path) -> None:
    model, dataset = build(tiny_spec(K=5), seed=0), load(RECIPE, tmp_path, 0)
    trained = TrainedRun(model, dataset, RECIPE, torch.device("cpu"))
    metrics = dict(erf(trained))
    assert list(metrics) == [f"erf_{kind}_r{t}_pct" for kind in ("raw", "log") for t in SHARES]
    assert dict(erf(trained)) == metrics
    chosen = torch.from_numpy(dataset.val.images[balanced_indices(dataset.val.labels, ERF_IMAGES)])
    enlarged = nn.functional.interpolate(normalize(chosen, dataset), (64, 64), mode="bilinear")
    field = receptive_fields(model, enlarged)["paper"]
    assert metrics["erf_raw_r50_pct"] == pytest.approx(100 * area_shares(field.raw)[50])
    assert metrics["erf_log_r99_pct"] == pytest.approx(100 * area_shares(field.log)[99])


def test_images_are_larger_than_in_training_up_to_a_bound() -> None:
    assert [erf_resolution(side) for side in (8, 48, 224, 384, 2048)] == [32, 192, 896, 1024, 2048]
    images = torch.rand(2, 3, 8, 8)
    assert resize_images(images, 8) is images and resize_images(images, 32).shape == (2, 3, 32, 32)
    torch.testing.assert_close(resize_images(torch.ones(1, 1, 9, 9), 4), torch.ones(1, 1, 4, 4))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 50))
def test_images_are_taken_in_turns_from_all_classes(labels: list[int], count: int) -> None:
    chosen = balanced_indices(np.array(labels, np.int64), count)
    assert len(chosen) == min(count, len(labels)) and list(chosen) == sorted(set(chosen))
    by_label = {label: [i for i in chosen if labels[i] == label] for label in set(labels)}
    for label, indices in by_label.items():
        assert indices == [i for i, other_label in enumerate(labels) if other_label == label][: len(indices)], (
            "the first of the class"
        )
        is_used_up = len(indices) == labels.count(label)
        assert is_used_up or len(indices) >= max(map(len, by_label.values())) - 1
