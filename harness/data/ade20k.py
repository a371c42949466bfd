"""ADE20K in the layout of the 2016 challenge: scenes in 150 classes.

Source: Zhou et al., arXiv 1608.05442. Layout: `images/{training,validation}/NAME.jpg` and
`annotations/{training,validation}/NAME.png`, in which 0 means any other class, and 1 to 150 are the classes. Their
names are those of `objectInfo150.txt`, if that file is in the same folder.
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
from harness.errors import DataError

ADE20K_LAYOUT = "images/{training,validation}/*.jpg with annotations/{training,validation}/*.png of the same names"
FOLDERS = {"train": "training", "val": "validation"}
CLASSES = 150
INFO = "objectInfo150.txt"


def open_ade20k(root: Path, split: str, size: int | None) -> SegmentationFiles:
    """The images of `train` or `val`; no file is opened. Raises `DataError`s."""
    masks = root / "annotations" / FOLDERS[split]
    images = image_files(root / "images" / FOLDERS[split], ADE20K_LAYOUT)
    pairs = [(path, masks / f"{path.stem}.png") for path in images]
    require_masks([path for path, mask in pairs if not mask.is_file()], len(images), ADE20K_LAYOUT)
    chosen = [pairs[i] for i in random_subset(len(pairs), size, f"{split}_size")]
    return SegmentationFiles(chosen, [ANNOTATION_CLASSES] * len(chosen), [CLASSES] * len(chosen))


def read_class_names(root: Path) -> tuple[str, ...]:
    """Names of the classes, the first one of each line; numbered names if there is no file. Raises `DataError`."""
    path = root / INFO
    if not path.is_file():
        return tuple(f"class {number}" for number in range(1, CLASSES + 1))
    _, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = tuple(line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip())
    if len(names) != CLASSES:
        raise DataError(f"the file must name {CLASSES} classes after its first line", value=len(names), place=str(path))
    return names


def _table() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    table = np.full(MASK_LEVELS, IGNORED, np.uint8)
    table[1 : CLASSES + 1] = np.arange(CLASSES)
    return table


ANNOTATION_CLASSES = _table()
