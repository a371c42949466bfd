"""Data sets for training and validating a detector, from folders in COCO's format or from `shapes`.

Shapes: N images, B instances, H W height and width, which differ between images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.config.recipes.detection import DetectionAugmentation, DetectionRecipe
from harness.data.coco import CocoDetection, annotation_files, open_coco
from harness.data.detection_annotations import DetectionSource, Instances, encode_rle
from harness.data.detection_transforms import DenseData, DenseItems, DetectionSample, resized_sides
from harness.data.image_file import UnreadableFile
from harness.data.image_sources import InMemoryImages, folder_of, load_shapes
from harness.data.loading import Index, first_readable
from harness.data.seeding import mix_seed
from harness.data.subsets import random_subset
from harness.errors import DataError


class DetectionBatch(NamedTuple):
    """A training batch of a detector."""

    images: list[Tensor]
    """Float32 (I, H, W) each, I being the network's input channels."""
    targets: list[dict[str, Tensor]]
    """Boxes (B, 4), labels (B,), and masks (B, H, W) if they are learned."""
    passed: Tensor
    """int64 (N,): number of unreadable files that were skipped for each image."""


@dataclass(frozen=True, slots=True, eq=False)
class InMemoryDetection(InMemoryImages):
    """A data set in memory with one instance per image."""

    with_masks: bool

    def instances(self, i: int) -> Instances:
        """See `DetectionSource`."""
        assert self.split.boxes is not None and self.split.masks is not None, "only `shapes` is opened so"
        mask = self.split.masks[i] > 0
        return Instances(
            self.split.boxes[i : i + 1].astype(np.float32),
            self.split.labels[i : i + 1],
            np.array([mask.sum()], np.float32),
            np.zeros(1, bool),
            (encode_rle(mask),) if self.with_masks else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class SubsetSource:
    """A subset of the images of a source."""

    source: CocoDetection
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def image_or_failure(self, i: int) -> Image.Image | UnreadableFile:
        """See `ReadableFiles`."""
        return self.source.image_or_failure(self.indices[i])

    def instances(self, i: int) -> Instances:
        """See `DetectionSource`."""
        return self.source.instances(self.indices[i])

    def recorded(self) -> list[Path]:
        """See `RecordedImages`."""
        return [self.source.paths[i] for i in self.indices]


DetectionData = DenseData[SubsetSource | InMemoryDetection]


def open_detection(recipe: DetectionRecipe, root: Path | None, cache: Path) -> DetectionData:
    """The images of a recipe, with masks if its detector learns them. Raises `DataError`s."""
    return _open_shapes(recipe, cache) if recipe.data.dataset == "shapes" else _open_coco(recipe, root)


def _open_shapes(recipe: DetectionRecipe, cache: Path) -> DetectionData:
    dataset = load_shapes(recipe.data, recipe.data.side, cache)
    train, val = (InMemoryDetection(split, recipe.detector.has_mask_head) for split in (dataset.train, dataset.val))
    return DenseData(dataset.info.names, train, val)


def _open_coco(recipe: DetectionRecipe, root: Path | None) -> DetectionData:
    data, masks, root = recipe.data, recipe.detector.has_mask_head, folder_of(recipe.data.dataset, root)
    train, val = open_coco(root, "train", masks=masks), open_coco(root, "val", masks=masks)
    if train.names != val.names:
        raise DataError("`categories` must be the same in the files of train and val", place=str(root / "annotations"))
    kept = train.trainable() if not data.keep_empty else np.arange(len(train))
    empty = len(train) - len(kept)
    notes = (f"train: images without objects, left out: {empty:,}",) if empty else ()
    chosen = _random_subset(train, kept, data.train_size, "train_size")
    return DenseData(
        train.names,
        chosen,
        _random_subset(val, np.arange(len(val)), data.val_size, "val_size"),
        (*train.notes, *val.notes, *notes),
        annotation_files(root),
    )


def _random_subset(source: CocoDetection, indices: np.ndarray, size: int | None, key: str) -> SubsetSource:
    """A random subset of those images, or all. Raises `DataError` if there are too few, or none has an object."""
    chosen = SubsetSource(source, tuple(indices[random_subset(len(indices), size, key)].tolist()))
    if not np.isin(chosen.indices, source.trainable()).any():
        crowds = int(source.is_crowd.sum())
        marked = [f"objects that are marked as crowds (`iscrowd: 1`), which are not counted: {crowds:,}"]
        reasons = "; ".join((*source.notes, *(marked if crowds else [])))
        boxes = " A recipe whose detector learns no masks does without them." if "without a mask" in reasons else ""
        raise DataError(
            "at least one image must have an object that is no crowd",
            value=f"{len(source):,} images and {len(source.labels):,} objects",
            place=str(source.paths[0].parent),
            remedy=f"{reasons[:1].upper()}{reasons[1:]}.{boxes}" if reasons else None,
        )
    return chosen


class DetectionTrainingSet(DenseItems[DetectionSource, DetectionRecipe, tuple[Tensor, dict[str, Tensor], int]]):
    """The augmented training images; each depends only on the pass, its index and the seed."""

    def __getitem__(self, index: Index) -> tuple[Tensor, dict[str, Tensor], int]:
        """One image with its targets; a file that cannot be read is replaced by the next readable one."""
        number, i = index
        picture, at, passed = first_readable(self.source.image_or_failure, i, len(self))
        if picture is None:
            nothing = DetectionSample.of(Image.new("RGB", (1, 1)), self.source.instances(i)).crop(0, 0, 1, 1)
            return self.to_tensor(nothing.image), nothing.target(), passed
        sample = DetectionSample.of(picture, self.source.instances(at))
        rng = np.random.default_rng(mix_seed(self.recipe.seed, number, i))
        sample = augment_detection(sample, self.recipe.views, rng)
        return self.to_tensor(sample.image), sample.target(), passed


class DetectionValidationSet(DenseItems[DetectionSource, DetectionRecipe, tuple[int, Tensor | None, tuple[int, int]]]):
    """The validation images: index, image, and its original height and width.

    An image that cannot be read is None.
    """

    def __getitem__(self, i: int) -> tuple[int, Tensor | None, tuple[int, int]]:
        picture, evaluation = self.source.image_or_failure(i), self.recipe.evaluation
        if isinstance(picture, UnreadableFile):
            return i, None, (0, 0)
        sides = resized_sides(picture.size, evaluation.short, evaluation.longest)
        resized = picture.resize(sides, Image.Resampling.BILINEAR)
        return i, self.to_tensor(resized), (picture.height, picture.width)


def augment_detection(
    sample: DetectionSample, views: DetectionAugmentation, rng: np.random.Generator
) -> DetectionSample:
    """Augment a training image: random flip, random crop, and resize to one of the sides.

    The crop is as in DETR: the image is first resized to one of `crop_from`, then cropped, then resized.
    """
    if rng.random() < views.flip:
        sample = sample.flip()
    if rng.random() < views.crop:
        sample = sample.resize(int(rng.choice(views.crop_from)), views.longest)
        least, most = views.crop_sides
        width, height = (int(rng.integers(min(least, side), min(most, side) + 1)) for side in sample.image.size)
        x, y = (
            int(rng.integers(side - part + 1)) for side, part in zip(sample.image.size, (width, height), strict=True)
        )
        sample = sample.crop(x, y, width, height)
    return sample.resize(int(rng.choice(views.short)), views.longest)


def collate_detection(items: list[tuple[Tensor, dict[str, Tensor], int]]) -> DetectionBatch:
    """Collate items of `DetectionTrainingSet` into a batch."""
    images, targets, passed = zip(*items, strict=True)
    return DetectionBatch(list(images), list(targets), torch.tensor(passed))
