"""The check of a data set before anything is trained or written: its images are decoded as a training decodes them.

Of a split of up to `MOST_LOOKED` images all are decoded, and what is found is what a training would find. Of a larger
one, or where the time is over, an evenly spread sample is: it is refused only where the whole is at fault beyond doubt.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.proxy import Recipe
from harness.data.cache import require_varied_counts
from harness.data.read_report import MOST_LOST, Files, Lost, lost_note, reasons_text, require_most, too_many_lost
from harness.data.threads import in_threads
from harness.errors import DataError

MOST_LOOKED = 2048
"""Images of a split that are decoded."""
MOST_S = 20.0
"""Seconds for all splits of a data set."""
DEVIATIONS = 4.0
"""Standard deviations by which a sample must be above the allowed share of unreadable images to be refused."""
LEAST_CLASSES = 2


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What was seen of the images of a split."""

    split: str
    total: int
    looked: int
    lost: Mapping[int, Lost]
    """Those that cannot be read, by their numbers."""
    counts: NDArray[np.float64]
    """(3, 256): how often each channel of the others has each value."""

    @property
    def is_whole(self) -> bool:
        """Whether all images were looked at."""
        return self.looked == self.total

    @property
    def about(self) -> str:
        """As `all 80 training images` or `2,048 of 90,000 training images`."""
        return f"{f'all {self.total:,}' if self.is_whole else f'{self.looked:,} of {self.total:,}'} {self.split} images"


def check_images(splits: Mapping[str, Files], place: str | None) -> tuple[str, ...]:
    """Look at the images of all splits, by name; returns notes on what was seen.

    Raises `DataError` where too many cannot be read, or all are alike.
    """
    looks = look_at(splits, time.monotonic() + MOST_S)
    for look in looks:
        require_readable_look(look)
    return judged(looks, place)


def judged(looks: list[Look], place: str | None) -> tuple[str, ...]:
    """The notes on splits that can be read. Raises `DataError` where all images of one are alike."""
    for look in looks:
        require_varied_counts(look.counts, look.looked - len(look.lost), look.split, place)
    return (_about(looks), *(note for look in looks for note in _lost_notes(look)))


def look_at(splits: Mapping[str, Files], until: float) -> list[Look]:
    """Decode the images of all splits, or a sample of each, until a time of `time.monotonic`."""
    looks = []
    for left, (split, files) in zip(range(len(splits), 0, -1), splits.items(), strict=True):
        now = time.monotonic()
        looks.append(_look(split, files, now + (until - now) / left))
    return looks


def spread(total: int, most: int) -> list[int]:
    """Evenly spread numbers below `total`, in an order of which every beginning is spread, too."""
    numbers = np.linspace(0, total - 1, min(total, most)).round().astype(np.int64)
    chosen: list[int] = np.random.default_rng(0).permutation(numbers).tolist()
    return chosen


def _look(split: str, files: Files, until: float) -> Look:
    chosen = spread(len(files), MOST_LOOKED)
    counts, lost, looked = np.zeros((3, 256)), {}, 0
    for i, found in zip(chosen, in_threads(lambda i: _seen(files, i), chosen, until=until), strict=False):
        looked += 1
        if isinstance(found, Lost):
            lost[i] = found
        else:
            counts += found
    in_order = {i: lost[i] for i in sorted(lost)}
    return Look(split, len(files), looked, in_order, counts)


def _seen(files: Files, i: int) -> NDArray[np.float64] | Lost:
    """How often each channel of an image has each value, (3, 256)."""
    found = files.look(i)
    return found if isinstance(found, Lost) else histogram(found)


def histogram(image: Image.Image) -> NDArray[np.float64]:
    """How often each channel of an RGB image has each value, (3, 256)."""
    return np.array(image.histogram(), np.float64).reshape(3, 256)


def require_readable_look(look: Look) -> None:
    """Raise `DataError` where more than a tenth of the split cannot be read, as far as that is certain."""
    lost = list(look.lost.values())
    if look.is_whole:
        require_most(look.split, look.total, lost)
        return
    allowed = MOST_LOST * look.looked
    if len(lost) > allowed + DEVIATIONS * (allowed * (1 - MOST_LOST)) ** 0.5:
        value = f"{len(lost):,} of {look.looked:,} that were looked at, of {look.total:,} in all"
        raise too_many_lost(look.split, value, lost)


def require_enough(recipe: Recipe, names: tuple[str, ...], train: int, place: str | None) -> None:
    """Raise `DataError` where the classes or the training images are too few to be trained on."""
    if recipe.epochs == 0:
        return
    require_classes(names, place)
    count = min(recipe.train_size or train, train)
    if count < recipe.batch_size:
        raise DataError(
            f"`proxy.batch_size` must be at most the {count:,} training images",
            value=recipe.batch_size,
            place="proxy.batch_size",
            remedy="Lower it.",
        )


def require_classes(names: tuple[str, ...], place: str | None) -> None:
    """Raise `DataError` for a single class, of which every answer is right."""
    if len(names) < LEAST_CLASSES:
        raise DataError(
            "images must be of two classes at least for a network to be trained to tell them apart",
            value=", ".join(names),
            place=place,
            remedy="Put the images of another class into a folder next to it, in train and val.",
        )


def _about(looks: list[Look]) -> str:
    rest = "" if all(look.is_whole for look in looks) else "; the others are checked when they are read"
    return f"looked at {' and '.join(look.about for look in looks)}{rest}"


def _lost_notes(look: Look) -> list[str]:
    lost = list(look.lost.values())
    if look.is_whole or not lost:
        return lost_note(look.split, look.total, lost)
    return [
        f"{len(lost):,} of the {look.looked:,} {look.split} images that were looked at could not be read: "
        f"{reasons_text(lost)}"
    ]
