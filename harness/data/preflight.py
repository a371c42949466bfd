"""The check of a data set before anything is trained or written: its images are decoded as in a training.

Of a split of up to `MAX_SAMPLED` images all are decoded, and the result is exact. Of a larger split, or after the time
limit, an evenly spread sample is decoded; the split is refused only if it is surely invalid.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.proxy import ProxyRecipe
from harness.data.cache import require_varied_counts
from harness.data.image_file import UnreadableFile
from harness.data.read_report import (
    MAX_UNREADABLE_SHARE,
    ReadableFiles,
    reasons_text,
    require_mostly_readable,
    too_many_unreadable_error,
    unreadable_note,
)
from harness.data.threads import map_in_threads
from harness.errors import DataError

MAX_SAMPLED = 2048
"""Maximum number of images of a split that are decoded."""
MAX_S = 20.0
"""Time limit for all splits of a data set."""
DEVIATIONS = 4.0
"""Standard deviations by which a sample must be above the allowed share of unreadable images to be refused."""
MIN_CLASSES = 2


@dataclass(frozen=True, slots=True, eq=False)
class SplitSample:
    """The result of decoding a sample of the images of a split."""

    split: str
    total: int
    sampled: int
    unreadable: Mapping[int, UnreadableFile]
    """The unreadable images by index."""
    counts: NDArray[np.float64]
    """(3, 256): how often each channel of the readable images has each value."""

    @property
    def is_whole(self) -> bool:
        """Whether all images were decoded."""
        return self.sampled == self.total

    @property
    def about(self) -> str:
        """The decoded images as `all 80 training images` or `2,048 of 90,000 training images`."""
        return (
            f"{f'all {self.total:,}' if self.is_whole else f'{self.sampled:,} of {self.total:,}'} {self.split} images"
        )


def check_images(splits: Mapping[str, ReadableFiles], place: str | None) -> tuple[str, ...]:
    """Decode the images of all splits, or samples of them; returns notes.

    Raises `DataError` if too many cannot be read, or all are alike.
    """
    looks = sample_splits(splits, time.monotonic() + MAX_S)
    for look in looks:
        require_readable_sample(look)
    return sample_notes(looks, place)


def sample_notes(looks: list[SplitSample], place: str | None) -> tuple[str, ...]:
    """The notes on readable splits. Raises `DataError` if all images of one are alike."""
    for look in looks:
        require_varied_counts(look.counts, look.sampled - len(look.unreadable), look.split, place)
    return (_about(looks), *(note for look in looks for note in _unreadable_notes(look)))


def sample_splits(splits: Mapping[str, ReadableFiles], until: float) -> list[SplitSample]:
    """Decode the images of all splits, or a sample of each, until a time of `time.monotonic`."""
    looks = []
    for left, (split, files) in zip(range(len(splits), 0, -1), splits.items(), strict=True):
        now = time.monotonic()
        looks.append(_sample_split(split, files, now + (until - now) / left))
    return looks


def spread_indices(total: int, most: int) -> list[int]:
    """Evenly spread indices below `total`, in an order in which every prefix is spread over the range, too."""
    numbers = np.linspace(0, total - 1, min(total, most)).round().astype(np.int64)
    chosen: list[int] = np.random.default_rng(0).permutation(numbers).tolist()
    return chosen


def _sample_split(split: str, files: ReadableFiles, until: float) -> SplitSample:
    chosen = spread_indices(len(files), MAX_SAMPLED)
    counts, unreadable, sampled = np.zeros((3, 256)), {}, 0
    for i, histogram in zip(
        chosen, map_in_threads(lambda i: _histogram_of(files, i), chosen, until=until), strict=False
    ):
        sampled += 1
        if isinstance(histogram, UnreadableFile):
            unreadable[i] = histogram
        else:
            counts += histogram
    in_order = {i: unreadable[i] for i in sorted(unreadable)}
    return SplitSample(split, len(files), sampled, in_order, counts)


def _histogram_of(files: ReadableFiles, i: int) -> NDArray[np.float64] | UnreadableFile:
    """How often each channel of an image has each value, (3, 256)."""
    image = files.image_or_failure(i)
    return image if isinstance(image, UnreadableFile) else histogram(image)


def histogram(image: Image.Image) -> NDArray[np.float64]:
    """How often each channel of an RGB image has each value, (3, 256)."""
    return np.array(image.histogram(), np.float64).reshape(3, 256)


def require_readable_sample(look: SplitSample) -> None:
    """Raise `DataError` if surely more than a tenth of the split cannot be read."""
    unreadable = list(look.unreadable.values())
    if look.is_whole:
        require_mostly_readable(look.split, look.total, unreadable)
        return
    allowed = MAX_UNREADABLE_SHARE * look.sampled
    if len(unreadable) > allowed + DEVIATIONS * (allowed * (1 - MAX_UNREADABLE_SHARE)) ** 0.5:
        value = f"{len(unreadable):,} of {look.sampled:,} that were looked at, of {look.total:,} in all"
        raise too_many_unreadable_error(look.split, value, unreadable)


def require_enough(recipe: ProxyRecipe, names: tuple[str, ...], train: int, place: str | None) -> None:
    """Raise `DataError` if there are too few classes or training images for a training."""
    if recipe.epochs == 0:
        return
    require_classes(names, place)
    count = min(recipe.train_size or train, train)
    if count < recipe.batch_size:
        rule = f"`proxy.batch_size` must be at most the {count:,} training images"
        raise DataError(rule, value=recipe.batch_size, place="proxy.batch_size", remedy="Lower it.")


def require_classes(names: tuple[str, ...], place: str | None) -> None:
    """Raise `DataError` for a single class, for which every prediction is correct."""
    if len(names) < MIN_CLASSES:
        rule = "images must be of two classes at least for a network to be trained to tell them apart"
        remedy = "Put the images of another class into a folder next to it, in train and val."
        raise DataError(rule, value=", ".join(names), place=place, remedy=remedy)


def _about(looks: list[SplitSample]) -> str:
    rest = "" if all(look.is_whole for look in looks) else "; the others are checked when they are read"
    return f"looked at {' and '.join(look.about for look in looks)}{rest}"


def _unreadable_notes(look: SplitSample) -> list[str]:
    unreadable = list(look.unreadable.values())
    if look.is_whole or not unreadable:
        return unreadable_note(look.split, look.total, unreadable)
    return [
        f"{len(unreadable):,} of the {look.sampled:,} {look.split} images that were looked at could not be read: "
        f"{reasons_text(unreadable)}"
    ]
