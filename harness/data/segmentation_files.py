"""Images with a class for every pixel, as pairs of an image file and a mask file: Cityscapes and ADE20K.

Cityscapes (Cordts et al., arXiv 1604.01685): street scenes in 19 classes. Layout: for each image
`leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png` a mask `gtFine/{train,val}/CITY/NAME_gtFine_labelIds.png`, with 34
labels of which 19 are classes, or `NAME_gtFine_labelTrainIds.png`, with the classes themselves. If both exist, the
latter is used.

ADE20K (Zhou et al., arXiv 1608.05442), as in the challenge of 2016: scenes in 150 classes. Layout:
`images/{training,validation}/NAME.jpg` and `annotations/{training,validation}/NAME.png`, in which 0 means any other
class, and 1 to 150 are the classes. Their names are those of `objectInfo150.txt`, if that file is in the same folder.

Shapes: H W height and width, which differ between images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.image_file import (
    NO_VALUE_RANGE,
    Unreadable,
    UnreadableFile,
    ValueRange,
    decode_image,
    decode_stored,
)
from harness.data.image_folder import IMAGE_SUFFIXES
from harness.data.read_report import ReadableFiles
from harness.data.subsets import random_subset
from harness.errors import DataError, first_of

IGNORED = 255
"""The label of pixels that are ignored in training and evaluation."""
MAX_NAMED = 3
"""Maximum number of missing files that an error lists."""
MAX_LISTED = 10
"""Maximum number of values of a mask that an error lists."""
MASK_LEVELS = 256

Mask = NDArray[np.uint8]
"""(H, W): the class of each pixel, or `IGNORED`."""

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


class SegmentationSource(ReadableFiles, Protocol):
    """The images of a split; `image_or_failure` gives the reason why one of a pair cannot be read.

    It raises `DataError` as `pair` does.
    """

    def pair(self, i: int) -> tuple[Image.Image, Mask] | None:
        """An image in color and its mask, of one size; None if one of the two cannot be read.

        Raises `DataError`, naming the file, for a mask that does not fit the image.
        """
        ...

    def place(self, i: int) -> str:
        """The name of the mask in messages."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationFiles:
    """Images and masks in files, read on access."""

    pairs: Sequence[tuple[Path, Path]]
    """Image and mask."""
    tables: Sequence[Mask]
    """For each pair a table (256,): the class of each value of the mask's file."""
    allowed: Sequence[int]
    """For each pair the largest value that the mask's file may have, except for 255."""
    levels: ValueRange = NO_VALUE_RANGE
    """Range of the values of the images of all splits."""

    def __len__(self) -> int:
        return len(self.pairs)

    def pair(self, i: int) -> tuple[Image.Image, Mask] | None:
        """See `SegmentationSource`."""
        pair = self._read(i)
        return None if isinstance(pair, UnreadableFile) else pair

    def image_or_failure(self, i: int) -> Image.Image | UnreadableFile:
        """See `SegmentationSource`."""
        pair = self._read(i)
        return pair if isinstance(pair, UnreadableFile) else pair[0]

    def recorded(self) -> list[Path]:
        """See `RecordedImages`: images and masks."""
        return [path for pair in self.pairs for path in pair]

    def place(self, i: int) -> str:
        """See `SegmentationSource`."""
        path = self.pairs[i][1]
        return f"{path}, whose values are {first_of(np.unique(_values(path)).tolist(), MAX_LISTED)}"

    def _read(self, i: int) -> tuple[Image.Image, Mask] | UnreadableFile:
        image_path, mask_path = self.pairs[i]
        path = mask_path
        try:
            values = _values(mask_path)
            path = image_path
            image = _image_of(image_path, (values.shape[1], values.shape[0]), self.levels)
        except Unreadable as error:
            return UnreadableFile(path, str(error))
        if values.shape != (image.height, image.width):
            raise DataError(
                f"a mask must have the size of its image ({image.width}x{image.height})",
                value=f"{values.shape[1]}x{values.shape[0]}",
                place=str(mask_path),
                remedy="Fetch both files again.",
            )
        most = int(values[values != IGNORED].max(initial=0))
        if most > self.allowed[i]:
            rule = f"the values of a mask must be at most {self.allowed[i]}, or {IGNORED}"
            raise DataError(rule, value=most, place=str(mask_path))
        return image, self.tables[i][values]


def require_labels(source: SegmentationSource, split: str) -> None:
    """Raise `DataError` if no pixel of a split has a class; reads masks until one has.

    Loss and metrics of such a split are undefined, but their means might look like results.
    """
    first: int | None = None
    for i in range(len(source)):
        pair = source.pair(i)
        if pair is None:
            continue
        if (pair[1] != IGNORED).any():
            return
        first = i if first is None else first
    if first is not None:
        raise DataError(
            f"a pixel of the {split} masks at least must have a class; of {len(source):,} masks, none has",
            place=source.place(first),
            remedy="All their values mean that a pixel is left out. Look which values the data set's format expects, "
            "and write the masks with these.",
        )


def _image_of(path: Path, sides: tuple[int, int], levels: ValueRange) -> Image.Image:
    """An image in the frame of its mask, which has these sides: turned according to its EXIF, or as stored.

    Raises `Unreadable`, and `DataError` if the sides fit both frames, so that they do not decide.
    """
    picture = decode_image(path, levels)
    if picture.stored_sides is None:
        return picture.image
    if picture.stored_sides == picture.image.size == sides:
        raise DataError(
            "an image must not be turned by its EXIF where its mask fits both ways, because the mask may be wrong then",
            value=f"orientation {picture.orientation}",
            place=str(path),
            remedy="Turn the pixels themselves and remove the EXIF tag, or remove the tag alone.",
        )
    return decode_image(path, levels, turns=False).image if picture.stored_sides == sides else picture.image


def _values(path: Path) -> Mask:
    """The values of a mask's file, (H, W). Raises `Unreadable`, and `DataError` for a file that is no mask."""
    mask = np.asarray(decode_stored(path))
    if mask.dtype.kind == "f" and not (np.isfinite(mask) & (mask == np.rint(mask))).all():
        raise DataError("the values of a mask must be whole numbers", place=str(path))
    if mask.ndim != 2:
        raise DataError("a mask must have one channel", value=mask.shape[2], place=str(path))
    if int(mask.max(initial=0)) >= MASK_LEVELS or int(mask.min(initial=0)) < 0:
        raise DataError(f"the values of a mask must be 0 to {MASK_LEVELS - 1}", value=int(mask.max()), place=str(path))
    return mask.astype(np.uint8)


def image_files(folder: Path, layout: str) -> list[Path]:
    """The images in a folder and its subfolders, sorted by name. Raises `DataError` if there are none."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")
    if not paths:
        raise DataError(
            "the folder must hold images", place=str(folder), remedy=f"Expected: {layout}. Nothing is downloaded."
        )
    return paths


def require_masks(missing: Sequence[Path], images: int, layout: str) -> None:
    """Raise `DataError` if masks are missing; `missing` are their images."""
    if missing:
        named = first_of([path.name for path in missing], MAX_NAMED)
        rule = f"every image must have a mask; of {images:,}, {len(missing):,} have none ({named})"
        remedy = f"Expected: {layout}. Put the masks there, or take the images away."
        raise DataError(rule, place=str(missing[0].parent), remedy=remedy)


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
