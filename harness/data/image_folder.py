"""Images in folders, `root/{train,val}/<class>/<file>`, resized once to one size and cached as uint8.

Every file is decoded to RGB by `harness.data.image_file`, and its center square is used. Files that cannot be read are
left out and counted in the data set's notes; more than a tenth of a split, or a whole class, is an error.

`sample_images` reads a few images of a folder directly, without the cache: for analyzing networks, not for training
them.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.proxy import ProxyRecipe
from harness.data.cache import SPLIT_TITLES, CacheWriter, cached, is_cached
from harness.data.content import ContentDigest, read_content
from harness.data.dataset import IMAGENET_MEAN, IMAGENET_STD, DataInfo, Dataset, Split
from harness.data.image_file import (
    UnreadableFile,
    ValueRange,
    decode_square,
    read_sampled_value_range,
    read_value_range,
)
from harness.data.labels import label_order
from harness.data.read_report import (
    MAX_S,
    MAX_SAMPLED,
    SplitSample,
    reasons_text,
    remark_notes,
    require_mostly_readable,
    require_readable_sample,
    sample_notes,
    sample_splits,
    spread_indices,
    unreadable_note,
)
from harness.data.resampling import pool_indices, pool_key, resampled
from harness.data.subsets import data_root, require_enough
from harness.data.threads import map_in_threads
from harness.errors import DataError

NAME = "imagefolder"
READER = 2
"""Part of the cache's hash; raised when the same files result in other images."""
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
SPLITS = ("train", "val")
IMAGE_FOLDER_LAYOUT = "folders train and val, each with one folder of images per class"
SAMPLES_LAYOUT = "images, or one folder of images per class, there or in a folder `val`"
MAX_NAMED = 5
"""Maximum number of unknown classes that an error lists."""


def describe(recipe: ProxyRecipe) -> DataInfo:
    """The names of the classes, which are the folders in `train`; no file is opened."""
    root = data_root(recipe, IMAGE_FOLDER_LAYOUT)
    names = classes_of(root, "train")
    require_known_classes(root, names)
    return DataInfo(len(names), 3, names)


def require_known_classes(root: Path, names: Sequence[str]) -> None:
    """Raise `DataError` for a class of `val` that is not among these."""
    unknown = sorted(set(classes_of(root, "val")) - set(names))
    if unknown:
        rule = f"every class of `val` must be a class of `train` (unknown: {', '.join(unknown[:MAX_NAMED])})"
        raise DataError(rule, place=str(root / "val"), remedy=f"Expected: {IMAGE_FOLDER_LAYOUT}.")


def identify(recipe: ProxyRecipe, cache: Path | None) -> DataInfo:
    """As `describe`, with the digest over classes, names and content of all images, and their number."""
    info, root = describe(recipe), data_root(recipe, IMAGE_FOLDER_LAYOUT)
    files = {split: _files(root, split, info.names) for split in SPLITS}
    digest = _content(root, files, info.names, cache).digest
    return replace(info, digest=digest, images=(len(files["train"]), len(files["val"])))


def check(recipe: ProxyRecipe, cache: Path, digest: str | None) -> tuple[str, ...]:
    """See `harness.data.check`: sizes are compared with all files, and images are decoded; see `read_report`."""
    info, root = describe(recipe), data_root(recipe, IMAGE_FOLDER_LAYOUT)
    files = {split: _files(root, split, info.names) for split in SPLITS}
    chosen, labels = _pool(files, recipe)
    require_enough(recipe, info.names, len(chosen["train"]), str(root))
    if is_cached(cache, NAME, pool_key(recipe, READER, digest)):
        return ()
    until = time.monotonic() + MAX_S
    listed = [file for split in SPLITS for file, _ in files[split]]
    sample = (root / listed[i] for i in spread_indices(len(listed), len(SPLITS) * MAX_SAMPLED))
    levels = read_value_range(sample, until=until - 2 * MAX_S / 3)
    pools = {
        SPLIT_TITLES[split]: _Pool(root, files[split], chosen[split], recipe.resolution, levels) for split in SPLITS
    }
    looks = sample_splits(pools, until)
    for split, look in zip(SPLITS, looks, strict=True):
        _require_classes(split, pools[look.split].path, labels[split], look)
        require_readable_sample(look)
    notes = (*sample_notes(looks, str(root)), *([] if levels.about is None else [levels.about]))
    require_enough(recipe, info.names, len(labels["train"]) - len(looks[0].unreadable), str(root))
    return notes


