"""Data sets for training and validating a segmentation, from folders or from `shapes`.

In training, images are resized, cropped, flipped and distorted in color as in MMSegmentation. All random numbers come
from the generator that is passed.

Shapes: N images, I input channels of the network, H W height and width, in training those of the crop.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from harness.config.recipes.segmentation import SegmentationAugmentation, SegmentationRecipe
from harness.data.detection_transforms import DenseData, DenseItems, resized_sides
from harness.data.image_file import read_sampled_value_range
from harness.data.image_sources import InMemoryImages, folder_of, load_shapes
from harness.data.loading import MAX_UNREADABLE_IN_A_ROW, Index, first_readable
from harness.data.seeding import mix_seed
from harness.data.segmentation_files import (
    CITYSCAPES_CLASSES,
    IGNORED,
    Mask,
    SegmentationFiles,
    SegmentationSource,
    open_ade20k,
    open_cityscapes,
    read_ade20k_classes,
    require_labels,
)
from harness.errors import DataError

BACKGROUND = "ground"
"""Name of the first class of `shapes`."""
MAX_CROP_ATTEMPTS = 10
"""Number of crops that are tried to find one that no class dominates."""
PIXEL_LEVELS = np.arange(256.0)
BRIGHTNESS = 32
"""Maximum change of brightness, of 255."""
FACTORS = (0.5, 1.5)
"""Range of the factors of contrast and saturation."""
HUE = 18 / 180
"""Maximum rotation of the hue, as a share of the circle."""

ImageTransform = Callable[[Image.Image, np.random.Generator], Image.Image]


@dataclass(frozen=True, slots=True, eq=False)
class InMemorySegmentation(InMemoryImages):
    """Images of a data set in memory, with their masks."""

    def pair(self, i: int) -> tuple[Image.Image, Mask]:
        """See `SegmentationSource`."""
        assert self.split.masks is not None, "shapes have masks"
        return self.image_or_failure(i), np.asarray(self.split.masks[i])

    def place(self, i: int) -> str:
        """See `SegmentationSource`."""
        return f"image {i}"


SegmentationData = DenseData[SegmentationFiles | InMemorySegmentation]


def open_segmentation(recipe: SegmentationRecipe, root: Path | None, cache: Path) -> SegmentationData:
    """The images of a recipe; those in folders are not read. Raises `DataError`s."""
    return SEGMENTATION_SOURCES[recipe.data.dataset](recipe, root, cache)


def _shapes(recipe: SegmentationRecipe, _: Path | None, cache: Path) -> SegmentationData:
    dataset = load_shapes(recipe.data, recipe.data.side, cache)
    return DenseData(
        (BACKGROUND, *dataset.info.names), InMemorySegmentation(dataset.train), InMemorySegmentation(dataset.val)
    )


def _in_files(
    open_split: Callable[[Path, str, int | None], SegmentationFiles],
    read_classes: Callable[[Path], tuple[str, ...]],
    recipe: SegmentationRecipe,
    root: Path | None,
    _: Path,
) -> SegmentationData:
    """Both splits, with the range of their images. Raises `DataError` if one has no labeled pixel."""
    folder, data = folder_of(recipe.data.dataset, root), recipe.data
    train, val = open_split(folder, "train", data.train_size), open_split(folder, "val", data.val_size)
    names = read_classes(folder)
    levels = read_sampled_value_range([image for split in (train, val) for image, _ in split.pairs])
    splits = replace(train, levels=levels), replace(val, levels=levels)
    for name, split in zip(("training", "validation"), splits, strict=True):
        require_labels(split, name)
    return DenseData(names, *splits, notes=() if levels.about is None else (levels.about,))


SEGMENTATION_SOURCES: dict[str, Callable[[SegmentationRecipe, Path | None, Path], SegmentationData]] = {
    "cityscapes": partial(_in_files, open_cityscapes, lambda _: CITYSCAPES_CLASSES),
    "ade20k": partial(_in_files, open_ade20k, read_ade20k_classes),
    "shapes": _shapes,
}
"""Functions of (recipe, folder, cache) that open the images, by `SegmentationDataConfig.dataset`."""


class SegmentationBatch(NamedTuple):
    """A training batch of a segmentation."""

    images: Tensor
    """Float32 (N, I, H, W)."""
    masks: Tensor
    """uint8 (N, H, W)."""
    faults: list[str]
    """Errors that make the data set unusable for training."""
    passed: Tensor
    """int64 (N,): number of unreadable files that were skipped for each image."""


class SegmentationTrainingSet(DenseItems[SegmentationSource, SegmentationRecipe, SegmentationBatch]):
    """The augmented training images; each depends only on the pass, its index and the seed."""

    def __getitem__(self, index: Index) -> SegmentationBatch:
        """One image with its mask; if one of them cannot be read, the next readable pair."""
        number, i = index
        try:
            pair, _, passed = first_readable(self.source.pair, i, len(self))
        except DataError as error:  # passed as text through the data workers; see `SegmentationTask.batches`
            return self._nothing([str(error)])
        if pair is None:
            return self._nothing([])
        rng = np.random.default_rng(mix_seed(self.recipe.seed, number, i))
        return self._filled(*augment_segmentation(*pair, self.recipe.views, rng), passed=passed)

    def _filled(self, picture: Image.Image, mask: Mask, *, passed: int) -> SegmentationBatch:
        """Pad to the size of the crop, at the right and at the bottom, with 0 and the ignored label."""
        height, width = self.recipe.views.crop
        padding = (0, width - mask.shape[1], 0, height - mask.shape[0])
        image = F.pad(self.to_tensor(picture), padding)
        labels = F.pad(torch.from_numpy(mask.copy()), padding, value=IGNORED)
        return SegmentationBatch(image[None], labels[None], [], torch.tensor([passed]))

    def _nothing(self, faults: list[str]) -> SegmentationBatch:
        height, width = self.recipe.views.crop
        labels = torch.full((1, height, width), IGNORED, dtype=torch.uint8)
        passed = torch.tensor([0 if faults else MAX_UNREADABLE_IN_A_ROW])
        return SegmentationBatch(torch.zeros(1, self.channels, height, width), labels, faults, passed)


def collate_segmentation(items: list[SegmentationBatch]) -> SegmentationBatch:
    """Collate function: concatenates batches of one image."""
    faults = [fault for item in items for fault in item.faults]
    images, masks = torch.cat([item.images for item in items]), torch.cat([item.masks for item in items])
    return SegmentationBatch(images, masks, faults, torch.cat([item.passed for item in items]))


class SegmentationSample(NamedTuple):
    """A preprocessed validation image with its mask."""

    image: Tensor | None
    """Float32 (I, H, W), resized; None for one that cannot be read."""
    mask: Tensor
    """uint8, in the image's original size."""
    fault: str | None = None


