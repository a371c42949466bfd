"""`shapes`: the same everywhere; labels, masks and boxes that agree; contours whose statistics tell no class."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import DATASETS, describe
from harness.data.dataset import Split
from harness.data.shapes import dataset
from harness.data.shapes.contours import Clutter
from harness.data.shapes.silhouettes import NAMES, OUTLINE, bounding_box, silhouette, walk

RENDERINGS = ("contours", "textured")


def recipe(rendering: str = "contours", **values: object) -> ProxyRecipe:
    return ProxyRecipe.model_validate({"rendering": rendering, **values})


def digest(split: Split) -> str:
    arrays = (split.images[:], split.labels, split.masks, split.boxes)
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays if a is not None)).hexdigest()


@pytest.fixture(scope="module")
def contours() -> Split:
    return dataset.make(recipe(), "train", 1600)


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_another_process_makes_the_same_images(rendering: str) -> None:
    program = f"""
from test_shapes import digest, recipe
from harness.data.shapes import dataset as shapes
print(digest(shapes.make(recipe({rendering!r}), "train", 40)))
"""
    command = [sys.executable, "-c", program]
    folder = Path(__file__).parent
    other = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert other.stdout.strip() == digest(dataset.make(recipe(rendering), "train", 40))


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_a_larger_set_begins_with_the_smaller(rendering: str) -> None:
    small, large = (dataset.make(recipe(rendering), "val", size) for size in (20, 300))
    for name in ("images", "labels", "masks", "boxes"):
        assert np.array_equal(getattr(small, name), getattr(large, name)[:20]), name


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_seed_and_split_give_other_images(rendering: str) -> None:
    made = [
        dataset.make(recipe(rendering, data_seed=0), "train", 16),
        dataset.make(recipe(rendering, data_seed=1), "train", 16),
        dataset.make(recipe(rendering, data_seed=0), "val", 16),
    ]
    assert len({digest(split) for split in made}) == 3


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("resolution", [8, 33, 64, 96])
@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_masks_and_boxes_agree_with_labels(rendering: str, resolution: int, difficulty: float) -> None:
    split = dataset.make(recipe(rendering, resolution=resolution, difficulty=difficulty), "train", 24)
    assert split.masks is not None and split.boxes is not None
    assert split.images.shape == (24, 1, resolution, resolution) and split.images[:].dtype == np.uint8
    for label, mask, box in zip(split.labels, split.masks, split.boxes, strict=True):
        assert set(np.unique(mask)) == {0, 1 + label}
        assert tuple(box) == bounding_box(mask > 0)
        assert not (mask[0].any() and mask[-1].any()), "the figure lies inside the scene"


def test_a_resolution_shows_the_same_scene_as_another() -> None:
    small, large = (dataset.make(recipe(resolution=side), "train", 16) for side in (64, 128))
    assert small.boxes is not None and large.boxes is not None
    apart = np.abs(2 * small.boxes - large.boxes)
    assert np.quantile(apart, 0.95) <= 2 and apart.max() <= 4, "a thin tip may miss the centres of a few pixels"
    halved = large.images[:].reshape(16, 64, 2, 64, 2).mean(axis=(2, 4)).ravel()
    assert np.corrcoef(halved, small.images[:].ravel())[0, 1] > 0.9


def test_classes_are_balanced_in_every_eight_images(contours: Split) -> None:
    rounds = np.sort(contours.labels.reshape(-1, len(NAMES)), axis=1)
    assert (rounds == np.arange(len(NAMES))).all()
    assert len({tuple(row) for row in contours.labels.reshape(-1, len(NAMES))}) > 100, "in random order"


def test_all_outlines_are_equally_long() -> None:
    for label in range(len(NAMES)):
        assert sum(walk(curve)[1][-1] for curve in silhouette(label)) == pytest.approx(OUTLINE)


def test_masks_have_the_area_of_their_silhouette() -> None:
    split = dataset.make(recipe(resolution=128), "train", 80)
    assert split.masks is not None
    disc = [mask for mask, label in zip(split.masks, split.labels, strict=True) if NAMES[label] == "disc"]
    sides = [bounding_box(mask > 0) for mask in disc]
    for mask, (x0, _, x1, _) in zip(disc, sides, strict=True):
        assert (mask > 0).sum() == pytest.approx(np.pi * ((x1 - x0) / 2) ** 2, rel=0.03)


def by_class(values: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.stack([values[labels == label].mean(axis=0) for label in range(len(NAMES))])


def test_the_histogram_of_contours_tells_no_class(contours: Split) -> None:
    levels = np.stack([np.bincount(image.ravel() // 32, minlength=8) / 64**2 for image in contours.images[:]])
    assert np.ptp(by_class(levels, contours.labels), axis=0).max() < 0.006


def test_the_edges_of_contours_tell_little(contours: Split) -> None:
    images = contours.images[:, 0].astype(float)
    across, down = np.gradient(images, axis=2), np.gradient(images, axis=1)
    density = np.hypot(across, down).mean(axis=(1, 2))
    spread = np.ptp(by_class(density[:, None], contours.labels))
    assert spread < 0.02 * density.mean()


def test_a_linear_reading_of_small_windows_is_near_chance(contours: Split) -> None:
    """Mean responses to all 2x2 patterns of dark and bright pixels, read out by least squares on half of the images."""
    bright = (contours.images[:, 0] > 128).astype(int)
    codes = bright[:, :-1, :-1] + 2 * bright[:, :-1, 1:] + 4 * bright[:, 1:, :-1] + 8 * bright[:, 1:, 1:]
    features = np.stack([np.bincount(code.ravel(), minlength=16) for code in codes]) / codes[0].size
    features = np.hstack([(features - features.mean(0)) / (features.std(0) + 1e-9), np.ones((len(codes), 1))])
    targets = np.eye(len(NAMES))[contours.labels]
    readout = np.linalg.lstsq(features[:800], targets[:800], rcond=None)[0]
    accuracy = ((features[800:] @ readout).argmax(1) == contours.labels[800:]).mean()
    assert accuracy < 0.30


def test_difficulty_dials_both_what_is_missing_and_the_strays() -> None:
    easy, middle, hard = (Clutter.of(difficulty) for difficulty in (0.0, 0.5, 1.0))
    assert easy.removed < middle.removed < hard.removed < 1
    assert easy.distractors < middle.distractors < hard.distractors


@pytest.mark.parametrize("correlation", [0.0, 0.8, 1.0])
def test_cues_agree_with_classes_as_often_as_asked(correlation: float) -> None:
    cue_recipe = recipe("textured", cue_correlation=correlation, resolution=8, difficulty=0.0)
    agreement = {}
    for split in ("train", "val", "conflict"):
        made = dataset.make(cue_recipe, split, 1000)
        assert made.cues is not None
        agreement[split] = (made.cues == made.labels).mean()
    chance = 1 / len(NAMES)
    assert agreement["train"] == pytest.approx(correlation + (1 - correlation) * chance, abs=0.04)
    assert agreement["val"] == pytest.approx(chance, abs=0.04)
    assert agreement["conflict"] == 0


def test_the_texture_of_the_figure_is_that_of_its_cue() -> None:
    """Inside the figure, the strongest frequency of the image is that of the cue's grating."""
    split = dataset.make(recipe("textured", difficulty=0.0, resolution=64), "conflict", 64)
    assert split.cues is not None and split.masks is not None
    directions = []
    for image, mask in zip(split.images[:, 0], split.masks, strict=True):
        figure = np.where(mask > 0, image - image[mask > 0].mean(), 0.0)
        spectrum = np.abs(np.fft.fft2(figure))
        spectrum[np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64))) < 0.1] = 0
        row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
        directions.append(np.arctan2(np.fft.fftfreq(64)[row], np.fft.fftfreq(64)[column]) % np.pi)
    expected = np.pi * (split.cues % 4) / 4
    apart = np.abs((np.array(directions) - expected + np.pi / 2) % np.pi - np.pi / 2)
    assert (apart < np.pi / 8).mean() > 0.95


def test_description_needs_no_torch() -> None:
    program = """
import sys
from pathlib import Path
from harness.data import describe
from harness.config.recipes.proxy import ProxyRecipe
info = describe(ProxyRecipe())
assert "torch" not in sys.modules, "describing a data set imports torch"
print(info.classes, info.channels)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["8", "1"]
    assert describe(ProxyRecipe()).names == NAMES
    assert "shapes" in DATASETS
