"""Data in COCO's format and layout (arXiv 1405.0312): annotations in JSON files, and folders of images.

Annotations are stored as arrays: COCO's training images have 860,000 instances, and a Python mapping per instance would
take thirty times the memory, in each of the processes that read images.
"""

import json
import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.coco_files import Sides, find_frames, id_of, locate_image, sorted_ids
from harness.data.detection_annotations import Instances, Polygons, PolygonsBuilder
from harness.data.image_file import Unreadable, UnreadableFile, ValueRange, decode_image, read_sampled_value_range
from harness.errors import DataError

COCO_LAYOUT = (
    "annotations/instances_train2017.json and annotations/instances_val2017.json, images in train2017 and val2017 "
    "(another year, or none, will do)"
)
BOX = 4
"""Number of values of a box: x, y, width, height."""


@dataclass(frozen=True, slots=True, eq=False)
class CocoDetection:
    """The images of a split; see `harness.data.detection_annotations.DetectionSource`."""

    paths: tuple[Path, ...]
    sides: NDArray[np.int64]
    """(N, 2): width and height of each image, in the frame in which its instances are annotated."""
    first_instance: NDArray[np.int64]
    """(N + 1,): index of each image's first instance in the arrays below."""
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    areas: NDArray[np.float32]
    is_crowd: NDArray[np.bool_]
    outlines: Polygons | None
    names: tuple[str, ...]
    """The classes, in the order of their ids."""
    notes: tuple[str, ...]
    """Messages for the user about the data."""
    lacks_mask: NDArray[np.bool_]
    """Which instances have no mask although masks are requested; their box is used instead."""
    is_stored: bool
    """Whether annotations are for images as stored, without EXIF rotation, if the sides do not decide it."""
    levels: ValueRange
    """Range of the images' values."""

    def __len__(self) -> int:
        return len(self.paths)

    def image_or_failure(self, i: int) -> Image.Image | UnreadableFile:
        """An image in color, or why it cannot be used: unreadable, or its sides differ from those of its annotation."""
        try:
            return self._read(i)
        except Unreadable as error:
            return UnreadableFile(self.paths[i], str(error))

    def _read(self, i: int) -> Image.Image:
        """The image as stored or as turned by EXIF, whichever has the sides of its annotation."""
        picture = decode_image(self.paths[i], self.levels)
        sides = tuple(self.sides[i].tolist())
        if picture.stored_sides == sides and (picture.image.size != sides or self.is_stored):
            return decode_image(self.paths[i], self.levels, turns=False).image
        if picture.image.size != sides:
            actual = "x".join(map(str, picture.image.size))
            raise Unreadable(f"of {actual} pixels, where the entry has {sides[0]}x{sides[1]}")
        return picture.image

    def instances(self, i: int) -> Instances:
        """The instances of an image, crowds included."""
        rows = slice(int(self.first_instance[i]), int(self.first_instance[i + 1]))
        masks = None
        if self.outlines is not None:
            width, height = self.sides[i].tolist()
            masks = tuple(self.outlines.rle(row, height, width) for row in range(rows.start, rows.stop))
        maskless = None if masks is None else self.lacks_mask[rows]
        return Instances(self.boxes[rows], self.labels[rows], self.areas[rows], self.is_crowd[rows], masks, maskless)

    def trainable(self) -> NDArray[np.int64]:
        """Sorted indices of the images that have an instance that is no crowd."""
        counted = np.concatenate([[0], np.cumsum(~self.is_crowd)])
        return np.flatnonzero(np.diff(counted[self.first_instance]))


def open_coco(root: Path, split: Literal["train", "val"], *, masks: bool) -> CocoDetection:
    """The images of a split and their instances; with masks only if `masks`.

    Boxes are clipped to the image. Left out, with a note: boxes without an area, instances of images without an entry,
    and images without a file. Raises `DataError` for files that violate the format. The last results are cached, since
    a process opens the same files to describe a training and again to train.
    """
    file, folder = _places(root, split)
    stamps = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in (file, folder))
    return _opened(file, folder, split, masks, stamps)


