"""Cue-conflict images in a folder, whose shape and texture are of different classes, as `cat1-bicycle3.png`.

The name has the class of the shape with a number, then that of the texture with a number; a prefix that ends in `_` is
ignored. The files may be in subfolders of any name. Such stimuli come with the paper's code
(rgeirhos/texture-vs-shape, `style-transfer-preprocessed-512`): 1,280 images, of which 80 have no conflict.
Source: Geirhos et al., "ImageNet-trained CNNs are biased towards texture" (ICLR 2019, arXiv 1811.12231).

`SIXTEEN_CLASS_MEMBERS` are the 16 everyday classes of Geirhos et al., each with its classes of ImageNet-1K. These are
the WordNet synsets below the class's word that are among the 1000, without those that the authors removed manually,
most of them words with another sense (crane, kite, boxer, chow). The indices are facts of the authors' toolbox
(bethgelab/model-vs-human, MIT, `human_categories.py`), compared one by one: 207 of the 1000 belong to a class. They are
tested against the names that timm ships.
Source: Geirhos et al., "Generalisation in humans and deep neural networks" (NeurIPS 2018, arXiv 1808.08750).
"""

import re
from pathlib import Path
from typing import NamedTuple

from harness.data.image_folder import IMAGE_SUFFIXES
from harness.errors import DataError


def _without(first: int, last: int, *left_out: int) -> tuple[int, ...]:
    return tuple(i for i in range(first, last + 1) if i not in left_out)


SIXTEEN_CLASS_MEMBERS: dict[str, tuple[int, ...]] = {
    "airplane": (404,),
    "bear": (294, 295, 296, 297),
    "bicycle": (444, 671),
    "bird": (
        *_without(8, 24, 9, 17, 21),
        *_without(80, 100, 84, 85, 86, 97),
        *_without(127, 145, 134),
    ),
    "boat": (472, 554, 625, 814, 914),
    "bottle": (440, 720, 737, 898, 899, 901, 907),
    "car": (436, 511, 817),
    "cat": (281, 282, 283, 284, 285, 286),
    "chair": (423, 559, 765, 857),
    "clock": (409, 530, 892),
    "dog": _without(152, 268, 192, 204, 227, 242, 251, 258, 260, 264),
    "elephant": (385, 386),
    "keyboard": (508, 878),
    "knife": (499,),
    "oven": (766,),
    "truck": (555, 569, 656, 675, 717, 734, 864, 867),
}
"""Indices of ImageNet-1K's classes, in the usual order of its synsets, by each of the sixteen classes."""

SIXTEEN_CLASSES = tuple(SIXTEEN_CLASS_MEMBERS)

STIMULUS_NAME = re.compile(r"(?:.*_)?([a-z]+)\d+-([a-z]+)\d+")
STIMULI_LAYOUT = "images named as cat1-bicycle3.png, shape first and texture second"


class Stimulus(NamedTuple):
    """One cue-conflict image."""

    path: Path
    shape: int
    """Index of a class in `SIXTEEN_CLASSES`."""
    texture: int


class Stimuli(NamedTuple):
    """The stimuli of a folder."""

    conflicts: tuple[Stimulus, ...]
    """Stimuli whose shape and texture are of different classes, sorted by path."""
    agreeing: int
    """Number of stimuli whose shape and texture are of one class, which are not evaluated."""
    misnamed: tuple[Path, ...]
    """Images with a name of another form."""


def find_stimuli(folder: Path) -> Stimuli:
    """The stimuli in a folder and its subfolders. Raises `DataError` if there are none."""
    if not folder.is_dir():
        raise DataError(
            "the stimuli must be in an existing folder", place=str(folder), remedy=f"Expected: {STIMULI_LAYOUT}."
        )
    named, misnamed = [], []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            stimulus = _read_name(path)
            named.append(stimulus) if stimulus else misnamed.append(path)
    conflicts = tuple(stimulus for stimulus in named if stimulus.shape != stimulus.texture)
    if not conflicts:
        misnamed_text = f" ({len(misnamed)} images are named otherwise, {misnamed[0].name} first)" if misnamed else ""
        rule = f"the folder must hold stimuli whose shape and texture are of different classes{misnamed_text}"
        remedy = f"Expected: {STIMULI_LAYOUT}. Classes: {', '.join(SIXTEEN_CLASSES)}."
        raise DataError(rule, place=str(folder), remedy=remedy)
    return Stimuli(conflicts, agreeing=len(named) - len(conflicts), misnamed=tuple(misnamed))


def _read_name(path: Path) -> Stimulus | None:
    match = STIMULUS_NAME.fullmatch(path.stem)
    if match is None or not set(match.groups()) <= set(SIXTEEN_CLASSES):
        return None
    shape, texture = (SIXTEEN_CLASSES.index(name) for name in match.groups())
    return Stimulus(path, shape, texture)
