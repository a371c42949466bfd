"""COCO's format: what is read of it, and the errors for invalid files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_folders import (
    CATEGORIES,
    HEIGHT,
    WIDTH,
    annotation_entry,
    image_entry,
    read_json,
    write_coco,
    write_json,
)
from PIL import Image

from harness.data.coco import CocoDetection, open_coco
from harness.data.detection_annotations import decode_rle, encode_rle
from harness.data.image_file import UnreadableFile
from harness.errors import DataError


def opened(root: Path, annotations: list[Any], *, masks: bool = True) -> CocoDetection:
    """The training images of a folder with these figures instead of its own."""
    write_json(root, "train2017", read_json(root) | {"annotations": annotations})
    return open_coco(root, "train", masks=masks)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco", train=3, val=2)


def test_images_come_with_their_figures_whatever_the_order_of_the_file(root: Path) -> None:
    content = read_json(root)
    write_json(root, "train2017", content | {"annotations": content["annotations"][::-1]})
    source = open_coco(root, "train", masks=True)
    assert len(source) == 3 and source.names == ("red", "green") and source.notes == ()
    for i in range(3):
        picture, instances = source.image_or_failure(i), source.instances(i)
        assert isinstance(picture, Image.Image) and instances.labels.tolist() == [i % 2]
        lit = np.asarray(picture)[:, :, i % 2] >= 180
        rows, columns = np.nonzero(lit)
        assert instances.boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
        assert instances.masks is not None
        assert np.array_equal(decode_rle(instances.masks, HEIGHT, WIDTH)[0] > 0, lit)
        assert instances.areas.tolist() == [lit.sum()] and not instances.is_crowd.any()


def test_masks_are_not_read_where_they_are_not_asked_for(root: Path) -> None:
    source = opened(root, [annotation_entry(0, [1, 1, 5, 5], 3, segmentation="nonsense")], masks=False)
    assert source.instances(0).masks is None and len(source.instances(0)) == 1


def test_polygons_and_both_ways_to_write_runs_are_one_mask(root: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:15, 8:20] = True
    packed = encode_rle(mask)
    columns = mask.T.ravel()
    changes = np.flatnonzero(np.diff(columns)) + 1
    counts = np.diff(np.concatenate([[0], changes, [columns.size]])).tolist()
    ways = [
        [[8, 5, 20, 5, 20, 15, 8, 15]],
        [[8, 5, 14, 5, 14, 15, 8, 15], [14, 5, 20, 5, 20, 15, 14, 15]],
        {"size": [HEIGHT, WIDTH], "counts": counts},
        {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()},
    ]
    source = opened(root, [annotation_entry(0, [8, 5, 12, 10], 3, segmentation=way) for way in ways])
    masks = source.instances(0).masks
    assert masks is not None
    assert all(np.array_equal(decoded, mask) for decoded in decode_rle(masks, HEIGHT, WIDTH) > 0)


def test_images_without_figures_stay_and_are_distinguished(root: Path) -> None:
    crowd = annotation_entry(1, [1, 1, 9, 9], 3, iscrowd=1)
    source = opened(root, [annotation_entry(2, [1, 1, 9, 9], 17), crowd])
    assert [len(source.instances(i)) for i in range(3)] == [0, 1, 1]
    assert source.instances(1).is_crowd.tolist() == [True]
    assert source.trainable().tolist() == [2]
    empty = source.instances(0)
    assert empty.boxes.shape == (0, 4) and empty.masks == () and decode_rle((), 4, 5).shape == (0, 4, 5)


def test_boxes_are_cut_at_the_border_and_those_outside_are_counted(root: Path) -> None:
    boxes: list[list[float]] = [
        [-5, -5, 10, 10],
        [40, 30, 99, 99],
        [WIDTH, 0, 5, 5],
        [3, 3, 0, 5],
        [3, 3, -2, 5],
        [float("nan"), 0, 1, 1],
    ]
    source = opened(root, [annotation_entry(0, box, 3) for box in boxes], masks=False)
    assert source.instances(0).boxes.tolist() == [[0, 0, 5, 5], [40, 30, WIDTH, HEIGHT]]
    assert source.notes == ("train: objects without an area inside the image, left out: 4",)


def test_polygons_of_two_corners_cover_nothing(root: Path) -> None:
    source = opened(root, [annotation_entry(0, [1, 1, 9, 9], 3, segmentation=part) for part in ([], [[1, 1, 2, 2]])])
    assert len(source.instances(0)) == 0 and source.notes[0].endswith("left out: 2")


def test_figures_of_images_that_have_no_entry_are_counted(root: Path) -> None:
    source = opened(root, [annotation_entry(0, [1, 1, 9, 9], 3), annotation_entry(77, [1, 1, 9, 9], 3)])
    assert source.notes == ("train: objects of images without an entry, left out: 1",)


def test_images_without_a_file_are_counted_with_their_figures(root: Path) -> None:
    (root / "train2017" / f"{1:012d}.png").unlink()
    source = open_coco(root, "train", masks=True)
    assert [source.instances(i).labels.tolist() for i in range(len(source))] == [[0], [0]]
    assert source.notes == ("train: images without a file, left out: 1 of 3 (000000000001.png first)",)


@pytest.mark.parametrize("kind", ["truncated", "grey", "CMYK", "other size", "turned"])
def test_odd_images(root: Path, kind: str) -> None:
    path = root / "train2017" / f"{0:012d}.png"
    with Image.open(path) as kept:
        image = kept.copy()
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "other size":
        image.resize((9, 9)).save(path)
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path, "JPEG", exif=exif)
    else:
        image.convert("L" if kind == "grey" else kind).save(path, "JPEG")
    picture = open_coco(root, "train", masks=True).image_or_failure(0)
    if kind in ("truncated", "other size"):
        assert isinstance(picture, UnreadableFile)
    else:
        assert isinstance(picture, Image.Image) and picture.mode == "RGB" and picture.size == (WIDTH, HEIGHT)


BROKEN: list[tuple[Any, str, str]] = [
    ({"bbox": [1, 2, 3]}, "`bbox` must be x, y, width, height", r"annotations\[0\]"),
    ({"bbox": "box"}, "annotations", r"annotations\[0\]"),
    ({"bbox": None}, "annotations", r"annotations\[0\]"),
    ({"category_id": 4}, "`category_id` must be a category's, but got 4", r"annotations\[0\]"),
    ({"image_id": [1]}, "annotations", r"annotations\[0\]"),
    ({"segmentation": 5}, "list of polygons, or runs", r"annotations\[0\]"),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "polygons, each a list", r"annotations\[0\]"),
    ({"segmentation": [["a"] * 6]}, "annotations", r"annotations\[0\]"),
    ({"segmentation": {"size": [3, 3], "counts": [9]}}, "of the image's size", r"annotations\[0\]"),
    ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [9]}}, "lengths that fill", r"annotations\[0\]"),
    ({"segmentation": {"counts": [9]}}, "`size` is missing", r"annotations\[0\]"),
]


@pytest.mark.parametrize(("change", "message", "place"), BROKEN)
def test_a_broken_annotation_is_reported_with_its_position(root: Path, change: Any, message: str, place: str) -> None:
    with pytest.raises(DataError, match=rf"{message}.*instances_train2017\.json: {place}"):
        opened(root, [annotation_entry(0, [1, 1, 9, 9], 3) | change])


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "segmentation"])
def test_a_missing_key_is_reported_with_its_position(root: Path, key: str) -> None:
    whole = annotation_entry(0, [1, 1, 9, 9], 3)
    with pytest.raises(DataError, match=rf"`{key}` is missing.*annotations\[1\]"):
        opened(root, [whole, {name: value for name, value in whole.items() if name != key}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [image_entry(0), image_entry(0)]}, r"id 10 is there twice.*images\[1\]"),
        ({"images": [{"id": 1}]}, r"`file_name` is missing.*images\[0\]"),
        ({"images": [image_entry(0, width=0)]}, r"sides must be above 0.*images\[0\]"),
        ({"images": [5]}, r"images\[0\]"),
        ({"images": [image_entry(7)]}, "none is"),
        ({"images": None}, "must hold a list `images`"),
        ({"categories": []}, "must name a class"),
        ({"categories": [*CATEGORIES, {"id": 9, "name": "red"}]}, r"is there twice.*categories\[2\]"),
        ({"annotations": {}}, "must hold a list `annotations`"),
    ],
)
def test_broken_lists_are_reported(root: Path, changes: dict[str, Any], message: str) -> None:
    write_json(root, "train2017", read_json(root) | changes)
    with pytest.raises(DataError, match=message):
        open_coco(root, "train", masks=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_broken_json_is_reported(root: Path, text: str) -> None:
    file = root / "annotations" / "instances_train2017.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="instances_train2017"):
        open_coco(root, "train", masks=False)


def test_a_folder_of_another_year_or_of_none_will_do(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    (root / "annotations" / "instances_val2017.json").rename(root / "annotations" / "instances_val.json")
    (root / "val2017").rename(root / "val")
    assert len(open_coco(root, "val", masks=False)) == 4


def test_a_folder_that_is_something_else_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must have one file annotations/instances_train\*\.json; there is none"):
        open_coco(tmp_path, "train", masks=False)
    root = write_coco(tmp_path / "coco")
    write_json(root, "train2014", {})
    with pytest.raises(DataError, match="there is 2 of them"):
        open_coco(root, "train", masks=False)
    (root / "val2017").rename(root / "elsewhere")
    with pytest.raises(DataError, match="existing folder"):
        open_coco(root, "val", masks=False)
