"""COCO's format as tools write it: other frames, names and ids, and objects without polygons."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_folders import HEIGHT, WIDTH, read_json, write_coco, write_json
from detection_cases import job_of, recipe_of
from full_scale_cases import epochs_of, trained
from PIL import Image

from harness.data.coco import CocoDetection, open_coco
from harness.data.coco_files import locate_image, sorted_ids
from harness.data.detection import open_detection
from harness.data.detection_annotations import Instances, decode_rle
from harness.data.detection_transforms import DetectionSample
from harness.data.image_file import UnreadableFile
from harness.errors import DataError
from harness.models.heads.roi_heads import _has_mask
from harness.training.metrics.detection import Detections, detection_metrics

Change = Callable[[dict[str, list[dict[str, Any]]]], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco", train=6, val=3)


def change(root: Path, *changes: Change, splits: tuple[str, ...] = ("train2017", "val2017")) -> None:
    for split in splits:
        content = read_json(root, split)
        for edit in changes:
            edit(content)
        write_json(root, split, content)


def change_each(key: str, function: Callable[[dict[str, Any]], object]) -> Change:
    def changed(content: dict[str, list[dict[str, Any]]]) -> None:
        for entry in content[key]:
            function(entry)

    return changed


def swap(entry: dict[str, Any]) -> None:
    entry["width"], entry["height"] = entry["height"], entry["width"]


def tag(root: Path, orientation: int, back: Image.Transpose | None = None, which: slice = slice(None)) -> None:
    """Write the files with an orientation in their EXIF, their pixels as they are or turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for split in ("train2017", "val2017"):
        for path in sorted((root / split).iterdir())[which]:
            with Image.open(path) as kept:
                image = kept.copy()
            (image if back is None else image.transpose(back)).save(path, "PNG", exif=exif)


def is_right(source: CocoDetection, i: int) -> bool:
    """Whether the box and the mask lie where the picture is bright."""
    picture, instances = source.image_or_failure(i), source.instances(i)
    if isinstance(picture, UnreadableFile) or instances.masks is None:
        return False
    lit = np.asarray(picture)[:, :, int(instances.labels[0])] >= 180
    rows, columns = np.nonzero(lit)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return instances.boxes.tolist() == [box] and np.array_equal(
        decode_rle(instances.masks, picture.height, picture.width)[0] > 0, lit
    )


# --- frames


@pytest.mark.parametrize(
    "case", ["viewer", "raw", "some raw", "raw half turn", "swapped", "viewer, sides as stored", "upright"]
)
def test_figures_are_taken_in_the_frame_that_fits(root: Path, case: str) -> None:
    if case == "viewer":
        tag(root, 6, Image.Transpose.ROTATE_90)
    elif case == "raw":
        tag(root, 6)
    elif case == "some raw":
        tag(root, 6, which=slice(0, None, 2))
    elif case == "raw half turn":
        tag(root, 6, which=slice(0, None, 2))
        tag(root, 3, which=slice(1, None, 2))
    elif case == "swapped":
        change(root, change_each("images", swap))
        beyond(root)
    elif case == "viewer, sides as stored":
        tag(root, 6, Image.Transpose.ROTATE_90)
        change(root, change_each("images", swap))
        beyond(root)
    source = open_coco(root, "train", masks=True)
    assert all(is_right(source, i) for i in range(1, len(source)))
    assert any("swapped in" in note for note in source.notes) == (case in ("swapped", "viewer, sides as stored"))


def beyond(root: Path) -> None:
    """The first image of each split gets a box that is outside the swapped sides."""
    corner = [WIDTH - 6, 4, 5, 5]
    change(root, lambda content: content["annotations"][0].update(bbox=corner, segmentation=[polygon(corner)]))


def polygon(box: list[int]) -> list[int]:
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def test_sides_that_fit_no_frame_are_named(root: Path) -> None:
    change(root, change_each("images", swap))
    source = open_coco(root, "train", masks=False)
    lost = source.image_or_failure(0)
    assert isinstance(lost, UnreadableFile)
    assert lost.reason == f"of {WIDTH}x{HEIGHT} pixels, where the entry has {HEIGHT}x{WIDTH}"


