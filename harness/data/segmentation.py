"""Images and masks on their way to a segmentation: from the folders of a data set, or from `shapes`.

In training they are resized, cropped, mirrored and put in other colors as MMSegmentation does it. All that is random is
drawn from the generator that is passed.

Shapes: N images, I channels that the network takes, H W height and width, those of the crop in training.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from harness.config.recipes.segmentation import SegmentationRecipe, SegmentationViews
from harness.data import Split
from harness.data.ade20k import names_in, open_ade20k
from harness.data.cityscapes import NAMES, open_cityscapes
from harness.data.data_record import DataRecord, Source, record_data
from harness.data.detection_transforms import numbers, resized_sides
from harness.data.image_sources import Stored, folder_of, load_shapes
from harness.data.loading import MOST_UNREADABLE, Index
from harness.data.seeding import mixed
from harness.data.segmentation_files import IGNORED, Mask, Masked, MaskedFiles, levels_of, require_labels
from harness.errors import DataError

GROUND = "ground"
"""The first class of `shapes`."""
CROPS = 10
"""How many crops are tried for one in which no class has nearly everything."""
LEVELS = np.arange(256.0)
BRIGHTNESS = 32
"""Most that is added to every pixel, of 255."""
FACTORS = (0.5, 1.5)
"""By what contrast and saturation are multiplied."""
HUE = 18 / 180
"""Largest turn of the hue, as a share of the circle."""

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


@dataclass(frozen=True, slots=True, eq=False)
class AllMasked:
    """All images of a recipe."""

    names: tuple[str, ...]
    """Of the classes."""
    train: Masked
    val: Masked
    notes: tuple[str, ...] = ()
    """What was left out."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredMasks:
    """Images of a data set that lies in memory."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    def pair(self, i: int) -> tuple[Image.Image, Mask]:
        """See `Masked`."""
        assert self.split.masks is not None, "shapes have masks"
        return self.look(i), np.asarray(self.split.masks[i])

    def look(self, i: int) -> Image.Image:
        """See `Masked`."""
        return Stored(self.split).look(i)

    def place(self, i: int) -> str:
        """See `Masked`."""
        return f"image {i}"


def open_masked(recipe: SegmentationRecipe, root: Path | None, cache: Path) -> AllMasked:
    """The images of a recipe; those in folders are not read. Raises `DataError`s."""
    return OPENERS[recipe.data.dataset](recipe, root, cache)


def record_masked(recipe: SegmentationRecipe, masked: AllMasked, root: Path | None) -> DataRecord:
    """What a segmentation is trained on: images and masks."""
    splits = {"train": masked.train, "val": masked.val}
    return record_data(
        recipe.data.dataset,
        masked.names,
        {split: _source(each) for split, each in splits.items()},
        images={split: len(each) for split, each in splits.items()},
        root=None if isinstance(masked.train, StoredMasks) else folder_of(recipe.data.dataset, root),
    )


def _source(masked: Masked) -> Source:
    assert isinstance(masked, MaskedFiles | StoredMasks), "the two kinds of images with masks"
    return masked.split if isinstance(masked, StoredMasks) else [path for pair in masked.pairs for path in pair]


def _shapes(recipe: SegmentationRecipe, _: Path | None, cache: Path) -> AllMasked:
    found = load_shapes(recipe.data, recipe.data.side, cache)
    return AllMasked((GROUND, *found.info.names), StoredMasks(found.train), StoredMasks(found.val))


def _cityscapes(recipe: SegmentationRecipe, root: Path | None, _: Path) -> AllMasked:
    folder, data = folder_of(recipe.data.dataset, root), recipe.data
    train, val = open_cityscapes(folder, "train", data.train_size), open_cityscapes(folder, "val", data.val_size)
    return _in_files(NAMES, train, val)


def _ade20k(recipe: SegmentationRecipe, root: Path | None, _: Path) -> AllMasked:
    folder, data = folder_of(recipe.data.dataset, root), recipe.data
    train, val = open_ade20k(folder, "train", data.train_size), open_ade20k(folder, "val", data.val_size)
    return _in_files(names_in(folder), train, val)


def _in_files(names: tuple[str, ...], train: MaskedFiles, val: MaskedFiles) -> AllMasked:
    """Both splits, with the range of their images. Raises `DataError` where one has no pixel of a class."""
    levels = levels_of(train, val)
    splits = replace(train, levels=levels), replace(val, levels=levels)
    for name, split in zip(("training", "validation"), splits, strict=True):
        require_labels(split, name)
    return AllMasked(names, *splits, notes=() if levels.about is None else (levels.about,))


OPENERS: dict[str, Callable[[SegmentationRecipe, Path | None, Path], AllMasked]] = {
    "cityscapes": _cityscapes,
    "ade20k": _ade20k,
    "shapes": _shapes,
}
"""What opens the images, (recipe, folder, cache), by `SegmentationData.dataset`."""


class Pairs(NamedTuple):
    """Images and masks as a segmentation is trained on them."""

    images: Tensor
    """Float32 (N, I, H, W)."""
    masks: Tensor
    """uint8 (N, H, W)."""
    faults: list[str]
    """What makes the data set unfit to be trained on."""
    passed: Tensor
    """int64 (N,): how many files had to be passed over for each."""


class TrainingPairs(Dataset[Pairs]):
    """The images as a pass sees them; each depends on the pass, its number and the seed alone."""

    def __init__(self, masked: Masked, recipe: SegmentationRecipe, channels: int) -> None:
        self.masked, self.recipe, self.channels = masked, recipe, channels

    def __len__(self) -> int:
        return len(self.masked)

    def __getitem__(self, index: Index) -> Pairs:
        """One image; where it or its mask cannot be read, the next one that can."""
        number, i = index
        try:
            for passed in range(MOST_UNREADABLE):
                found = self.masked.pair((i + passed) % len(self))
                if found is not None:
                    rng = np.random.default_rng(mixed(self.recipe.seed, number, i))
                    return self._filled(*viewed(*found, self.recipe.views, rng), passed=passed)
        except DataError as error:  # its text goes through the loader's processes; see `Segmentation.batches`
            return self._nothing([str(error)])
        return self._nothing([])

    def _filled(self, picture: Image.Image, mask: Mask, *, passed: int) -> Pairs:
        """In the size of the crop: what is missing at the right and at the bottom is 0, and ignored."""
        height, width = self.recipe.views.crop
        room = (0, width - mask.shape[1], 0, height - mask.shape[0])
        image = F.pad(shown(picture, self.recipe, self.channels), room)
        labels = F.pad(torch.from_numpy(mask.copy()), room, value=IGNORED)
        return Pairs(image[None], labels[None], [], torch.tensor([passed]))

    def _nothing(self, faults: list[str]) -> Pairs:
        height, width = self.recipe.views.crop
        labels = torch.full((1, height, width), IGNORED, dtype=torch.uint8)
        passed = torch.tensor([0 if faults else MOST_UNREADABLE])
        return Pairs(torch.zeros(1, self.channels, height, width), labels, faults, passed)


def together(items: list[Pairs]) -> Pairs:
    """Many as one."""
    faults = [fault for item in items for fault in item.faults]
    images, masks = torch.cat([item.images for item in items]), torch.cat([item.masks for item in items])
    return Pairs(images, masks, faults, torch.cat([item.passed for item in items]))


class Shown(NamedTuple):
    """An image as it is validated on."""

    image: Tensor | None
    """Float32 (I, H, W), resized; None for one that cannot be read."""
    mask: Tensor
    """uint8, in the image's own size."""
    fault: str | None = None


