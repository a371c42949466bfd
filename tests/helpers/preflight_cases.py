"""What tests of the check of data sets share."""

from pathlib import Path

from tiny_studies import CommandResult, files_of


def require_refused(result: CommandResult, folder: Path, before: set[str], words: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    assert words in result.stderr and "Traceback" not in result.stderr
    assert not result.stdout and files_of(folder) == before


def nothing(_: Path) -> None:
    pass
