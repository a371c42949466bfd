"""Data in COCO's format (arXiv 1405.0312), in a folder as it is distributed: figures in JSON, images beside it.

What was read is kept as arrays, for there are 860,000 figures in COCO's training images: a figure as a Python mapping
would take thirty times the memory, in each of the processes that read images.
"""

import json
import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.figures import Figures
from harness.data.imagefolder import open_image
from harness.data.outlines import Outlines, OutlinesBuilder
from harness.errors import DataError

LAYOUT = (
    "annotations/instances_train2017.json and annotations/instances_val2017.json, images in train2017 and val2017 "
    "(another year, or none, will do)"
)
BOX = 4
"""Numbers of a box: x, y, width, height."""


@dataclass(frozen=True, slots=True, eq=False)
class CocoScenes:
    """The images of a split; see `harness.data.figures.Scenes`."""

    paths: tuple[Path, ...]
    sides: NDArray[np.int64]
    """(N, 2): width and height of each image as its entry has them."""
    first: NDArray[np.int64]
    """(N + 1,): where the figures of an image begin, in the arrays below."""
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    areas: NDArray[np.float32]
    crowds: NDArray[np.bool_]
    outlines: Outlines | None
    names: tuple[str, ...]
    """The classes, in the order of their ids."""
    notes: tuple[str, ...]
    """What a person should be told."""

    def __len__(self) -> int:
        return len(self.paths)

    def picture(self, i: int) -> Image.Image | None:
        """An image in colour; None too where its sides are not those that its figures were drawn for."""
        picture = open_image(self.paths[i])
        return picture if picture is not None and picture.size == tuple(self.sides[i]) else None

    def figures(self, i: int) -> Figures:
        """What is in it, crowds among it."""
        which = slice(int(self.first[i]), int(self.first[i + 1]))
        masks = None
        if self.outlines is not None:
            width, height = self.sides[i].tolist()
            masks = tuple(self.outlines.runs(each, height, width) for each in range(which.start, which.stop))
        return Figures(self.boxes[which], self.labels[which], self.areas[which], self.crowds[which], masks)

    def trainable(self) -> NDArray[np.int64]:
        """The images that have a figure besides crowds, ascending."""
        counted = np.concatenate([[0], np.cumsum(~self.crowds)])
        return np.flatnonzero(np.diff(counted[self.first]))


def open_coco(root: Path, split: Literal["train", "val"], *, masks: bool) -> CocoScenes:
    """The images of a split and their figures; masks only where they are asked for.

    Boxes are cut at the border. Left out, and told in the notes: boxes without an area, figures of images that have no
    entry, images that have no file. Raises `DataError` for what is not as the format says. What was opened last is
    kept: a process that says what it will train opens the same again to train it.
    """
    file, folder = _places(root, split)
    stamps = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in (file, folder))
    return _opened(file, folder, split, masks, stamps)


@lru_cache(maxsize=2)
def _opened(file: Path, folder: Path, split: str, masks: bool, _: tuple[tuple[int, int], ...]) -> CocoScenes:
    """The images of a file in a folder, as they are at the time of the stamps."""
    content = _read(file)
    names, label_of = _classes(content, file)
    images, lost = _images(content, file, folder)
    rows = _Rows(images, {entry["id"] for entry in content["images"]}, label_of, masks)
    _figures(content, file, rows)
    order = sorted(range(len(rows.images)), key=rows.images.__getitem__)  # stable: as in the file, image by image
    counts = np.bincount(rows.images, minlength=len(images))
    return CocoScenes(
        paths=tuple(folder / image.name for image in images.values()),
        sides=np.array([image.sides for image in images.values()], np.int64).reshape(-1, 2),
        first=np.concatenate([[0], np.cumsum(counts)]),
        boxes=np.array([rows.boxes[i] for i in order], np.float32).reshape(-1, BOX),
        labels=np.array([rows.labels[i] for i in order], np.int64),
        areas=np.array([rows.areas[i] for i in order], np.float32),
        crowds=np.array([rows.crowds[i] for i in order], bool),
        outlines=rows.outlines.build(order) if masks else None,
        names=names,
        notes=tuple(f"{split}: {note}" for note in (*lost, *rows.notes())),
    )


@dataclass(frozen=True, slots=True)
class _Image:
    number: int
    """Among those that are kept."""
    name: str
    sides: tuple[int, int]


class _Rows:
    """The figures of images that are kept, in the order of the file."""

    def __init__(self, images: Mapping[Any, _Image], known: Set[Any], label_of: Mapping[int, int], masks: bool) -> None:
        self._all, self._known, self._label_of, self._masks = images, known, label_of, masks
        self.images: list[int] = []
        self.boxes: list[tuple[float, ...]] = []
        self.labels: list[int] = []
        self.areas: list[float] = []
        self.crowds: list[bool] = []
        self.outlines = OutlinesBuilder()
        self._strangers = self._without_area = 0

    def take(self, entry: Mapping[str, Any]) -> None:
        """Take a figure, or leave it out. Raises `KeyError`, `TypeError` or `ValueError` for no figure."""
        image, label = self._all.get(entry["image_id"]), self._label_of.get(entry["category_id"])
        box = [float(number) for number in entry["bbox"]]
        if len(box) != BOX or label is None:
            what = "`bbox` must be x, y, width, height" if label is not None else "`category_id` must be a category's"
            raise ValueError(f"{what}, but got {entry['bbox' if label is not None else 'category_id']}")
        area, is_crowd = float(entry.get("area", box[2] * box[3])), bool(entry.get("iscrowd", 0))
        if image is None:
            self._strangers += entry["image_id"] not in self._known
            return
        corners = _corners(box, image.sides)
        if corners is None or (self._masks and not self.outlines.add(entry["segmentation"], image.sides)):
            self._without_area += 1
            return
        self.images.append(image.number)
        self.boxes.append(corners)
        self.labels.append(label)
        self.areas.append(area)
        self.crowds.append(is_crowd)

    def notes(self) -> list[str]:
        """What to tell of those that were left out."""
        kinds = {"of images without an entry": self._strangers, "without an area inside the image": self._without_area}
        return [f"figures {kind}, left out: {count:,}" for kind, count in kinds.items() if count]


