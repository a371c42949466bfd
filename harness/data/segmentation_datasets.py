"""Data sets for segmentation in folders, in the layout in which they are distributed: Cityscapes and ADE20K.

Cityscapes (Cordts et al., arXiv 1604.01685): street scenes in 19 classes. Layout: for each image
`leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png` a mask `gtFine/{train,val}/CITY/NAME_gtFine_labelIds.png`, with 34
labels of which 19 are classes, or `NAME_gtFine_labelTrainIds.png`, with the classes themselves. If both exist, the
latter is used.

ADE20K (Zhou et al., arXiv 1608.05442), as in the challenge of 2016: scenes in 150 classes. Layout:
`images/{training,validation}/NAME.jpg` and `annotations/{training,validation}/NAME.png`, in which 0 means any other
class, and 1 to 150 are the classes. Their names are those of `objectInfo150.txt`, if that file is in the same folder.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from harness.data.segmentation_files import (
    IGNORED,
    MASK_LEVELS,
    Mask,
    SegmentationFiles,
    image_files,
    random_subset,
    require_masks,
)
from harness.errors import DataError

CITYSCAPES_LAYOUT = "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png with gtFine/{train,val}/CITY/*_gtFine_labelIds.png"
CITYSCAPES_LABELS = {
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
CITYSCAPES_CLASSES = tuple(CITYSCAPES_LABELS)
MAX_LABEL = 33
IMAGE, LABEL_IDS, TRAIN_IDS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"

ADE20K_LAYOUT = "images/{training,validation}/*.jpg with annotations/{training,validation}/*.png of the same names"
ADE20K_FOLDERS = {"train": "training", "val": "validation"}
ADE20K_CLASSES = 150
ADE20K_INFO = "objectInfo150.txt"


def _class_table(labels: Iterable[int]) -> Mask:
    """The class of each value of a mask's file, (256,): its place among these labels; all others are ignored."""
    table = np.full(MASK_LEVELS, IGNORED, np.uint8)
    for number, label in enumerate(labels):
        table[label] = number
    return table


LABEL_ID_TABLE = _class_table(CITYSCAPES_LABELS.values())
TRAIN_ID_TABLE = _class_table(range(len(CITYSCAPES_CLASSES)))
ADE20K_TABLE = _class_table(range(1, ADE20K_CLASSES + 1))


def open_cityscapes(root: Path, split: str, size: int | None) -> SegmentationFiles:
    """The images of `train` or `val`; no file is opened. Raises `DataError`s."""
    folder = root / "leftImg8bit" / split
    images = [path for path in image_files(folder, CITYSCAPES_LAYOUT) if path.name.endswith(IMAGE)]
    pairs = {path: _cityscapes_mask(root, split, path) for path in images}
    require_masks([path for path, mask in pairs.items() if mask is None], len(images), CITYSCAPES_LAYOUT)
    annotated = [(path, mask) for path, mask in pairs.items() if mask is not None]
    chosen = [annotated[i] for i in random_subset(len(annotated), size, f"{split}_size")]
    plain = [mask.name.endswith(TRAIN_IDS) for _, mask in chosen]
    return SegmentationFiles(
        chosen,
        [TRAIN_ID_TABLE if is_plain else LABEL_ID_TABLE for is_plain in plain],
        [len(CITYSCAPES_CLASSES) - 1 if is_plain else MAX_LABEL for is_plain in plain],
    )


def _cityscapes_mask(root: Path, split: str, image: Path) -> Path | None:
    folder, name = root / "gtFine" / split / image.parent.name, image.name.removesuffix(IMAGE)
    return next((path for end in (TRAIN_IDS, LABEL_IDS) if (path := folder / f"{name}{end}").is_file()), None)


def open_ade20k(root: Path, split: str, size: int | None) -> SegmentationFiles:
    """The images of `train` or `val`; no file is opened. Raises `DataError`s."""
    masks = root / "annotations" / ADE20K_FOLDERS[split]
    images = image_files(root / "images" / ADE20K_FOLDERS[split], ADE20K_LAYOUT)
    pairs = [(path, masks / f"{path.stem}.png") for path in images]
    require_masks([path for path, mask in pairs if not mask.is_file()], len(images), ADE20K_LAYOUT)
    chosen = [pairs[i] for i in random_subset(len(pairs), size, f"{split}_size")]
    return SegmentationFiles(chosen, [ADE20K_TABLE] * len(chosen), [ADE20K_CLASSES] * len(chosen))


def read_ade20k_classes(root: Path) -> tuple[str, ...]:
    """Names of the classes, the first one of each line; numbered names if there is no file. Raises `DataError`."""
    path = root / ADE20K_INFO
    if not path.is_file():
        return tuple(f"class {number}" for number in range(1, ADE20K_CLASSES + 1))
    _, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = tuple(line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip())
    if len(names) != ADE20K_CLASSES:
        rule = f"the file must name {ADE20K_CLASSES} classes after its first line"
        raise DataError(rule, value=len(names), place=str(path))
    return names
