"""What a data set lost while it was read: as notes that keep their number, and as an error where it is too much."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError

MOST_LOST = 0.1
"""Share of the images of a split that may be unreadable."""
ALWAYS_ALLOWED = 2
"""Unreadable images that are allowed in any split."""
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
        raise DataError(
            f"at most {100 * MOST_LOST:.0f} % of the {split} images may be unreadable",
            value=f"{len(lost):,} of {total:,}",
            place=str(lost[0].path.parent),
            remedy=f"Unreadable: {reasons_text(lost)}. Restore these files; or remove them, and the result is of the "
            "images that are left.",
        )


def is_too_much(total: int, lost: int) -> bool:
    """Whether so many unreadable images make a split another one."""
    return lost > max(ALWAYS_ALLOWED, MOST_LOST * total) or lost == total > 0


def reasons_text(lost: Iterable[Lost]) -> str:
    """As `28 truncated (class_a/1.jpg, class_a/2.jpg, ...); 1 permission denied (class_b/7.jpg)`."""
    groups: dict[str, list[Path]] = {}
    for each in lost:
        groups.setdefault(each.reason, []).append(each.path)
    largest_first = sorted(groups.items(), key=lambda group: -len(group[1]))
    return "; ".join(f"{len(paths):,} {reason} ({files_text(paths)})" for reason, paths in largest_first)


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
