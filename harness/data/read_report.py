"""Reports on unreadable images of a data set: notes with their number, or an error if there are too many."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from PIL import Image

from harness.data.image_file import UnreadableFile
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
