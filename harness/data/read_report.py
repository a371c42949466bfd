"""What a data set lost while it was read: as notes that keep their number, and as an error where it is too much."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from PIL import Image

from harness.data.image_file import Unreadable, ValueRange, decode_image
from harness.errors import DataError

MAX_UNREADABLE_SHARE = 0.1
"""Share of the images of a split that may be unreadable."""
ALWAYS_TOLERATED = 2
"""Unreadable images that are allowed in any split."""
MAX_REREAD = 2000
"""Files that are read again to name those that are unreadable."""
MAX_REASONS = 5
"""Reasons that are named."""
MAX_NAMED = 5
"""Files that a note names for each reason."""


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A file that gave no image."""

    path: Path
    reason: str


def unreadable_note(split: str, total: int, lost: Sequence[UnreadableFile]) -> list[str]:
    """A note with the number of images left out and left over, and the reasons with the first files of each."""
    if not lost:
        return []
    return [
        f"{len(lost):,} of the {split} images could not be read and are left out, {total - len(lost):,} are left: "
        f"{reasons_text(lost)}"
    ]


def require_mostly_readable(split: str, total: int, lost: Sequence[UnreadableFile]) -> None:
    """Raise `DataError` where more than a tenth of a split could not be read."""
    if has_too_many_unreadable(total, len(lost)):
        raise too_many_unreadable_error(split, f"{len(lost):,} of {total:,}", lost)


def too_many_unreadable_error(split: str, value: str, lost: Sequence[UnreadableFile]) -> DataError:
    """The error of a split of which too much could not be read; `lost` are those that it names."""
    named = f"Unreadable: {reasons_text(lost)}. " if lost else ""
    return DataError(
        f"at most {100 * MAX_UNREADABLE_SHARE:.0f} % of the {split} images may be unreadable",
        value=value,
        place=str(lost[0].path.parent) if lost else None,
        remedy=f"{named}Restore these files; or remove them, and the result is of the images that are left.",
    )


def image_or_failure_of(path: Path, levels: ValueRange | None = None) -> Image.Image | UnreadableFile:
    """The whole image of a file as RGB, or why there is none."""
    try:
        return decode_image(path, levels).image
    except Unreadable as error:
        return UnreadableFile(path, str(error))


class ReadableFiles(Protocol):
    """Images that are read when they are asked for."""

    def __len__(self) -> int: ...

    def image_or_failure(self, i: int) -> Image.Image | UnreadableFile:
        """An image in color, or why it cannot be shown.

        Raises `DataError`, naming the file, for what makes the data set unfit to be trained on.
        """
        ...


def image_or_none(found: Image.Image | UnreadableFile) -> Image.Image | None:
    """The image, where there is one."""
    return None if isinstance(found, UnreadableFile) else found


def require_readable(split: str, total: int, lost: int, files: ReadableFiles) -> None:
    """As `require_mostly_readable`, where the unreadable images were only counted: the first of them are read again."""
    if has_too_many_unreadable(total, lost):
        looked = (files.image_or_failure(i) for i in range(min(len(files), MAX_REREAD)))
        first = list(islice((each for each in looked if isinstance(each, UnreadableFile)), MAX_NAMED))
        raise too_many_unreadable_error(split, f"{lost:,} of {total:,}", first)


def has_too_many_unreadable(total: int, lost: int) -> bool:
    """Whether so many unreadable images make a split another one."""
    return lost > max(ALWAYS_TOLERATED, MAX_UNREADABLE_SHARE * total) or lost == total > 0


def reasons_text(lost: Iterable[UnreadableFile]) -> str:
    """As `28 truncated (class_a/1.jpg, class_a/2.jpg, ...); 1 permission denied (class_b/7.jpg)`."""
    groups: dict[str, list[Path]] = {}
    for each in lost:
        groups.setdefault(each.reason, []).append(each.path)
    largest_first = sorted(groups.items(), key=lambda group: -len(group[1]))
    texts = [f"{len(paths):,} {reason} ({files_text(paths)})" for reason, paths in largest_first[:MAX_REASONS]]
    left = sum(len(paths) for _, paths in largest_first[MAX_REASONS:])
    return "; ".join([*texts, *([f"{left:,} for other reasons"] if left else [])])


def remark_notes(split: str, remarks: Mapping[str, Sequence[Path]]) -> list[str]:
    """A note for each thing that was left out of images that were read."""
    return [
        f"{len(paths):,} of the {split} images {'has' if len(paths) == 1 else 'have'} {remark} ({files_text(paths)})"
        for remark, paths in sorted(remarks.items())
    ]


def files_text(paths: Sequence[Path]) -> str:
    """The first files with their folders."""
    named = ", ".join(f"{path.parent.name}/{path.name}" for path in paths[:MAX_NAMED])
    return f"{named}, ..." if len(paths) > MAX_NAMED else named