class ValidationPairs(Dataset[Shown]):
    """The images as they are validated on."""

    def __init__(self, masked: Masked, recipe: SegmentationRecipe, channels: int) -> None:
        self.masked, self.recipe, self.channels = masked, recipe, channels

    def __len__(self) -> int:
        return len(self.masked)

    def __getitem__(self, i: int) -> Shown:
        views = self.recipe.views
        try:
            found = self.masked.pair(i)
        except DataError as error:
            return Shown(None, torch.zeros(0, 0, dtype=torch.uint8), str(error))
        if found is None:
            return Shown(None, torch.zeros(0, 0, dtype=torch.uint8))
        picture, mask = found
        sides = resized_sides(picture.size, views.short, views.longest)
        resized = picture if sides == picture.size else picture.resize(sides, Image.Resampling.BILINEAR)
        return Shown(shown(resized, self.recipe, self.channels), torch.from_numpy(mask.copy()))


def shown(picture: Image.Image, recipe: SegmentationRecipe, channels: int) -> Tensor:
    """The picture in numbers, (I, H, W): three channels, or for a network that knows grey alone their mean."""
    return numbers(picture, recipe.data.mean, recipe.data.std, channels)


def viewed(
    picture: Image.Image, mask: Mask, views: SegmentationViews, rng: np.random.Generator
) -> tuple[Image.Image, Mask]:
    """What is trained on, at most as large as the crop."""
    picture, mask = _randomly_resized(picture, mask, views, float(rng.uniform(views.scales[0], views.scales[1])))
    picture, mask = _randomly_cropped(picture, mask, views, rng)
    if rng.random() < views.flip:
        picture, mask = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mask[:, ::-1]
    return (distorted(picture, rng) if views.distort else picture), mask