@lru_cache(maxsize=2)
def _opened(file: Path, folder: Path, split: str, masks: bool, _: tuple[tuple[int, int], ...]) -> CocoDetection:
    """The images of an annotation file and a folder; the stamps are part of the cache's key."""
    content = _read(file)
    names, label_of = _classes(content, file)
    images, image_notes = _images(content, file, folder)
    paths = tuple(folder / image.name for image in images.values())
    sides = np.array([image.sides for image in images.values()], np.int64).reshape(-1, 2)
    frames = find_frames(paths, sides, _extents(content, images))
    sides_of_images: list[Sides] = [(width, height) for width, height in frames.sides.tolist()]
    images = {key: replace(image, sides=sides_of_images[image.number]) for key, image in images.items()}
    rows = _InstanceTable(images, {id_of(entry["id"]) for entry in content["images"]}, label_of, masks)
    _read_instances(content, file, rows)
    rows.finish()
    levels = read_sampled_value_range(paths)
    notes = (*image_notes, *frames.notes, *rows.notes(), *([] if levels.about is None else [levels.about]))
    order = sorted(range(len(rows.images)), key=rows.images.__getitem__)  # stable: the file's order by image
    counts = np.bincount(rows.images, minlength=len(images))
    return CocoDetection(
        paths=paths,
        sides=frames.sides,
        first_instance=np.concatenate([[0], np.cumsum(counts)]),
        boxes=np.array([rows.boxes[i] for i in order], np.float32).reshape(-1, BOX),
        labels=np.array([rows.labels[i] for i in order], np.int64),
        areas=np.array([rows.areas[i] for i in order], np.float32),
        is_crowd=np.array([rows.crowds[i] for i in order], bool),
        outlines=rows.outlines.build(order) if masks else None,
        names=names,
        notes=tuple(f"{split}: {note}" for note in notes),
        lacks_mask=np.array([rows.maskless[i] for i in order], bool),
        is_stored=frames.stored,
        levels=levels,
    )


@dataclass(frozen=True, slots=True)
class _Image:
    number: int
    """Index among the images that are used."""
    name: str
    sides: tuple[int, int]


class _InstanceTable:
    """The instances of the images that are used, in the order of the file."""

    def __init__(
        self, images: Mapping[str, _Image], image_ids: Set[str], label_of: Mapping[str, int], masks: bool
    ) -> None:
        self._all, self._image_ids, self._label_of, self._masks = images, image_ids, label_of, masks
        self.images: list[int] = []
        self.boxes: list[tuple[float, ...]] = []
        self.labels: list[int] = []
        self.areas: list[float] = []
        self.crowds: list[bool] = []
        self.maskless: list[bool] = []
        self.outlines = PolygonsBuilder()
        self._never_masked = 0
        self._strangers = self._without_area = 0

    def take(self, entry: Mapping[str, Any]) -> None:
        """Add an instance, or leave it out. Raises `KeyError`, `TypeError` or `ValueError` for an invalid entry."""
        key = id_of(entry["image_id"])
        image, label = self._all.get(key), self._label_of.get(id_of(entry["category_id"]))
        box = [float(number) for number in entry["bbox"]]
        if len(box) != BOX or label is None:
            rule = "`bbox` must be x, y, width, height" if label is not None else "`category_id` must be a category's"
            raise ValueError(f"{rule}, but got {entry['bbox' if label is not None else 'category_id']}")
        area, is_crowd = float(entry.get("area", box[2] * box[3])), bool(entry.get("iscrowd", 0))
        if image is None:
            self._strangers += key not in self._image_ids
            return
        corners = _corners(box, image.sides)
        if corners is None:
            self._without_area += 1
            return
        is_maskless = self._masks and not self.outlines.add(entry["segmentation"], image.sides)
        if is_maskless:
            self.outlines.add_box(corners)
        self.maskless.append(is_maskless)
        self.images.append(image.number)
        self.boxes.append(corners)
        self.labels.append(label)
        self.areas.append(area)
        self.crowds.append(is_crowd)

    def finish(self) -> None:
        """Leave out all instances if masks are requested and none has one: masks could not be learned."""
        if self._masks and self.maskless and all(self.maskless):
            self._never_masked = len(self.maskless)
            for column in (self.images, self.boxes, self.labels, self.areas, self.crowds, self.maskless):
                column.clear()

    def notes(self) -> list[str]:
        """Notes on the instances that were left out, and on those without a mask."""
        kinds = {
            "of images without an entry": self._strangers,
            "without an area inside the image": self._without_area,
            "without a mask (no polygon of three corners), as all are": self._never_masked,
        }
        notes = [f"objects {kind}, left out: {count:,}" for kind, count in kinds.items() if count]
        if sum(self.maskless):
            notes.append(
                f"objects without a mask (no polygon of three corners): {sum(self.maskless):,} of "
                f"{len(self.maskless):,}; they count for boxes, and neither for nor against masks"
            )
        return notes


def annotation_files(root: Path) -> tuple[Path, ...]:
    """The annotation files of both splits. Raises `DataError`."""
    return tuple(_places(root, split)[0] for split in ("train", "val"))


def _places(root: Path, split: str) -> tuple[Path, Path]:
    """The annotation file of a split, and the folder of its images. Raises `DataError`."""
    paths = sorted((root / "annotations").glob(f"instances_{split}*.json"))
    if len(paths) != 1:
        count = f"{len(paths)} of them" if paths else "none"
        rule = f"the folder must have one file annotations/instances_{split}*.json; there is {count}"
        raise DataError(rule, place=str(root), remedy=f"Expected: {COCO_LAYOUT}.")
    folder = root / paths[0].stem.removeprefix("instances_")
    if not folder.is_dir():
        rule = f"the images of `{split}` must be in an existing folder"
        raise DataError(rule, place=str(folder), remedy=f"Expected: {COCO_LAYOUT}.")
    return paths[0], folder