def load(recipe: ProxyRecipe, cache: Path, seed: int) -> Dataset:
    """The images of the run with this seed at the recipe's resolution; see `harness.data.resampling`."""
    info, root = describe(recipe), data_root(recipe, IMAGE_FOLDER_LAYOUT)
    files = {split: _files(root, split, info.names) for split in SPLITS}
    content = _content(root, files, info.names, cache)
    info = replace(info, digest=content.digest, images=(len(files["train"]), len(files["val"])))
    chosen, labels = _pool(files, recipe)

    def build(writer: CacheWriter) -> None:
        levels = read_value_range([root / file for split in SPLITS for file, _ in files[split]])
        notes = [note for note in (content.note, levels.about) if note is not None]
        for split, numbers in chosen.items():
            paths = [root / files[split][i][0] for i in numbers]
            notes += _write(writer, split, paths, labels[split], recipe.resolution, levels)
        if identify(recipe, cache).digest != content.digest:
            rule = "the data set must stay as it is while it is read"
            remedy = "Files were changed, added or removed meanwhile. Run the same command when that is over."
            raise DataError(rule, place=str(root), remedy=remedy)
        writer.finish(info, tuple(notes), place=str(root))

    return resampled(cached(cache, NAME, pool_key(recipe, READER, content.digest), build), recipe, seed)


