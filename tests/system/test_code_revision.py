"""The digests of the code that computes: what changes them, what does not, and what they cost."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.system import code_revision
from harness.system.code_revision import code_digest, digest_files, operator_digest

CODE = '''"""A module."""

X = 2
"""A constant."""


def f(x: int) -> int:
    """A function."""
    # a comment
    return x + X
'''


def digest_of(folder: Path, text: str, name: str = "a.py") -> str:
    path = folder / name
    path.write_text(text)
    return digest_files([path], folder)


def test_wording_changes_no_digest(tmp_path: Path) -> None:
    reworded = CODE.replace('"""A function."""', '"""Another.\n\n    Text.\n    """').replace("# a comment", "#")
    reworded = reworded.replace('"""A constant."""\n', "").replace("x + X", "(x\n            + X)")
    assert digest_of(tmp_path, CODE) == digest_of(tmp_path, reworded)


@pytest.mark.parametrize(("old", "new"), [("X = 2", "X = 3"), ("x + X", "x - X"), ("x + X", "X + x"), ("int)", "str)")])
def test_a_change_of_the_code_changes_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert digest_of(tmp_path, CODE) != digest_of(tmp_path, CODE.replace(old, new))


def test_the_name_of_a_file_is_part_of_the_digest(tmp_path: Path) -> None:
    assert digest_of(tmp_path, CODE) != digest_of(tmp_path, CODE, "b.py")


def test_the_digests_are_of_different_code() -> None:
    assert len({operator_digest(), code_digest(), code_digest(downstream=True)}) == 3
    assert all(int(digest, 16) >= 0 and len(digest) == 8 for digest in (operator_digest(), code_digest()))


def test_a_new_module_of_data_or_measures_is_code_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("data/shapes", "measures"):
        (tmp_path / folder).mkdir(parents=True)
    for name in (
        "data/mine.py",
        "data/shapes/mine.py",
        "measures/mine.py",
        "measures/erf_comparison.py",
        "data/loading.py",
    ):
        (tmp_path / name).touch()
    monkeypatch.setattr(code_revision, "PACKAGE", tmp_path)
    listed = [str(path.relative_to(tmp_path)) for name in ("data", "measures") for path in code_revision._files(name)]
    assert sorted(listed) == ["data/mine.py", "data/shapes/mine.py", "measures/mine.py"]


def test_every_list_names_files_that_exist() -> None:
    names = (*code_revision.TRAINING, *code_revision.DOWNSTREAM, *code_revision.FULL_SCALE, *code_revision.NOT_IN_RUNS)
    assert [name for name in (*names, *code_revision.OPERATOR) if not (code_revision.PACKAGE / name).exists()] == []


def test_the_digests_import_neither_torch_nor_the_code() -> None:
    code = (
        "import sys; from harness.system.code_revision import *; operator_digest(), code_digest(); "
        "print(*(name for name in sys.modules if name in ('torch', 'numpy') or name.startswith('harness.ops')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', "{"])
def test_a_cache_that_cannot_be_read_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(code_revision, "CACHE", tmp_path / "cache" / "revisions.json")
    (tmp_path / "cache").mkdir()
    code_revision.CACHE.write_text(content)
    assert code_revision._digest.__wrapped__(code_revision.OPERATOR) == operator_digest()
    assert operator_digest() in code_revision.CACHE.read_text()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(code_revision, "CACHE", tmp_path / "file" / "revisions.json")
    assert code_revision._digest.__wrapped__(code_revision.OPERATOR) == operator_digest()
