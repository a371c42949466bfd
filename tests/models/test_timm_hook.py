"""The presets are in timm whichever is imported first, and the import hook for it has no other effect."""

import subprocess
import sys
from pathlib import Path

import pytest

import harness

REPOSITORY = Path(harness.__file__).parent.parent

HARNESS_FIRST = """
import importlib, importlib.util, sys, threading
finders = list(sys.meta_path)
import harness
assert not {"torch", "timm"} & set(sys.modules), "importing the harness is light"
importlib.reload(harness)
assert sys.meta_path[1:] == finders, "one finder, however often"
found = importlib.util.find_spec("timm")
assert found.origin.endswith("__init__.py") and found.loader.get_filename("timm") == found.origin
assert importlib.util.find_spec("timmy") is None and "timm" not in sys.modules

seen = []
def use():
    import timm
    seen.append(timm.is_model("replknet_31b"))
threads = [threading.Thread(target=use) for _ in range(4)]
[t.start() for t in threads], [t.join() for t in threads]
assert seen == [True] * 4, seen

import timm
assert sys.meta_path == finders, "gone once it is done"
assert type(timm.__loader__).__name__ == type(timm.__spec__.loader).__name__ == "SourceFileLoader"
for module in (harness, timm):
    importlib.reload(module)
print(*timm.list_models("replknet_*", module="replknet"))
"""

TIMM_FIRST = """
import sys, timm
finders = list(sys.meta_path)
import harness
assert sys.meta_path == finders
print(*timm.list_models("replknet_*"))
"""

WITHOUT_TIMM = """
import importlib.util, sys
sys.path.insert(0, sys.argv[1])
import harness
assert importlib.util.find_spec("timm") is None
for _ in range(2):
    try:
        import timm
    except ModuleNotFoundError as error:
        print(error)
"""

REGISTERED = (
    "replknet_3 replknet_7 replknet_13 replknet_25 replknet_31b replknet_31l replknet_nano replknet_tiny replknet_xl"
)


def python(*arguments: str, cwd: Path = REPOSITORY) -> str:
    result = subprocess.run([sys.executable, "-W", "error", *arguments], capture_output=True, text=True, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.long
def test_presets_are_in_timm_when_timm_comes_later() -> None:
    assert python("-c", HARNESS_FIRST) == REGISTERED


@pytest.mark.long
def test_presets_are_in_timm_when_timm_came_first() -> None:
    assert python("-c", TIMM_FIRST) == REGISTERED


def test_without_timm_the_harness_is_imported_and_timm_is_not_found() -> None:
    output = python("-I", "-S", "-c", WITHOUT_TIMM, str(REPOSITORY))
    assert output.splitlines() == ["No module named 'timm'"] * 2


def test_a_timm_that_fails_fails_as_it_does_and_may_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise ImportError('broken')")
    code = "import sys; sys.path.insert(0, '.'); import harness\ntry:\n import timm\nexcept ImportError as e: print(e)"
    again = "\nprint('timm' in sys.modules, type(sys.meta_path[0]).__module__)"
    output = python(
        "-I", "-S", "-c", f"import sys; sys.path.append({str(REPOSITORY)!r})\n" + code + again, cwd=tmp_path
    )
    assert output.splitlines() == ["broken", "False harness.models.timm.hook"]


@pytest.mark.long
def test_a_timm_without_what_is_needed_stays_usable_and_warns(tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("answer = 42")
    code = (
        "import sys, warnings; sys.path.insert(0, '.'); import harness\n"
        "with warnings.catch_warnings(record=True) as caught:\n warnings.simplefilter('always')\n import timm\n"
        "print(timm.answer, [str(w.message) for w in caught if 'RepLKNet' in str(w.message)])"
    )
    output = python("-c", code, cwd=tmp_path)
    assert output.startswith("42 [") and output.count("RepLKNet is not registered in timm: ") == 1


@pytest.mark.long
def test_a_script_that_does_not_import_the_harness_finds_the_presets(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 7")
    (tmp_path / "train.py").write_text(
        "import sys, beside, timm\n"
        "if __name__ == '__main__':\n"
        "    print(beside.value, timm.is_model('replknet_nano'), sys.argv[1:])"
    )
    output = python("-m", "harness.timm_script", str(tmp_path / "train.py"), "--model", "replknet_nano")
    assert output == "7 True ['--model', 'replknet_nano']"


def test_without_a_script_there_is_one_line_of_help() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "harness.timm_script"], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (result.returncode, result.stderr.count("\n")) == (2, 1) and result.stderr.startswith("usage:")
