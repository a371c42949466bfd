"""The images of a detector and what is in them, on their way to it: COCO's folders, or `shapes`.

Shapes: N images, B figures, H W height and width of an image, another for every image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from harness.config.recipes.detection import DetectionRecipe, Views
from harness.data import Split
from harness.data.coco import CocoScenes, annotations_of, open_coco
from harness.data.data_record import DataRecord, Source, record_data
from harness.data.detection_annotations import Figures, Scenes, pack
from harness.data.detection_transforms import Sight, numbers, resized_sides
from harness.data.image_sources import Stored, folder_of, load_shapes
from harness.data.loading import MOST_UNREADABLE, Index
from harness.data.read_report import Lost
from harness.data.seeding import mixed
from harness.errors import DataError


class Shown(NamedTuple):
    """Images as a detector is trained on them."""

    images: list[Tensor]
    """Float32 (I, H, W) each, I being the channels that the network takes."""
    targets: list[dict[str, Tensor]]
    """Boxes (B, 4), labels (B,), and masks (B, H, W) where they are learnt."""
    passed: Tensor
    """int64 (N,): how many files had to be passed over for each."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredScenes:
    """The figures of a data set that lies in memory, one in each image."""

    split: Split
    with_masks: bool

    def __len__(self) -> int:
        return len(self.split)

    def picture(self, i: int) -> Image.Image:
        """See `Scenes`."""
        return self.look(i)

    def look(self, i: int) -> Image.Image:
        """See `Scenes`."""
        return Stored(self.split).look(i)

    def figures(self, i: int) -> Figures:
        """See `Scenes`."""
        assert self.split.boxes is not None and self.split.masks is not None, "only `shapes` is opened so"
        mask = self.split.masks[i] > 0
        return Figures(
            self.split.boxes[i : i + 1].astype(np.float32),
            self.split.labels[i : i + 1],
            np.array([mask.sum()], np.float32),
            np.zeros(1, bool),
            (pack(mask),) if self.with_masks else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Some images of others."""

    scenes: CocoScenes
    which: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.which)

    def picture(self, i: int) -> Image.Image | None:
        """See `Scenes`."""
        return self.scenes.picture(self.which[i])

    def look(self, i: int) -> Image.Image | Lost:
        """See `Scenes`."""
        return self.scenes.look(self.which[i])

    def figures(self, i: int) -> Figures:
        """See `Scenes`."""
        return self.scenes.figures(self.which[i])

    def paths(self) -> list[Path]:
        """Their files."""
        return [self.scenes.paths[i] for i in self.which]


@dataclass(frozen=True, slots=True, eq=False)
class AllScenes:
    """All images of a recipe."""

    names: tuple[str, ...]
    """Of the classes."""
    train: Scenes
    val: Scenes
    notes: tuple[str, ...] = ()


def open_scenes(recipe: DetectionRecipe, root: Path | None, cache: Path) -> AllScenes:
    """The images of a recipe, with masks where its detector learns them. Raises `DataError`s."""
    return _open_shapes(recipe, cache) if recipe.data.dataset == "shapes" else _open_coco(recipe, root)


def record_scenes(recipe: DetectionRecipe, scenes: AllScenes, root: Path | None) -> DataRecord:
    """What a detector is trained on: images, and the files of their figures."""
    splits = {"train": scenes.train, "val": scenes.val}
    folder = None if recipe.data.dataset == "shapes" else folder_of(recipe.data.dataset, root)
    return record_data(
        recipe.data.dataset,
        scenes.names,
        {split: _source(each) for split, each in splits.items()},
        images={split: len(each) for split, each in splits.items()},
        root=folder,
        annotations=() if folder is None else annotations_of(folder),
    )


def _source(scenes: Scenes) -> Source:
    assert isinstance(scenes, Chosen | StoredScenes), "the two kinds of images with figures"
    return scenes.paths() if isinstance(scenes, Chosen) else scenes.split


def _open_shapes(recipe: DetectionRecipe, cache: Path) -> AllScenes:
    found = load_shapes(recipe.data, recipe.data.side, cache)
    train, val = (StoredScenes(split, recipe.detector.learns_masks) for split in (found.train, found.val))
    return AllScenes(found.info.names, train, val)


def _open_coco(recipe: DetectionRecipe, root: Path | None) -> AllScenes:
    data, masks, root = recipe.data, recipe.detector.learns_masks, folder_of(recipe.data.dataset, root)
    train, val = open_coco(root, "train", masks=masks), open_coco(root, "val", masks=masks)
    if train.names != val.names:
        raise DataError("`categories` must be the same in the files of train and val", place=str(root / "annotations"))
    kept = train.trainable() if not data.keep_empty else np.arange(len(train))
    empty = len(train) - len(kept)
    notes = (f"train: images without a figure, left out: {empty:,}",) if empty else ()
    chosen = _some(train, kept, data.train_size, "train_size")
    return AllScenes(
        train.names,
        chosen,
        _some(val, np.arange(len(val)), data.val_size, "val_size"),
        (*train.notes, *val.notes, *notes),
    )


def _some(scenes: CocoScenes, which: np.ndarray, size: int | None, key: str) -> Chosen:
    """So many of those images, drawn by lot, or all. Raises `DataError` where there are too few, or nothing in any."""
    if size is not None and size > len(which):
        raise DataError(f"`data.{key}` must be at most the {len(which):,} images that there are", value=size)
    if size is not None:
        which = np.sort(np.random.default_rng(0).permutation(which)[:size])
    chosen = Chosen(scenes, tuple(which.tolist()))
    if not np.isin(chosen.which, scenes.trainable()).any():
        crowds = int(scenes.crowds.sum())
        marked = [f"figures that are marked as crowds (`iscrowd: 1`), which are not counted: {crowds:,}"]
        reasons = "; ".join((*scenes.notes, *(marked if crowds else [])))
        boxes = " A recipe whose detector learns no masks does without them." if "without a mask" in reasons else ""
        raise DataError(
            "an image at least must have a figure besides crowds",
            value=f"{len(scenes):,} images and {len(scenes.labels):,} figures",
            place=str(scenes.paths[0].parent),
            remedy=f"{reasons[:1].upper()}{reasons[1:]}.{boxes}" if reasons else None,
        )
    return chosen


class TrainingSights(Dataset[tuple[Tensor, dict[str, Tensor], int]]):
    """The images as a pass sees them; each depends on the pass, its number and the seed alone."""

    def __init__(self, scenes: Scenes, recipe: DetectionRecipe, channels: int) -> None:
        self.scenes, self.recipe, self.channels = scenes, recipe, channels

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: Index) -> tuple[Tensor, dict[str, Tensor], int]:
        """A file that cannot be read is replaced by the next one that can."""
        number, i = index
        for passed in range(MOST_UNREADABLE):
            at = (i + passed) % len(self)
            picture = self.scenes.picture(at)
            if picture is not None:
                sight = Sight.of(picture, self.scenes.figures(at))
                rng = np.random.default_rng(mixed(self.recipe.seed, number, i))
                return *self._shown(viewed(sight, self.recipe.views, rng)), passed
        nothing = Sight.of(Image.new("RGB", (1, 1)), self.scenes.figures(i)).cropped(0, 0, 1, 1)
        return *self._shown(nothing), MOST_UNREADABLE

    def _shown(self, sight: Sight) -> tuple[Tensor, dict[str, Tensor]]:
        data = self.recipe.data
        return numbers(sight.picture, data.mean, data.std, self.channels), sight.target()


class ValidationSights(Dataset[tuple[int, Tensor | None, tuple[int, int]]]):
    """The images as they are validated on: the number, the image, and its own height and width.

    An image that cannot be read is None.
    """

    def __init__(self, scenes: Scenes, recipe: DetectionRecipe, channels: int) -> None:
        self.scenes, self.recipe, self.channels = scenes, recipe, channels

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, i: int) -> tuple[int, Tensor | None, tuple[int, int]]:
        picture, evaluation, data = self.scenes.picture(i), self.recipe.evaluation, self.recipe.data
        if picture is None:
            return i, None, (0, 0)
        sides = resized_sides(picture.size, evaluation.short, evaluation.longest)
        resized = picture.resize(sides, Image.Resampling.BILINEAR)
        return i, numbers(resized, data.mean, data.std, self.channels), (picture.height, picture.width)


def viewed(sight: Sight, views: Views, rng: np.random.Generator) -> Sight:
    """What a detector is trained on: mirrored by lot, perhaps cropped, and resized to one of the sides.

    With a crop, as DETR has it: first to one of other sides, then the crop, then to one of the sides.
    """
    if rng.random() < views.flip:
        sight = sight.mirrored()
    if rng.random() < views.crop:
        sight = sight.resized(int(rng.choice(views.crop_from)), views.longest)
        least, most = views.crop_sides
        width, height = (int(rng.integers(min(least, side), min(most, side) + 1)) for side in sight.picture.size)
        x, y = (
            int(rng.integers(side - part + 1)) for side, part in zip(sight.picture.size, (width, height), strict=True)
        )
        sight = sight.cropped(x, y, width, height)
    return sight.resized(int(rng.choice(views.short)), views.longest)


def together(items: list[tuple[Tensor, dict[str, Tensor], int]]) -> Shown:
    """A batch of items of `TrainingSights`."""
    images, targets, passed = zip(*items, strict=True)
    return Shown(list(images), list(targets), torch.tensor(passed))