def _read(file: Path) -> dict[str, list[Any]]:
    try:
        content: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the file must be readable JSON: {error}", place=str(file)) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"the file must hold a list `{key}`, as in COCO's format", place=str(file))
    lists: dict[str, list[Any]] = content
    return lists


def _wrong(file: Path, key: str, i: int, error: Exception) -> DataError:
    """The error for an invalid entry."""
    output = f"`{error.args[0]}` is missing" if isinstance(error, KeyError) and error.args else str(error)
    return DataError(f"every entry of `{key}` must be in COCO's format: {output}", place=f"{file}: {key}[{i}]")


def _classes(content: dict[str, list[Any]], file: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names in the order of the ids, and the label of each id; ids may have gaps."""
    by_id: dict[str, str] = {}
    for i, entry in enumerate(content["categories"]):
        try:
            number, name = id_of(entry["id"]), str(entry["name"])
            if number in by_id or name in by_id.values():
                raise ValueError(f"id {number} or name {name!r} is there twice")
        except (KeyError, TypeError, ValueError) as error:
            raise _wrong(file, "categories", i, error) from error
        by_id[number] = name
    if not by_id:
        raise DataError("`categories` must name a class at least", place=str(file))
    ids = sorted_ids(by_id)
    return tuple(by_id[number] for number in ids), {number: label for label, number in enumerate(ids)}


def _images(content: dict[str, list[Any]], file: Path, folder: Path) -> tuple[dict[str, _Image], list[str]]:
    """The images by id, without those that have no file, and notes."""
    images: dict[str, _Image] = {}
    absent: list[str] = []
    elsewhere: dict[str, str] = {}
    names: set[str] = set()
    present = {path.name for path in folder.iterdir()}
    for i, entry in enumerate(content["images"]):
        try:
            number, name = id_of(entry["id"]), str(entry["file_name"])
            sides = int(entry["width"]), int(entry["height"])
            if number in names or min(sides) < 1:
                raise ValueError(
                    f"id {number} is there twice" if number in names else f"sides must be above 0: {sides}"
                )
            file_name = locate_image(name, present, folder)
            if file_name is not None and file_name != name:
                if file_name in elsewhere:
                    raise ValueError(f"`file_name` leads to {file_name}, and so does {elsewhere[file_name]}: {name}")
                elsewhere[file_name] = name
        except (KeyError, TypeError, ValueError) as error:
            raise _wrong(file, "images", i, error) from error
        names.add(number)
        if file_name is not None:
            images[number] = _Image(len(images), file_name, sides)
        else:
            absent.append(name)
    if not images:
        rule = f"the images of {file.name} must be in this folder; none is"
        remedy = f"The first is called {absent[0]}. " if absent else ""
        raise DataError(rule, place=str(folder), remedy=f"{remedy}Expected: {COCO_LAYOUT}.")
    note = f"images without a file, left out: {len(absent):,} of {len(names):,} ({absent[0]} first)" if absent else None
    moved = next(iter(elsewhere.items()), None)
    where = f"file names that lead elsewhere, taken by what is in the folder: {len(elsewhere):,}"
    named = [f"{where} ({moved[1]} as {moved[0]})"] if moved else []
    return images, [*([note] if note else []), *named]


def _extents(content: dict[str, list[Any]], images: Mapping[str, _Image]) -> dict[int, Sides]:
    """The largest x and y of the boxes of each image; invalid boxes are skipped here and reported later."""
    extents: dict[int, Sides] = {}
    for entry in content["annotations"]:
        try:
            image = images.get(id_of(entry["image_id"]))
            x, y, width, height = map(float, entry["bbox"])
        except (KeyError, TypeError, ValueError):
            continue
        if image is not None and width > 0 and height > 0 and math.isfinite(x + y + width + height):
            right, bottom = extents.get(image.number, (0, 0))
            extents[image.number] = max(right, math.ceil(x + width)), max(bottom, math.ceil(y + height))
    return extents


def _read_instances(content: dict[str, list[Any]], file: Path, rows: _InstanceTable) -> None:
    """Add all instances to the table. Raises `DataError` for an invalid entry."""
    for i, entry in enumerate(content["annotations"]):
        try:
            rows.take(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise _wrong(file, "annotations", i, error) from error


def _corners(box: list[float], sides: tuple[int, int]) -> tuple[float, ...] | None:
    """x0, y0, x1, y1, clipped to the image; None if nothing is left."""
    if not all(map(math.isfinite, box)):
        return None
    (x, y, width, height), (right, bottom) = box, sides
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + width, right), min(y + height, bottom)
    left, top, right_kept, bottom_kept = map(np.float32, (x0, y0, x1, y1))  # rounded, as they are stored
    return (x0, y0, x1, y1) if right_kept > left and bottom_kept > top else None
