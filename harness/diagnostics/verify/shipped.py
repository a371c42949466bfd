"""The study files that come with the harness; known without torch."""

from pathlib import Path

import harness
from harness.config.yaml_file import read_document
from harness.errors import StudyError

FOLDER = Path(harness.__file__).parent.parent / "search_spaces"
"""In a clone of the repository; an installed package has none."""


def study_files() -> list[Path]:
    """All of them, by name."""
    return sorted(FOLDER.glob("*.yaml"))


def claim_studies() -> list[Path]:
    """Those that claim something."""
    return [path for path in study_files() if _has_claims(path)]


def _has_claims(path: Path) -> bool:
    try:
        return bool(read_document(path).data.get("claims"))
    except StudyError:  # said by the check that reads all files
        return False
