"""Files and folders that are written in one piece, by the one module that renames what was written."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from harness.system.atomic_write import atomic_write, atomic_write_text, partial_folder, replace_folder

PACKAGE = Path(__file__).parents[2] / "harness"
MOVES = {
    ("data/cache.py", "_trim"),
    ("export/export.py", "commit"),
    ("storage/reopening.py", "archive_replaced"),
    ("training/checkpoint.py", "set_aside"),
    ("training/full_scale/state.py", "set_aside"),
}
"""Functions that rename what was written before."""
KILLED = """
import os, sys
from pathlib import Path
from harness.system.atomic_write import atomic_write

with atomic_write(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os._exit(9)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_reader_finds_the_old_file_until_the_new_one_is_whole(tmp_path: Path, is_shared: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with atomic_write(path, is_shared=is_shared) as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path and path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("full"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException, is_shared: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_write(path, is_shared=is_shared) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.json"]


def test_nothing_that_was_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_what_a_killed_process_has_left_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode == 9
    assert path.read_text() == "old" and names(tmp_path) == ["a.json", "a.json.partial"]
    atomic_write_text(path, "new")
    assert path.read_text() == "new" and names(tmp_path) == ["a.json"]


def test_two_that_write_one_file_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with atomic_write(path, is_shared=True) as first, atomic_write(path, is_shared=True) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and names(tmp_path) == ["a.json"]


def test_the_file_to_be_written_can_be_named(tmp_path: Path) -> None:
    named = tmp_path / "mine"
    with atomic_write(tmp_path / "a.pt", partial=named) as partial:
        assert partial == named
        partial.write_text("new")
    assert names(tmp_path) == ["a.pt"]


def test_texts_are_in_utf_8(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a", "Größe\n")
    assert (tmp_path / "a").read_bytes() == "Größe\n".encode()


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    with partial_folder(folder) as fresh:
        (fresh / "a").write_text("new")
        assert not folder.exists() and fresh.parent == folder.parent
        replace_folder(fresh, folder)
    assert names(folder.parent) == ["data"] and names(folder) == ["a"]


def test_a_folder_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "inside").mkdir(parents=True)
    with partial_folder(folder) as fresh:
        (fresh / "a").write_text("new")
        replace_folder(fresh, folder)
    assert names(tmp_path) == ["data"] and names(folder) == ["a"]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("old")
    with pytest.raises(OSError, match="full"), partial_folder(folder) as fresh:
        (fresh / "a").write_text("half")
        raise OSError("full")
    assert names(tmp_path) == ["data"] and (folder / "a").read_text() == "old"


def renaming(source: str) -> list[str]:
    """The functions that rename a file: calls of `rename`, or of `replace` with one position and nothing else."""
    functions = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            attributes = [call.func.attr for call in calls if isinstance(call.func, ast.Attribute) and is_path(call)]
            functions += [function.name] if {"rename", "replace"} & set(attributes) else []
    return functions


def is_path(call: ast.Call) -> bool:
    return len(call.args) == 1 and not call.keywords


@pytest.mark.long
def test_nothing_else_renames_what_it_has_written() -> None:
    moves = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in PACKAGE.rglob("*.py")
        for name in renaming(path.read_text(encoding="utf-8"))
        if path.name != "atomic_write.py"
    }
    assert moves == MOVES


def test_renaming_is_distinguished_from_other_replacements() -> None:
    source = "def f():\n a.replace(b)\ndef g():\n a.replace('b', 'c')\n spec.replace(K=3)\ndef h():\n a.rename(b)"
    assert renaming(source) == ["f", "h"]