def test_images_turned_upside_down_are_noted_where_nothing_tells_the_frame(root: Path) -> None:
    tag(root, 3)
    (note,) = open_coco(root, "train", masks=False).notes
    assert "6 of 6 images that were looked at are turned by their EXIF" in note and "viewers show" in note


# --- names and ids


@pytest.mark.parametrize(
    "name",
    [
        "train2017/{}",
        "images\\{}",
        "C:\\data\\images\\{}",
        "/home/somebody/images/{}",
        "../../images/{}",
        "/data/local-files/?d=set/{}",
        "https://example.org/set/{}?token=a/b",
    ],
)
def test_names_with_folders_of_another_machine_are_found(root: Path, name: str) -> None:
    change(root, change_each("images", lambda image: image.update(file_name=name.format(image["file_name"]))))
    source = open_coco(root, "train", masks=False)
    assert len(source) == 6 and isinstance(source.image_or_failure(0), Image.Image)
    (note,) = source.notes
    assert "file names that lead elsewhere, taken by what is in the folder: 6" in note


def test_url_encoded_names_are_found(tmp_path: Path) -> None:
    (tmp_path / "my cat.jpg").write_bytes(b"")
    (tmp_path / "100%25.jpg").write_bytes(b"")
    existing = {path.name for path in tmp_path.iterdir()}
    assert locate_image("data/my%20cat.jpg", existing, tmp_path) == "my cat.jpg"
    assert locate_image("100%25.jpg", existing, tmp_path) == "100%25.jpg"
    assert locate_image("dog.jpg", existing, tmp_path) is None


def test_two_names_that_lead_to_one_file_are_refused(root: Path) -> None:
    change(root, lambda content: content["images"][1].update(file_name="b/000000000000.png"))
    change(root, lambda content: content["images"][0].update(file_name="a/000000000000.png"))
    with pytest.raises(DataError, match=r"`file_name` leads to 000000000000\.png, and so does a/"):
        open_coco(root, "train", masks=False)


@pytest.mark.parametrize("keys", [("image_id",), ("image_id", "category_id"), ("bbox",)])
def test_ids_and_numbers_as_texts_are_those_of_the_numbers(root: Path, keys: tuple[str, ...]) -> None:
    def as_texts(entry: dict[str, Any]) -> None:
        for key in keys:
            entry[key] = [str(value) for value in entry[key]] if key == "bbox" else str(entry[key])

    change(root, change_each("annotations", as_texts))
    source = open_coco(root, "train", masks=True)
    assert source.notes == () and all(is_right(source, i) for i in range(6))


def test_ids_of_images_and_categories_as_texts(root: Path) -> None:
    change(root, change_each("images", lambda image: image.update(id=str(image["id"]))))
    change(root, change_each("categories", lambda category: category.update(id=str(category["id"]))))
    source = open_coco(root, "train", masks=True)
    assert source.names == ("red", "green") and all(is_right(source, i) for i in range(6))
    assert sorted_ids(["10", "9", "b", "a"]) == ["9", "10", "a", "b"]


# --- objects without polygons


def unmasked(entry: dict[str, Any]) -> None:
    if entry["image_id"] % 2:
        entry["segmentation"] = []


def test_figures_without_polygons_stay_among_the_boxes(root: Path) -> None:
    change(root, change_each("annotations", unmasked))
    source = open_coco(root, "train", masks=True)
    assert [len(source.instances(i)) for i in range(6)] == [1] * 6
    assert [source.instances(i).has_mask.tolist() for i in range(2)] == [[True], [False]]
    (note,) = source.notes
    assert "objects without a mask (no polygon of three corners): 3 of 6; they count for boxes" in note
    picture = source.image_or_failure(1)
    assert isinstance(picture, Image.Image)
    assert DetectionSample.of(picture, source.instances(1)).flip().resize(20, 40).target()["has_mask"].tolist() == [
        False
    ]