def annotations_of(root: Path) -> list[Path]:
    """The files of figures of both splits. Raises `DataError`."""
    return [_places(root, split)[0] for split in ("train", "val")]


def _places(root: Path, split: str) -> tuple[Path, Path]:
    """The file of a split's figures, and the folder of its images."""
    found = sorted((root / "annotations").glob(f"instances_{split}*.json"))
    if len(found) != 1:
        what = f"{len(found)} of them" if found else "none"
        raise DataError(
            f"the folder must have one file annotations/instances_{split}*.json; there is {what}",
            place=str(root),
            remedy=f"Expected: {LAYOUT}.",
        )
    folder = root / found[0].stem.removeprefix("instances_")
    if not folder.is_dir():
        rule = f"the images of `{split}` must be in an existing folder"
        raise DataError(rule, place=str(folder), remedy=f"Expected: {LAYOUT}.")
    return found[0], folder


def _read(file: Path) -> dict[str, list[Any]]:
    try:
        content: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the file must be readable JSON: {error}", place=str(file)) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"the file must hold a list `{key}`, as COCO's format says", place=str(file))
    lists: dict[str, list[Any]] = content
    return lists


def _wrong(file: Path, key: str, i: int, error: Exception) -> DataError:
    """What to say of an entry that could not be made out."""
    said = f"`{error.args[0]}` is missing" if isinstance(error, KeyError) and error.args else str(error)
    return DataError(f"every entry of `{key}` must be as COCO's format says: {said}", place=f"{file}: {key}[{i}]")


def _classes(content: dict[str, list[Any]], file: Path) -> tuple[tuple[str, ...], dict[int, int]]:
    """The names by id, and the label of each id; ids may have gaps."""
    by_id: dict[int, str] = {}
    for i, entry in enumerate(content["categories"]):
        try:
            number, name = int(entry["id"]), str(entry["name"])
            if number in by_id or name in by_id.values():
                raise ValueError(f"id {number} or name {name!r} is there twice")
        except (KeyError, TypeError, ValueError) as error:
            raise _wrong(file, "categories", i, error) from error
        by_id[number] = name
    if not by_id:
        raise DataError("`categories` must name a class at least", place=str(file))
    ids = sorted(by_id)
    return tuple(by_id[number] for number in ids), {number: label for label, number in enumerate(ids)}


def _images(content: dict[str, list[Any]], file: Path, folder: Path) -> tuple[dict[Any, _Image], list[str]]:
    """The images by id, without those that have no file, and what to tell of these."""
    found: dict[Any, _Image] = {}
    lost: list[str] = []
    seen: set[Any] = set()
    there = {path.name for path in folder.iterdir()}
    for i, entry in enumerate(content["images"]):
        try:
            number, name, sides = entry["id"], str(entry["file_name"]), (int(entry["width"]), int(entry["height"]))
            if number in seen or min(sides) < 1:
                raise ValueError(f"id {number} is there twice" if number in seen else f"sides must be above 0: {sides}")
        except (KeyError, TypeError, ValueError) as error:
            raise _wrong(file, "images", i, error) from error
        seen.add(number)
        if name in there or ("/" in name and (folder / name).is_file()):
            found[number] = _Image(len(found), name, sides)
        else:
            lost.append(name)
    if not found:
        rule = f"the images of {file.name} must be in this folder; none is"
        raise DataError(rule, place=str(folder), remedy=f"Expected: {LAYOUT}.")
    note = f"images without a file, left out: {len(lost):,} of {len(seen):,} ({lost[0]} first)" if lost else None
    return found, [note] if note else []


def _figures(content: dict[str, list[Any]], file: Path, rows: _Rows) -> None:
    """Have the rows take all figures."""
    for i, entry in enumerate(content["annotations"]):
        try:
            rows.take(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise _wrong(file, "annotations", i, error) from error


def _corners(box: list[float], sides: tuple[int, int]) -> tuple[float, ...] | None:
    """x0, y0, x1, y1, cut at the border of the image; None where nothing is left."""
    if not all(map(math.isfinite, box)):
        return None
    (x, y, width, height), (right, bottom) = box, sides
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + width, right), min(y + height, bottom)
    left, top, right_kept, bottom_kept = map(np.float32, (x0, y0, x1, y1))  # rounded, as they are kept
    return (x0, y0, x1, y1) if right_kept > left and bottom_kept > top else None
