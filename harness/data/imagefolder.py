"""Images in folders, `root/{train,val}/<class>/<file>`, brought to one size once and kept as uint8.

Grey, palette, CMYK, transparent and 16-bit images become RGB; turned ones are turned back as their EXIF says; the
middle square is kept. Files that cannot be read are left out and told in the data set's notes.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from harness.data.base import DataInfo, Dataset
from harness.data.cache import Writer, cached
from harness.data.local import root_of, square
from harness.data.resampling import pool_key, pool_of, resampled
from harness.errors import DataError
from harness.recipe import Recipe

READER = 1
"""Part of the cache's hash; raised when the same files give other images."""
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
LAYOUT = "folders train and val, each with one folder of images per class"
BATCH = 256
"""Files decoded at a time, which bounds the memory."""
NAMED = 5
"""Unreadable files that the note names."""

UNREADABLE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)
"""What PIL raises for damaged files."""


def describe(recipe: Recipe) -> DataInfo:
    """The classes are the folders in `train`, by name; no file is opened."""
    root = root_of(recipe, LAYOUT)
    names = classes_of(root, "train")
    unknown = sorted(set(classes_of(root, "val")) - set(names))
    if unknown:
        raise DataError(
            f"every class of `val` must be a class of `train` (unknown: {', '.join(unknown[:NAMED])})",
            place=str(root / "val"),
            remedy=f"Expected: {LAYOUT}.",
        )
    return DataInfo(len(names), 3, names)


def load(recipe: Recipe, cache: Path, seed: int) -> Dataset:
    """The images of the run with this seed at the recipe's resolution; see `harness.data.resampling`."""
    info, root = describe(recipe), root_of(recipe, LAYOUT)
    files = {split: _paths(root / split, info.names) for split in ("train", "val")}
    key = {
        "reader": READER,
        "root": str(root),
        "files": _digest(files["train"] + files["val"]),
        "resolution": recipe.resolution,
        "pool": pool_key(recipe),
    }
    labels = {split: np.array([label for _, label in files[split]], np.int64) for split in files}
    chosen = dict(zip(files, pool_of(labels["train"], labels["val"], recipe), strict=True))

    def build(writer: Writer) -> None:
        notes = []
        for split, numbers in chosen.items():
            paths = [files[split][i][0] for i in numbers]
            notes += _write(writer, split, paths, labels[split][numbers], recipe.resolution)
        writer.finish(info, tuple(notes))

    return resampled(cached(cache, "imagefolder", key, build), recipe, seed)


def classes_of(root: Path, split: str) -> tuple[str, ...]:
    """The folders of a split, by name. Raises `DataError` where there is none."""
    folder = root / split
    names = sorted(path.name for path in folder.iterdir() if _is_class(path)) if folder.is_dir() else []
    if not names:
        raise DataError(
            f"`{split}` must be a folder with one folder of images per class",
            value=str(folder),
            place="proxy.root",
            remedy=f"Expected: {LAYOUT}. Nothing is downloaded.",
        )
    return tuple(names)


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def files_of(folder: Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """(file, label) of every image, as `class/name` below the folder, in the order of the names.

    Plain texts, for there may be millions. Raises `DataError` for a class without any.
    """
    found: list[tuple[str, int]] = []
    for label, name in enumerate(names):
        images = image_names(folder / name)
        if not images:
            raise _empty(folder / name, "must hold images")
        found += [(f"{name}/{image}", label) for image in images]
    return found


def image_names(folder: Path) -> list[str]:
    """The names of the image files in a folder, sorted; hidden ones left out, and none where there is no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    endings = tuple(ENDINGS)
    return sorted(name for name in names if name.lower().endswith(endings) and name[0] != ".")


def _paths(folder: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    return [(folder / file, label) for file, label in files_of(folder, names)]


def _empty(folder: Path, rule: str) -> DataError:
    return DataError(
        f"every class {rule}",
        value=folder.name,
        place=str(folder),
        remedy=f"Put images there ({', '.join(sorted(ENDINGS))}), or remove the class from train and val.",
    )


def _digest(files: Sequence[tuple[Path, int]]) -> str:
    """Identity of the files by name, size and time of their last change."""
    digest = blake2b(digest_size=16)
    for path, _ in files:
        stat = path.stat()
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _write(writer: Writer, split: str, paths: Sequence[Path], labels: NDArray[np.int64], side: int) -> list[str]:
    """Decode into the cache; returns what to tell. Raises `DataError` for a class of which nothing could be read."""
    images = writer.array(split, "images", (len(paths), 3, side, side))
    readable = np.zeros(len(paths), bool)
    count = 0
    for i, image in enumerate(_decoded(paths, side)):
        if image is not None:
            images[count] = image
            readable[i] = True
            count += 1
    for label in np.unique(labels):
        if not readable[labels == label].any():
            raise _empty(paths[int(np.argmax(labels == label))].parent, f"of `{split}` must hold a readable image")
    writer.shrink(split, "images", count)
    kept = writer.array(split, "labels", (count,))
    kept[:] = labels[readable]
    return _note(split, [path for path, good in zip(paths, readable, strict=True) if not good])


def _note(split: str, lost: Sequence[Path]) -> list[str]:
    if not lost:
        return []
    named = ", ".join(f"{path.parent.name}/{path.name}" for path in lost[:NAMED])
    more = ", ..." if len(lost) > NAMED else ""
    return [f"{len(lost)} of the {split} images could not be read and are left out: {named}{more}"]


def _decoded(paths: Sequence[Path], side: int) -> Iterator[NDArray[np.uint8] | None]:
    """Each image as (3, side, side) in the order of the paths, None for a damaged one; PIL decodes in threads."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(paths), BATCH):
            yield from pool.map(lambda path: read_image(path, side), paths[start : start + BATCH])


def read_image(path: Path, side: int) -> NDArray[np.uint8] | None:
    """The image's middle square as RGB, (3, side, side); None for a file that cannot be read."""
    image = open_image(path)
    return None if image is None else square(image, side)


def open_image(path: Path) -> Image.Image | None:
    """The whole image as RGB, turned as its EXIF says; None for a file that cannot be read."""
    try:
        with Image.open(path) as image:
            return _as_rgb(ImageOps.exif_transpose(image))
    except UNREADABLE:
        return None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which PIL would clip and not scale
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P":  # may be transparent, which PIL warns of on the direct way
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
