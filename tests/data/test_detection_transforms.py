"""What a detector is shown of an image: boxes and masks that keep to their figures."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.config.recipes.detection import DetectionAugmentation
from harness.data.detection import augment_detection
from harness.data.detection_annotations import Instances, encode_rle
from harness.data.detection_transforms import DetectionSample, resized_sides, to_normalized_tensor
from harness.training.tasks.detection import to_image_coordinates

WIDTH, HEIGHT = 60, 40


def detection_sample(*, masks: bool = True) -> DetectionSample:
    """Two white rectangles and a crowd."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    boxes = np.array([[4, 6, 24, 18], [30, 20, 56, 38], [0, 0, 9, 9]], np.float32)
    pixel_masks = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(pixel_masks, boxes.astype(int).tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    pixels[pixel_masks[:2].any(0)] = 255
    packed = tuple(encode_rle(mask) for mask in pixel_masks) if masks else None
    areas, crowds = pixel_masks.sum((1, 2)).astype(np.float32), np.array([False, False, True])
    return DetectionSample.of(Image.fromarray(pixels), Instances(boxes, np.array([5, 7, 1]), areas, crowds, packed))


def require_true(sample: DetectionSample, *, off: float = 0.0) -> None:
    """Boxes enclose their masks and the white pixels tightly, up to `off` pixels."""
    assert sample.masks is not None and sample.masks.shape == (len(sample.labels), *sample.image.size[::-1])
    white = np.asarray(sample.image)[:, :, 0] > 127
    for mask, box in zip(sample.masks, sample.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.array(around) - box).max() <= off
    assert (white != sample.masks.any(0)).mean() <= (0.1 if off else 0)


def test_crowds_are_not_shown() -> None:
    sample = detection_sample()
    assert sample.labels.tolist() == [5, 7]
    require_true(sample)
    assert detection_sample(masks=False).masks is None and "masks" not in detection_sample(masks=False).target()


def test_mirrored() -> None:
    sample = detection_sample().flip()
    require_true(sample)
    assert sample.boxes.tolist() == [[36, 6, 56, 18], [4, 20, 30, 38]]
    assert np.array_equal(np.asarray(sample.flip().image), np.asarray(detection_sample().image))


@pytest.mark.parametrize(("short", "sides"), [(80, (120, 80)), (20, (30, 20)), (100, (130, 87)), (33, (50, 33))])
def test_resized(short: int, sides: tuple[int, int]) -> None:
    sample = detection_sample().resize(short, 130)
    assert sample.image.size == sides == resized_sides((WIDTH, HEIGHT), short, 130)
    require_true(sample, off=1.0)
    assert sample.boxes[1] == pytest.approx(np.array([30, 20, 56, 38]) * np.array([sides[0] / 60, sides[1] / 40] * 2))


def test_images_of_a_pixel_or_a_line_have_a_size() -> None:
    assert resized_sides((1, 1), 800, 1333) == (800, 800)
    assert resized_sides((1, 2000), 800, 1333) == (1, 1333)
    assert resized_sides((640, 480), 800, 1333) == (1067, 800)


def test_cropped_figures_are_cut_and_those_outside_left_out() -> None:
    sample = detection_sample().crop(10, 0, 30, 25)
    require_true(sample)
    assert sample.boxes.tolist() == [[0, 6, 14, 18], [20, 20, 30, 25]]
    alone = detection_sample().crop(26, 19, 30, 20)
    assert alone.labels.tolist() == [7]
    nothing = detection_sample().crop(0, 0, 3, 3)
    assert nothing.target()["masks"].shape == (0, 3, 3) and nothing.target()["boxes"].shape == (0, 4)
    assert nothing.resize(9, 99).target()["masks"].shape == (0, 9, 9)


def views(**changes: Any) -> DetectionAugmentation:
    return DetectionAugmentation.model_validate({"flip": 0.0, "short": [24, 36], "longest": 50} | changes)


def test_sides_are_random_and_the_longest_is_kept_to() -> None:
    rng = np.random.default_rng(0)
    sizes = {augment_detection(detection_sample(), views(), rng).image.size for _ in range(20)}
    assert sizes == {(36, 24), (50, 33)}


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flips(flip: float) -> None:
    sample = augment_detection(
        detection_sample(), views(flip=flip, short=[HEIGHT], longest=99), np.random.default_rng(0)
    )
    assert np.array_equal(
        np.asarray(sample.image), np.asarray((detection_sample().flip() if flip else detection_sample()).image)
    )


def test_crops_have_sides_within_their_bounds_and_lie_anywhere() -> None:
    cropping = views(crop=1.0, crop_from=[30], crop_sides=[12, 20], short=[64], longest=999)
    rng, shapes = np.random.default_rng(0), []
    for _ in range(40):
        sample = augment_detection(detection_sample(), cropping, rng)
        require_true(sample, off=6.0)
        shapes.append(max(sample.image.size) / min(sample.image.size))
    assert max(shapes) <= 20 / 12 * 1.1 and len(set(shapes)) > 10
    with_a_figure = [bool(len(augment_detection(detection_sample(), cropping, rng).labels)) for _ in range(60)]
    assert 0 < sum(with_a_figure) < 60 or all(with_a_figure)


def test_crops_of_images_that_are_too_small_are_the_whole_image() -> None:
    sample = augment_detection(
        detection_sample(), views(crop=1.0, crop_from=[10], crop_sides=[80, 90], short=[40]), np.random.default_rng(0)
    )
    assert sample.image.size == (50, 33) and sample.labels.tolist() == [5, 7]


def test_the_same_draw_gives_the_same_view() -> None:
    one, other = (
        augment_detection(detection_sample(), views(crop=0.5, flip=0.5), np.random.default_rng(4)) for _ in range(2)
    )
    assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    assert np.array_equal(one.boxes, other.boxes)


def test_numbers_are_normalised_per_channel() -> None:
    picture = Image.new("RGB", (3, 2), (255, 51, 0))
    output = to_normalized_tensor(picture, [0.5, 0.2, 0.0], [0.5, 0.1, 1.0])
    assert output.shape == (3, 2, 3) and output[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_detections_are_in_the_images_own_pixels() -> None:
    boxes = torch.tensor([[2.0, 3.0, 12.0, 9.0]])
    predictions = {"boxes": boxes, "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    masks = torch.ones(1, 1, 28, 28)
    detections = to_image_coordinates(predictions | {"masks": masks}, (20, 30), (HEIGHT, WIDTH))
    assert detections.boxes.tolist() == [[4, 6, 24, 18]]
    assert detections.masks is not None and detections.masks[0]["size"] == [HEIGHT, WIDTH]
    assert to_image_coordinates(predictions, (20, 30), (HEIGHT, WIDTH)).masks is None
    from harness.data.detection_annotations import decode_rle

    inside = decode_rle(detections.masks, HEIGHT, WIDTH)[0]
    assert inside[7:17, 5:23].all() and inside.sum() <= 22 * 14


def test_views_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="a least and a largest side"):
        DetectionAugmentation(crop_sides=[20, 10])
