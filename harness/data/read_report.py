"""What a data set lost while it was read: as notes that keep their number, and as an error where it is too much."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from PIL import Image

from harness.data.image_file import Levels, Unreadable, open_picture
from harness.errors import DataError

MOST_LOST = 0.1
"""Share of the images of a split that may be unreadable."""
ALWAYS_ALLOWED = 2
"""Unreadable images that are allowed in any split."""
LOOKED = 2000
"""Files that are read again to name those that are unreadable."""
REASONS = 5
"""Reasons that are named."""
NAMED = 5
"""Files that a note names for each reason."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A file that gave no image."""

    path: Path
    reason: str


def lost_note(split: str, total: int, lost: Sequence[Lost]) -> list[str]:
    """A note with the number of images left out and left over, and the reasons with the first files of each."""
    if not lost:
        return []
    return [
        f"{len(lost):,} of the {split} images could not be read and are left out, {total - len(lost):,} are left: "
        f"{reasons_text(lost)}"
    ]


def require_most(split: str, total: int, lost: Sequence[Lost]) -> None:
    """Raise `DataError` where more than a tenth of a split could not be read."""
    if is_too_much(total, len(lost)):
        raise too_many_lost(split, f"{len(lost):,} of {total:,}", lost)


def too_many_lost(split: str, value: str, lost: Sequence[Lost]) -> DataError:
    """The error of a split of which too much could not be read; `lost` are those that it names."""
    named = f"Unreadable: {reasons_text(lost)}. " if lost else ""
    return DataError(
        f"at most {100 * MOST_LOST:.0f} % of the {split} images may be unreadable",
        value=value,
        place=str(lost[0].path.parent) if lost else None,
        remedy=f"{named}Restore these files; or remove them, and the result is of the images that are left.",
    )


def look_at_file(path: Path, levels: Levels | None = None) -> Image.Image | Lost:
    """The whole image of a file as RGB, or why there is none."""
    try:
        return open_picture(path, levels).image
    except Unreadable as error:
        return Lost(path, str(error))


class Files(Protocol):
    """Images that are read when they are asked for."""

    def __len__(self) -> int: ...

    def look(self, i: int) -> Image.Image | Lost:
        """An image in color, or why it cannot be shown.

        Raises `DataError`, naming the file, for what makes the data set unfit to be trained on.
        """
        ...


def image_or_none(found: Image.Image | Lost) -> Image.Image | None:
    """The image, where there is one."""
    return None if isinstance(found, Lost) else found


def require_readable(split: str, total: int, lost: int, files: Files) -> None:
    """As `require_most`, where the unreadable images were only counted: the first of them are read again."""
    if is_too_much(total, lost):
        looked = (files.look(i) for i in range(min(len(files), LOOKED)))
        first = list(islice((each for each in looked if isinstance(each, Lost)), NAMED))
        raise too_many_lost(split, f"{lost:,} of {total:,}", first)


def is_too_much(total: int, lost: int) -> bool:
    """Whether so many unreadable images make a split another one."""
    return lost > max(ALWAYS_ALLOWED, MOST_LOST * total) or lost == total > 0


def reasons_text(lost: Iterable[Lost]) -> str:
    """As `28 truncated (class_a/1.jpg, class_a/2.jpg, ...); 1 permission denied (class_b/7.jpg)`."""
    groups: dict[str, list[Path]] = {}
    for each in lost:
        groups.setdefault(each.reason, []).append(each.path)
    largest_first = sorted(groups.items(), key=lambda group: -len(group[1]))
    texts = [f"{len(paths):,} {reason} ({files_text(paths)})" for reason, paths in largest_first[:REASONS]]
    left = sum(len(paths) for _, paths in largest_first[REASONS:])
    return "; ".join([*texts, *([f"{left:,} for other reasons"] if left else [])])


def remark_notes(split: str, remarks: Mapping[str, Sequence[Path]]) -> list[str]:
    """A note for each thing that was left out of images that were read."""
    return [
        f"{len(paths):,} of the {split} images {'has' if len(paths) == 1 else 'have'} {remark} ({files_text(paths)})"
        for remark, paths in sorted(remarks.items())
    ]


def files_text(paths: Sequence[Path]) -> str:
    """The first files with their folders."""
    named = ", ".join(f"{path.parent.name}/{path.name}" for path in paths[:NAMED])
    return f"{named}, ..." if len(paths) > NAMED else named
