"""What tests of the check of data sets share."""

from pathlib import Path

from tiny_studies import CommandResult, files_of


def require_refused(said: CommandResult, folder: Path, before: set[str], words: str) -> None:
    assert said.returncode == 2, said.stdout + said.stderr
    assert words in said.stderr and "Traceback" not in said.stderr
    assert not said.stdout and files_of(folder) == before


def nothing(_: Path) -> None:
    pass