def _pool(
    files: dict[str, list[tuple[str, int]]], recipe: ProxyRecipe
) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.int64]]]:
    """By split, the indices of the images that are stored for all runs, and their labels. Raises `DataError`."""
    labels = {split: np.array([label for _, label in files[split]], np.int64) for split in files}
    chosen = dict(zip(files, pool_indices(labels["train"], labels["val"], recipe), strict=True))
    return chosen, {split: labels[split][numbers] for split, numbers in chosen.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """The images of a split that are stored for all runs."""

    root: Path
    files: Sequence[tuple[str, int]]
    chosen: NDArray[np.int64]
    side: int
    levels: ValueRange

    def __len__(self) -> int:
        return len(self.chosen)

    def path(self, i: int) -> Path:
        """The file of an image."""
        return self.root / self.files[int(self.chosen[i])][0]

    def image_or_failure(self, i: int) -> Image.Image | UnreadableFile:
        """See `ReadableFiles`."""
        decoded = decode_square(self.path(i), self.side, self.levels)
        if isinstance(decoded, UnreadableFile):
            return decoded
        return Image.fromarray(np.ascontiguousarray(decoded.pixels.transpose(1, 2, 0)))


def _require_classes(split: str, path_of: Callable[[int], Path], labels: NDArray[np.int64], look: SplitSample) -> None:
    """Raise `DataError` for a class none of whose images can be read, if all of them were tried."""
    unreadable = np.array(list(look.unreadable), np.int64)
    total, unread = (np.bincount(subset, minlength=int(labels.max()) + 1) for subset in (labels, labels[unreadable]))
    for label in np.flatnonzero((total == unread) & (total > 0)):
        first = int(np.argmax(labels == label))
        raise _unreadable_class(split, path_of(first).parent, list(look.unreadable.values()))


def _unreadable_class(split: str, folder: Path, unreadable: Sequence[UnreadableFile]) -> DataError:
    return _empty(folder, f"of `{split}` must hold a readable image", f"Unreadable: {reasons_text(unreadable)}. ")


def _files(root: Path, split: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """(file relative to the root, label) of every image of a split."""
    return [(f"{split}/{file}", label) for file, label in files_of(root / split, names)]


def _content(
    root: Path, files: dict[str, list[tuple[str, int]]], names: Sequence[str], cache: Path | None
) -> ContentDigest:
    """The classes are named, because one without validation images has no file in that split."""
    listed = [file for split in SPLITS for file, _ in files[split]]
    return read_content(root, listed, extra=list(names), cache=cache)


def classes_of(root: Path, split: str) -> tuple[str, ...]:
    """The folders of a split in the order of their labels, see `label_order`. Raises `DataError` without any."""
    folder = root / split
    names = label_order([path.name for path in _class_folders(folder)]) if folder.is_dir() else []
    if not names:
        rule = f"`{split}` must be a folder with one folder of images per class"
        remedy = f"Expected: {IMAGE_FOLDER_LAYOUT}. Nothing is downloaded."
        raise DataError(rule, value=str(folder), place="proxy.root", remedy=remedy)
    return tuple(names)


def _class_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def files_of(folder: Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """(file, label) of every image, as `class/name` below the folder, in the order of the names.

    Plain strings, since there may be millions. Raises `DataError` for a class without images.
    """
    files: list[tuple[str, int]] = []
    for label, name in enumerate(names):
        images = image_names(folder / name)
        if not images:
            raise _empty(folder / name, "must hold images")
        files += [(f"{name}/{image}", label) for image in images]
    return files


def image_names(folder: Path) -> list[str]:
    """The sorted names of the image files in a folder, without hidden ones; empty if there is no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    endings = tuple(IMAGE_SUFFIXES)
    return sorted(name for name in names if name.lower().endswith(endings) and name[0] != ".")


def _empty(folder: Path, rule: str, reasons: str = "") -> DataError:
    return DataError(
        f"every class {rule}",
        value=folder.name,
        place=str(folder),
        remedy=f"{reasons}Put images there ({', '.join(sorted(IMAGE_SUFFIXES))}), or remove the class from "
        f"train and val.",
    )


def _write(
    writer: CacheWriter, split: str, paths: Sequence[Path], labels: NDArray[np.int64], side: int, levels: ValueRange
) -> list[str]:
    """Decode images into the cache; returns the notes. Raises `DataError` if too many cannot be read."""
    images = writer.array(split, "images", (len(paths), 3, side, side))
    readable = np.zeros(len(paths), bool)
    unreadable: list[UnreadableFile] = []
    remarks: dict[str, list[Path]] = {}
    for i, decoded in enumerate(map_in_threads(lambda path: decode_square(path, side, levels), paths)):
        if isinstance(decoded, UnreadableFile):
            unreadable.append(decoded)
            continue
        images[i - len(unreadable)] = decoded.pixels
        readable[i] = True
        for remark in decoded.remarks:
            remarks.setdefault(remark, []).append(paths[i])
    for label in np.unique(labels):
        if not readable[labels == label].any():
            folder = paths[int(np.argmax(labels == label))].parent
            raise _unreadable_class(split, folder, unreadable)
    require_mostly_readable(SPLIT_TITLES[split], len(paths), unreadable)
    count = len(paths) - len(unreadable)
    writer.shrink(split, "images", count)
    kept = writer.array(split, "labels", (count,))
    kept[:] = labels[readable]
    return [*unreadable_note(SPLIT_TITLES[split], len(paths), unreadable), *remark_notes(SPLIT_TITLES[split], remarks)]


def sample_images(root: Path, count: int, side: int) -> Dataset:
    """Up to `count` images with that side: the first of every class, then the second of every class, and so on.

    Files that cannot be read are skipped, with a note. Raises `DataError` if none can be read.
    """
    listed = list(_round_robin(root))
    levels = read_sampled_value_range(listed)
    names: list[str] = []
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    unreadable: list[UnreadableFile] = []
    for path in listed:
        if len(images) == count:
            break
        decoded = decode_square(path, side, levels)
        if isinstance(decoded, UnreadableFile):
            unreadable.append(decoded)
            continue
        if path.parent.name not in names:
            names.append(path.parent.name)
        images.append(decoded.pixels)
        labels.append(names.index(path.parent.name))
    if not images:
        reasons = f"Unreadable: {reasons_text(unreadable)}. " if unreadable else ""
        rule = "the folder must hold images that can be read"
        raise DataError(rule, place=str(root), remedy=f"{reasons}Expected: {SAMPLES_LAYOUT}.")
    split = Split(np.stack(images), np.array(labels, np.int64))
    notes = (
        [f"{len(unreadable)} images could not be read and are left out: {reasons_text(unreadable)}"]
        if unreadable
        else []
    )
    notes += [] if levels.about is None else [levels.about]
    info = DataInfo(len(names), 3, tuple(names))
    return Dataset(info, split, split, mean=IMAGENET_MEAN, std=IMAGENET_STD, notes=tuple(notes))


def _round_robin(root: Path) -> Iterator[Path]:
    """The files by their position in the class folder, then by the name of the class."""
    if not root.is_dir():
        raise DataError(
            "the images must be in an existing folder", place=str(root), remedy=f"Expected: {SAMPLES_LAYOUT}."
        )
    root = root / "val" if (root / "val").is_dir() else root
    folders = _class_folders(root) or [root]
    queues = [[folder / name for name in image_names(folder)] for folder in folders]
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))