class SegmentationValidationSet(DenseItems[SegmentationSource, SegmentationRecipe, SegmentationSample]):
    """The preprocessed validation images with their masks."""

    def __getitem__(self, i: int) -> SegmentationSample:
        views = self.recipe.views
        try:
            pair = self.source.pair(i)
        except DataError as error:
            return SegmentationSample(None, torch.zeros(0, 0, dtype=torch.uint8), str(error))
        if pair is None:
            return SegmentationSample(None, torch.zeros(0, 0, dtype=torch.uint8))
        picture, mask = pair
        sides = resized_sides(picture.size, views.short, views.longest)
        resized = picture if sides == picture.size else picture.resize(sides, Image.Resampling.BILINEAR)
        return SegmentationSample(self.to_tensor(resized), torch.from_numpy(mask.copy()))


def augment_segmentation(
    picture: Image.Image, mask: Mask, views: SegmentationAugmentation, rng: np.random.Generator
) -> tuple[Image.Image, Mask]:
    """Augment a training image and its mask; the result is at most as large as the crop."""
    picture, mask = _randomly_resized(picture, mask, views, float(rng.uniform(views.scales[0], views.scales[1])))
    picture, mask = _randomly_cropped(picture, mask, views, rng)
    if rng.random() < views.flip:
        picture, mask = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mask[:, ::-1]
    return (photometric_distortion(picture, rng) if views.distort else picture), mask


def _randomly_resized(
    picture: Image.Image, mask: Mask, views: SegmentationAugmentation, scale: float
) -> tuple[Image.Image, Mask]:
    sides = resized_sides(picture.size, views.short * scale, views.longest * scale)
    if sides == picture.size:
        return picture, mask
    nearest = Image.fromarray(mask).resize(sides, Image.Resampling.NEAREST)
    return picture.resize(sides, Image.Resampling.BILINEAR), np.asarray(nearest)


def _randomly_cropped(
    picture: Image.Image, mask: Mask, views: SegmentationAugmentation, rng: np.random.Generator
) -> tuple[Image.Image, Mask]:
    """A random crop that no class dominates, if one of ten attempts is such a crop; else the last one."""
    height, width = (min(side, most) for side, most in zip(mask.shape, views.crop, strict=True))
    for _ in range(MAX_CROP_ATTEMPTS):
        top, left = (int(rng.integers(side - crop + 1)) for side, crop in zip(mask.shape, (height, width), strict=True))
        part = mask[top : top + height, left : left + width]
        if has_mixed_classes(part, views.most_of_one):
            break
    return picture.crop((left, top, left + width, top + height)), part


def has_mixed_classes(mask: Mask, most: float) -> bool:
    """Whether there are several classes, and none has that share of the labeled pixels; True for a share of 1."""
    counts = np.bincount(mask[mask != IGNORED], minlength=1)
    return most >= 1 or (int(np.count_nonzero(counts)) > 1 and float(counts.max()) < most * float(counts.sum()))


def photometric_distortion(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast, saturation and hue, each with probability one half."""
    colors: list[ImageTransform] = [_adjust_saturation, _shift_hue]
    middle: list[ImageTransform] = [_adjust_contrast, *colors] if rng.random() < 0.5 else [*colors, _adjust_contrast]
    for change in [_adjust_brightness, *middle]:
        if rng.random() < 0.5:
            picture = change(picture, rng)
    return picture


def _adjust_brightness(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.point(_level_table(PIXEL_LEVELS + rng.uniform(-BRIGHTNESS, BRIGHTNESS)) * 3)


def _adjust_contrast(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.point(_level_table(PIXEL_LEVELS * rng.uniform(*FACTORS)) * 3)


def _adjust_saturation(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _change_hsv(picture, 1, PIXEL_LEVELS * rng.uniform(*FACTORS))


def _shift_hue(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _change_hsv(picture, 0, (PIXEL_LEVELS + len(PIXEL_LEVELS) * rng.uniform(-HUE, HUE)) % len(PIXEL_LEVELS))


def _change_hsv(picture: Image.Image, band: int, levels: NDArray[np.float64]) -> Image.Image:
    bands = list(picture.convert("HSV").split())
    bands[band] = bands[band].point(_level_table(levels))
    return Image.merge("HSV", bands).convert("RGB")


def _level_table(levels: NDArray[np.float64]) -> list[int]:
    """The values of a look-up table for 256 levels."""
    return [int(level) for level in np.clip(np.rint(levels), 0, len(PIXEL_LEVELS) - 1)]