def test_unknown_masks_count_neither_for_nor_against_mask_ap() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32)
    both = Instances(boxes, np.zeros(2, np.int64), np.array([100, 400], np.float32), np.zeros(2, bool), masks(boxes))
    half = replace(both, lacks_mask=LAST)
    wrong = Detections(
        boxes, np.zeros(2, np.int64), np.array([0.5, 0.9], np.float32), masks(boxes - [[0] * 4, [0, 0, 12, 0]])
    )
    metrics = dict(detection_metrics([wrong], [both], ("a",), masks=True))
    assert metrics["ap50"] == pytest.approx(100) and metrics["mask_ap50"] < 60
    metrics = dict(detection_metrics([wrong], [half], ("a",), masks=True))
    assert metrics["ap50"] == pytest.approx(100)
    assert metrics["mask_ap50"] == pytest.approx(100)


LAST = np.array([False, True])


def masks(boxes: np.ndarray) -> tuple[Any, ...]:
    from harness.data.detection_annotations import encode_rle

    packed = []
    for x0, y0, x1, y1 in boxes.astype(int).tolist():
        mask = np.zeros((50, 50), bool)
        mask[y0:y1, x0:x1] = True
        packed.append(encode_rle(mask))
    return tuple(packed)


def test_a_mask_that_is_unknown_is_not_learnt() -> None:
    assert _has_mask({"boxes": torch.zeros(2, 4)}).tolist() == [True, True]
    assert _has_mask({"boxes": torch.zeros(0, 4)}).tolist() == [False]
    assert _has_mask({"boxes": torch.zeros(2, 4), "has_mask": torch.tensor(LAST)}).tolist() == [False, True]


def test_a_training_on_half_of_the_polygons_has_both_precisions(root: Path, tmp_path: Path) -> None:
    change(root, change_each("annotations", unmasked))
    recipe = recipe_of("mask_rcnn", epochs=1, data={"dataset": "coco"})
    (epoch,) = epochs_of(trained(job_of(tmp_path / "run", recipe, root=root)))
    assert epoch.val is not None and {"ap", "mask_ap"} <= set(epoch.val.metrics) and epoch.val.images == 3


# --- nothing to find


@pytest.mark.parametrize(
    ("kind", "function", "reason"),
    [
        ("mask_rcnn", lambda annotation: annotation.update(segmentation=[]), "without a mask .*: 6.*learns no masks"),
        ("mask_rcnn", lambda annotation: annotation.update(segmentation=[[1, 2, 3, 4]]), "without a mask .*: 6"),
        ("fcos", lambda annotation: annotation.update(iscrowd=1), "marked as crowds .*: 6"),
        ("fcos", lambda annotation: annotation.update(image_id="x"), "of images without an entry, left out: 6"),
        ("fcos", lambda annotation: annotation.update(bbox=[3, 3, 0, 0]), "without an area .*: 6"),
    ],
)
def test_a_set_without_a_figure_is_refused_with_the_reason(
    root: Path, tmp_path: Path, kind: str, function: Callable[[dict[str, Any]], None], reason: str
) -> None:
    change(root, change_each("annotations", function), splits=("train2017",))
    with pytest.raises(DataError, match=f"must have an object that is no crowd.*6 images.*{reason}"):
        open_detection(recipe_of(kind, data={"dataset": "coco"}), root, tmp_path)


def test_validation_images_of_crowds_alone_are_refused(root: Path, tmp_path: Path) -> None:
    change(root, change_each("annotations", lambda annotation: annotation.update(iscrowd=1)), splits=("val2017",))
    with pytest.raises(DataError, match=r"no crowd.*val2017.*marked as crowds .*: 3"):
        open_detection(recipe_of(data={"dataset": "coco"}), root, tmp_path)


def test_more_than_a_tenth_of_unreadable_images_is_an_error_with_the_reason(root: Path, tmp_path: Path) -> None:
    for path in sorted((root / "val2017").iterdir()):
        path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(DataError, match=r"at most 10 % of the validation images.*3 of 3.*truncated"):
        trained(job_of(tmp_path / "run", recipe_of(epochs=1, data={"dataset": "coco"}), root=root))
