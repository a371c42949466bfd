"""Resolution of the image files and the coordinate frames of annotations in COCO's format, in which tools differ.

Tools write file names with their own folders, URL-encoded, or with backslashes; ids as texts in one list and as numbers
in another; and the sides of an image with EXIF rotation either as stored or as displayed.

Shapes: N images.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from harness.data.image_file import TURNED_SIDEWAYS, Unreadable, sides_of

MAX_CHECKED = 64
"""Number of images of a split whose EXIF is read, if nothing in the file indicates a rotated one."""
SLACK = 1.5
"""Pixels by which boxes of a valid file may exceed the image."""

Sides = tuple[int, int]
"""Width and height."""


def id_of(value: Any) -> str:
    """An id as a text, so that 7, 7.0 and "7" are equal. Raises `TypeError` for any other value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"an id must be a number or a text, but got {value!r}")
    return str(value).strip()


def sorted_ids(ids: Collection[str]) -> list[str]:
    """Sorted ids: numbers by value, then texts."""
    return sorted(ids, key=lambda text: (0, int(text), "") if re.fullmatch(r"-?\d+", text) else (1, 0, text))


def locate_image(name: str, present: Collection[str], folder: Path) -> str | None:
    """The file of a name, relative to the folder; None if there is none.

    The name is tried unchanged first, then without leading folders.
    """
    if name in present or ("/" in name and (folder / name).is_file()):
        return name
    for text in dict.fromkeys((name, unquote(name), unquote(name.partition("?")[0]))):
        parts = [part for part in re.split(r"[/\\]", text) if part not in ("", ".", "..")]
        for start in range(len(parts)):
            below = "/".join(parts[start:])
            if below in present or (start + 1 < len(parts) and (folder / below).is_file()):
                return below
    return None


@dataclass(frozen=True, slots=True)
class AnnotationFrames:
    """The coordinate frames of boxes and masks."""

    sides: NDArray[np.int64]
    """(N, 2): width and height of each."""
    stored: bool
    """Whether annotations ignore EXIF where it mirrors images or turns them by 180 degrees, which keeps the sides."""
    notes: tuple[str, ...]


def find_frames(paths: Sequence[Path], sides: NDArray[np.int64], extents: Mapping[int, Sides]) -> AnnotationFrames:
    """The frame of each image, from the sides of its entry and the largest x and y of its boxes.

    If boxes are outside the sides of their entries but inside the swapped ones, the entries of the split have width and
    height swapped, and the file's own sides are used if the boxes fit into them. Otherwise the entries are correct.
    """
    swapped = [i for i, extent in extents.items() if not _fits(extent, sides[i]) and _fits(extent, sides[i][::-1])]
    if not swapped:
        return AnnotationFrames(
            sides, *_check_orientation(paths, sides, range(0, len(paths), max(1, len(paths) // MAX_CHECKED)))
        )
    put_right = sides.copy()
    changed = []
    for i, path in enumerate(paths):
        entry, other = (int(sides[i][0]), int(sides[i][1])), (int(sides[i][1]), int(sides[i][0]))
        stored, viewed = _sides(path, entry)
        is_turned = entry == stored and viewed == other
        if (entry not in (stored, viewed) or is_turned) and other in (stored, viewed) and _fits(extents.get(i), other):
            put_right[i] = other
            changed.append(path.name)
    if not changed:
        return AnnotationFrames(sides, False, ())
    note = (
        f"width and height are swapped in {len(changed):,} entries ({changed[0]} first), as boxes outside of them "
        "show; the files' own sides are taken"
    )
    return AnnotationFrames(put_right, False, (note,))


def _fits(extent: Sides | None, sides: Sequence[int] | NDArray[np.int64]) -> bool:
    return extent is None or (extent[0] <= sides[0] + SLACK and extent[1] <= sides[1] + SLACK)


def _sides(path: Path, default: Sides) -> tuple[Sides, Sides]:
    """Sides of a file as stored and as displayed; the default for both if it cannot be read."""
    try:
        stored, orientation = sides_of(path)
    except Unreadable:
        return default, default
    return stored, stored[::-1] if orientation in TURNED_SIDEWAYS else stored


def _check_orientation(
    paths: Sequence[Path], sides: NDArray[np.int64], indices: Sequence[int]
) -> tuple[bool, tuple[str, ...]]:
    """Whether entries describe images as stored, and a note if that is unknown but relevant."""
    as_stored = as_viewed = unknown = 0
    for i in indices:
        try:
            stored, orientation = sides_of(paths[i])
        except Unreadable:
            continue
        viewed = stored[::-1] if orientation in TURNED_SIDEWAYS else stored
        as_stored += orientation != 1 and stored == tuple(sides[i]) != viewed
        as_viewed += orientation != 1 and viewed == tuple(sides[i]) != stored
        unknown += orientation != 1 and viewed == stored
    is_stored = as_stored > 0 and not as_viewed
    if not unknown or bool(as_stored) != bool(as_viewed):
        return is_stored, ()
    return is_stored, (
        f"{unknown:,} of {len(indices):,} images that were looked at are turned by their EXIF in a way that their "
        "sides do not show; boxes are taken as drawn on what viewers show",
    )
