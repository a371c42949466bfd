"""Images whose shape and texture are of different classes, in a folder: `cat1-bicycle3.png` is a cat of bicycles.

The name holds the class of the shape with its number, and that of the texture with its own; anything up to a last `_`
may stand before. The files may lie in folders of any name. Such stimuli come with the paper's code
(rgeirhos/texture-vs-shape, `style-transfer-preprocessed-512`): 1,280 images, of which 80 have no conflict.
Source: Geirhos et al., "ImageNet-trained CNNs are biased towards texture" (ICLR 2019, arXiv 1811.12231).
"""

import re
from pathlib import Path
from typing import NamedTuple

from harness.data.cue_conflict_classes import NAMES
from harness.data.image_folder import ENDINGS
from harness.errors import DataError

STIMULUS = re.compile(r"(?:.*_)?([a-z]+)\d+-([a-z]+)\d+")
LAYOUT = "images named as cat1-bicycle3.png, shape first and texture second"


class Stimulus(NamedTuple):
    """One image."""

    path: Path
    shape: int
    """A class by its place in `sixteen.NAMES`."""
    texture: int


class Stimuli(NamedTuple):
    """What a folder holds."""

    conflicts: tuple[Stimulus, ...]
    """By path; shape and texture are of different classes."""
    agreeing: int
    """Stimuli whose shape and texture are of one class, which decide nothing."""
    misnamed: tuple[Path, ...]
    """Images that are named otherwise."""


def find_stimuli(folder: Path) -> Stimuli:
    """The stimuli in a folder and all folders below it. Raises `DataError` where there are none."""
    if not folder.is_dir():
        raise DataError("the stimuli must be in an existing folder", place=str(folder), remedy=f"Expected: {LAYOUT}.")
    named, misnamed = [], []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and not path.name.startswith("."):
            found = _read_name(path)
            named.append(found) if found else misnamed.append(path)
    conflicts = tuple(each for each in named if each.shape != each.texture)
    if not conflicts:
        other = f" ({len(misnamed)} images are named otherwise, {misnamed[0].name} first)" if misnamed else ""
        raise DataError(
            f"the folder must hold stimuli whose shape and texture are of different classes{other}",
            place=str(folder),
            remedy=f"Expected: {LAYOUT}. Classes: {', '.join(NAMES)}.",
        )
    return Stimuli(conflicts, agreeing=len(named) - len(conflicts), misnamed=tuple(misnamed))


def _read_name(path: Path) -> Stimulus | None:
    found = STIMULUS.fullmatch(path.stem)
    if found is None or not set(found.groups()) <= set(NAMES):
        return None
    shape, texture = (NAMES.index(name) for name in found.groups())
    return Stimulus(path, shape, texture)
