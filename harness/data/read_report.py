"""Unreadable images of a data set: their report, and the search for them before anything is trained or written.

A report is a note with their number, or an error if there are too many. Before a training, images are decoded as in it:
of a split of up to `MAX_SAMPLED` images all, and the result is exact; of a larger split, or after the time limit, an
evenly spread sample, and the split is refused only if it is surely invalid.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.cache import require_varied_counts
from harness.data.image_file import UnreadableFile
from harness.data.threads import map_in_threads
from harness.errors import DataError, first_of

MAX_UNREADABLE_SHARE = 0.1
"""Largest allowed share of unreadable images of a split."""
ALWAYS_TOLERATED = 2
"""Number of unreadable images that are allowed in any split."""
MAX_REREAD = 2000
"""Maximum number of files that are read again to name the unreadable ones."""
MAX_REASONS = 5
"""Maximum number of reasons that are listed."""
MAX_NAMED = 5
"""Maximum number of files that a note lists for each reason."""
MAX_SAMPLED = 2048
"""Maximum number of images of a split that are decoded."""
MAX_S = 20.0
"""Time limit for all splits of a data set."""
DEVIATIONS = 4.0
"""Standard deviations by which a sample must be above the allowed share of unreadable images to be refused."""


def unreadable_note(split: str, total: int, unreadable: Sequence[UnreadableFile]) -> list[str]:
    """A note with the numbers of images left out and remaining, and the reasons with the first files of each."""
    if not unreadable:
        return []
    return [
        f"{len(unreadable):,} of the {split} images could not be read and are left out, "
        f"{total - len(unreadable):,} are left: {reasons_text(unreadable)}"
    ]


def require_mostly_readable(split: str, total: int, unreadable: Sequence[UnreadableFile]) -> None:
    """Raise `DataError` if more than a tenth of a split could not be read."""
    if has_too_many_unreadable(total, len(unreadable)):
        raise too_many_unreadable_error(split, f"{len(unreadable):,} of {total:,}", unreadable)


def too_many_unreadable_error(split: str, value: str, unreadable: Sequence[UnreadableFile]) -> DataError:
    """The error for a split with too many unreadable images; `unreadable` are those that it lists."""
    named = f"Unreadable: {reasons_text(unreadable)}. " if unreadable else ""
    rule = f"at most {100 * MAX_UNREADABLE_SHARE:.0f} % of the {split} images may be unreadable"
    remedy = f"{named}Restore these files; or remove them, and the result is of the images that are left."
    return DataError(rule, value=value, place=str(unreadable[0].path.parent) if unreadable else None, remedy=remedy)


class ReadableFiles(Protocol):
    """Images that are read on access."""

    def __len__(self) -> int: ...

    def image_or_failure(self, i: int) -> Image.Image | UnreadableFile:
        """An image in color, or the reason why it cannot be read.

        Raises `DataError`, naming the file, for an error that makes the data set unusable for training.
        """
        ...


def require_readable(split: str, total: int, unreadable: int, files: ReadableFiles) -> None:
    """As `require_mostly_readable`, if unreadable images were only counted: the first of them are read again."""
    if has_too_many_unreadable(total, unreadable):
        reread = (files.image_or_failure(i) for i in range(min(len(files), MAX_REREAD)))
        first = list(islice((image for image in reread if isinstance(image, UnreadableFile)), MAX_NAMED))
        raise too_many_unreadable_error(split, f"{unreadable:,} of {total:,}", first)


def has_too_many_unreadable(total: int, unreadable: int) -> bool:
    """Whether more images of a split are unreadable than is allowed."""
    return unreadable > max(ALWAYS_TOLERATED, MAX_UNREADABLE_SHARE * total) or unreadable == total > 0


def reasons_text(unreadable: Iterable[UnreadableFile]) -> str:
    """The reasons as `28 truncated (class_a/1.jpg, class_a/2.jpg, ...); 1 permission denied (class_b/7.jpg)`."""
    groups: dict[str, list[Path]] = {}
    for file in unreadable:
        groups.setdefault(file.reason, []).append(file.path)
    largest_first = sorted(groups.items(), key=lambda group: -len(group[1]))
    texts = [f"{len(paths):,} {reason} ({files_text(paths)})" for reason, paths in largest_first[:MAX_REASONS]]
    left = sum(len(paths) for _, paths in largest_first[MAX_REASONS:])
    return "; ".join([*texts, *([f"{left:,} for other reasons"] if left else [])])


def remark_notes(split: str, remarks: Mapping[str, Sequence[Path]]) -> list[str]:
    """A note for each remark on images that were read."""
    return [
        f"{len(paths):,} of the {split} images {'has' if len(paths) == 1 else 'have'} {remark} ({files_text(paths)})"
        for remark, paths in sorted(remarks.items())
    ]


def files_text(paths: Sequence[Path]) -> str:
    """The first files with their folders."""
    return first_of([f"{path.parent.name}/{path.name}" for path in paths], MAX_NAMED)


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
    return image if isinstance(image, UnreadableFile) else np.array(image.histogram(), np.float64).reshape(3, 256)


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
