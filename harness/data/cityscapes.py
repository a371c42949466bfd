"""Cityscapes in the layout in which it is distributed: street scenes in 19 classes.

Source: Cordts et al., arXiv 1604.01685. Layout: `leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png`, and for each image
`gtFine/{train,val}/CITY/NAME_gtFine_labelIds.png`, with 34 labels of which 19 are classes, or
`NAME_gtFine_labelTrainIds.png`, with the classes themselves. If both exist, the latter is used.
"""

from pathlib import Path

import numpy as np

from harness.data.segmentation_files import (
    IGNORED,
    MASK_LEVELS,
    SegmentationFiles,
    image_files,
    random_subset,
    require_masks,
)

CITYSCAPES_LAYOUT = "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png with gtFine/{train,val}/CITY/*_gtFine_labelIds.png"
CLASSES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The classes in the order of their indices, and the label of each in `*_labelIds.png`."""
NAMES = tuple(CLASSES)
MAX_LABEL = 33
IMAGE, LABEL_IDS, TRAIN_IDS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


def open_cityscapes(root: Path, split: str, size: int | None) -> SegmentationFiles:
    """The images of `train` or `val`; no file is opened. Raises `DataError`s."""
    folder = root / "leftImg8bit" / split
    images = [path for path in image_files(folder, CITYSCAPES_LAYOUT) if path.name.endswith(IMAGE)]
    pairs = {path: _mask_of(root, split, path) for path in images}
    require_masks([path for path, mask in pairs.items() if mask is None], len(images), CITYSCAPES_LAYOUT)
    found = [(path, mask) for path, mask in pairs.items() if mask is not None]
    chosen = [found[i] for i in random_subset(len(found), size, f"{split}_size")]
    plain = [mask.name.endswith(TRAIN_IDS) for _, mask in chosen]
    return SegmentationFiles(
        chosen,
        [TRAIN_ID_CLASSES if is_plain else LABEL_ID_CLASSES for is_plain in plain],
        [len(NAMES) - 1 if is_plain else MAX_LABEL for is_plain in plain],
    )


def _mask_of(root: Path, split: str, image: Path) -> Path | None:
    folder, name = root / "gtFine" / split / image.parent.name, image.name.removesuffix(IMAGE)
    return next((path for end in (TRAIN_IDS, LABEL_IDS) if (path := folder / f"{name}{end}").is_file()), None)


def _table(labels: dict[int, int]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    table = np.full(MASK_LEVELS, IGNORED, np.uint8)
    for label, number in labels.items():
        table[label] = number
    return table


LABEL_ID_CLASSES = _table({label: number for number, label in enumerate(CLASSES.values())})
TRAIN_ID_CLASSES = _table({number: number for number in range(len(NAMES))})
