"""CIFAR-10 and CIFAR-100 from a local copy of their "python version", read without running code in the pickles.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009; layout as distributed:
`cifar-10-batches-py/{data_batch_1..5, test_batch, batches.meta}` and `cifar-100-python/{train, test, meta}`.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.proxy import ProxyRecipe
from harness.data.cache import SPLIT_TITLES, CacheWriter, cached, is_cached, require_varied
from harness.data.content import read_content
from harness.data.dataset import DataInfo, Dataset, Split
from harness.data.resampling import pool_indices, pool_key, resampled
from harness.data.subsets import center_square, data_root, require_enough
from harness.errors import DataError

READER = 1
"""Part of the cache's hash; raised when the same files result in other images."""
SIDE = 32


@dataclass(frozen=True, slots=True)
class CifarLayout:
    """Names of the files, and of the keys in them."""

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
CIFAR_LAYOUTS = {
    "cifar10": CifarLayout("cifar-10-batches-py", _BATCHES, "test_batch", "batches.meta", "labels", "label_names"),
    "cifar100": CifarLayout("cifar-100-python", ("train",), "test", "meta", "fine_labels", "fine_label_names"),
}


def describe_layout(name: str) -> str:
    """The expected folder, for messages about images that are not there."""
    return f"a folder `{CIFAR_LAYOUTS[name].folder}` as it is distributed"


def describe(recipe: ProxyRecipe) -> DataInfo:
    """The names of the classes; checks that every file exists."""
    layout, folder = CIFAR_LAYOUTS[recipe.dataset], _folder(recipe)
    names = _unpickle(folder / layout.meta).get(layout.names)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _broken(folder / layout.meta, f"must list the classes under `{layout.names}`")
    return DataInfo(len(names), 3, tuple(names))


def identify(recipe: ProxyRecipe, cache: Path | None) -> DataInfo:
    """As `describe`, with the digest over the content of all files."""
    layout, info = CIFAR_LAYOUTS[recipe.dataset], describe(recipe)
    content = read_content(
        _folder(recipe), [*layout.train, layout.test, layout.meta], extra=recipe.dataset, cache=cache
    )
    return replace(info, digest=content.digest)


def check(recipe: ProxyRecipe, cache: Path, digest: str | None) -> tuple[str, ...]:
    """See `harness.data.check`: all files are read."""
    if is_cached(cache, recipe.dataset, pool_key(recipe, READER, digest)):
        return ()
    folder, info = _folder(recipe), describe(recipe)
    pool = _pool(recipe, folder, info.classes)
    for word, split in zip(SPLIT_TITLES.values(), pool, strict=True):
        require_varied(split.images, word, str(folder))
    train, val = map(len, pool)
    require_enough(recipe, info.names, train, str(folder))
    return (f"looked at all {train:,} training images and all {val:,} validation images",)


def load(recipe: ProxyRecipe, cache: Path, seed: int) -> Dataset:
    """The images of the run with this seed at the recipe's resolution; see `harness.data.resampling`."""
    folder, info = _folder(recipe), identify(recipe, cache)

    def build(writer: CacheWriter) -> None:
        for name, split in zip(SPLIT_TITLES, _pool(recipe, folder, info.classes), strict=True):
            writer.save(name, _at_side(split.images[:], split.labels, recipe.resolution))
        writer.finish(info, place=str(folder))

    return resampled(cached(cache, recipe.dataset, pool_key(recipe, READER, info.digest), build), recipe, seed)


def _pool(recipe: ProxyRecipe, folder: Path, classes: int) -> list[Split]:
    """The training and validation images that are stored for all runs, in their original size."""
    layout = CIFAR_LAYOUTS[recipe.dataset]
    images, labels = zip(*(_read(folder / file, layout, classes) for file in layout.train), strict=True)
    train, val = (np.concatenate(images), np.concatenate(labels)), _read(folder / layout.test, layout, classes)
    chosen = pool_indices(train[1], val[1], recipe)
    return [Split(split[0][kept], split[1][kept]) for split, kept in zip((train, val), chosen, strict=True)]


def kind_of(folder: Path) -> str | None:
    """`cifar10` or `cifar100` if a folder has the layout in which it is distributed, else None."""
    for name, layout in CIFAR_LAYOUTS.items():
        for place in (folder / layout.folder, folder):
            if (place / layout.meta).is_file() and (place / layout.test).is_file():
                return name
    return None


def _folder(recipe: ProxyRecipe) -> Path:
    """`proxy.root` itself, or the folder with the distributed name in it. Raises `DataError` if it is incomplete."""
    layout = CIFAR_LAYOUTS[recipe.dataset]
    files = (*layout.train, layout.test, layout.meta)
    expected = f"a folder `{layout.folder}` with the files {', '.join(files)}"
    root = data_root(recipe, expected)
    folder = root / layout.folder if (root / layout.folder).is_dir() else root
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        rule = f"the folder must hold {recipe.dataset} as it is distributed (missing: {', '.join(missing)})"
        remedy = f"Expected there: {expected}. Nothing is downloaded."
        raise DataError(rule, value=str(root), place="proxy.root", remedy=remedy)
    return folder


def _at_side(images: NDArray[np.uint8], labels: NDArray[np.int64], side: int) -> Split:
    if side != SIDE:
        color = [Image.fromarray(image) for image in images.transpose(0, 2, 3, 1)]
        images = np.stack([center_square(image, side) for image in color])
    return Split(images, labels)


def _read(path: Path, layout: CifarLayout, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 3, 32, 32) and labels (N,) of one batch."""
    batch = _unpickle(path)
    data, labels = batch.get("data"), batch.get(layout.labels)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * SIDE * SIDE,):
        raise _broken(path, f"must hold rows of {3 * SIDE * SIDE} bytes under `data`")
    if not isinstance(labels, list) or len(labels) != len(data) or not set(labels) <= set(range(classes)):
        raise _broken(path, f"must hold one label below {classes} per image under `{layout.labels}`")
    return data.reshape(-1, 3, SIDE, SIDE), np.array(labels, np.int64)


def _broken(path: Path, rule: str) -> DataError:
    return DataError(
        f"`{path.name}` {rule}",
        place=str(path),
        remedy="Unpack the archive again; it is the one called the python version.",
    )


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise any exception
        raise _broken(path, f"must be a pickle of arrays, lists and strings ({error})") from error
    if not isinstance(content, dict):
        raise _broken(path, "must hold a dictionary")
    return content


def _dtype(kind: str, align: int, copy: int) -> np.dtype[Any]:
    """`numpy.dtype` with the arguments that Python 2 wrote: numbers where numpy now expects booleans."""
    return np.dtype(kind, bool(align), bool(copy))


def _latin1(text: str, encoding: str) -> bytes:
    """Decode bytes in the form in which Python 3 writes them to an old pickle."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding}")
    return text.encode("latin1")


_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]

ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("_codecs", "encode"): _latin1,
}
"""All functions that such a pickle may call."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ALLOWED[module, name]