def _randomly_resized(
    picture: Image.Image, mask: Mask, views: SegmentationViews, scale: float
) -> tuple[Image.Image, Mask]:
    sides = resized_sides(picture.size, views.short * scale, views.longest * scale)
    if sides == picture.size:
        return picture, mask
    nearest = Image.fromarray(mask).resize(sides, Image.Resampling.NEAREST)
    return picture.resize(sides, Image.Resampling.BILINEAR), np.asarray(nearest)


def _randomly_cropped(
    picture: Image.Image, mask: Mask, views: SegmentationViews, rng: np.random.Generator
) -> tuple[Image.Image, Mask]:
    """A crop in which no class has too much, if ten are enough to find one."""
    height, width = (min(side, most) for side, most in zip(mask.shape, views.crop, strict=True))
    for _ in range(CROPS):
        top, left = (int(rng.integers(side - own + 1)) for side, own in zip(mask.shape, (height, width), strict=True))
        part = mask[top : top + height, left : left + width]
        if is_mixed(part, views.most_of_one):
            break
    return picture.crop((left, top, left + width, top + height)), part


def is_mixed(mask: Mask, most: float) -> bool:
    """Whether there are several classes, and none has more than that share of the pixels that count; true for 1."""
    counts = np.bincount(mask[mask != IGNORED], minlength=1)
    return most >= 1 or (int(np.count_nonzero(counts)) > 1 and float(counts.max()) < most * float(counts.sum()))


def distorted(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast, saturation and hue, each changed with probability one half."""
    colours: list[Change] = [_saturated, _turned]
    middle: list[Change] = [_contrasted, *colours] if rng.random() < 0.5 else [*colours, _contrasted]
    for change in [_brightened, *middle]:
        if rng.random() < 0.5:
            picture = change(picture, rng)
    return picture


def _brightened(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.point(_level_table(LEVELS + rng.uniform(-BRIGHTNESS, BRIGHTNESS)) * 3)


def _contrasted(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.point(_level_table(LEVELS * rng.uniform(*FACTORS)) * 3)


def _saturated(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    saturation = saturation.point(_level_table(LEVELS * rng.uniform(*FACTORS)))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _turned(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point(_level_table((LEVELS + len(LEVELS) * rng.uniform(-HUE, HUE)) % len(LEVELS)))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _level_table(levels: NDArray[np.float64]) -> list[int]:
    """What becomes of each of 256 levels."""
    return [int(level) for level in np.clip(np.rint(levels), 0, len(LEVELS) - 1)]
